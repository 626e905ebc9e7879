//! Everything an agent serves: fixed targets, its configuration file and its directories of target files.
//!
//! Where two of these give one alias, the first wins: fixed targets or configuration, then the directories in their
//! order, in each the files by name. A problem is logged when it begins and when it ends; meanwhile the last valid
//! targets stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Exporter, ExporterSettings, TargetSpec,
    directory::Directory,
    target_file::{TargetFileError, parse_config},
};
use crate::{
    client::{MAX_TARGETS, Source, TargetBuilder},
    telemetry::Chain,
    wire::{
        Alias, Claim, Labels, Target, TargetError,
        codec::{self, MAX_MESSAGE_LEN},
    },
};

/// What a registration may have beside the targets of the inventory.
const OWN_BYTES: usize = 64 * 1024;

/// Where targets come from, and what was last found there.
#[derive(Default)]
pub(crate) struct Inventory {
    /// Targets that never change.
    pub(crate) fixed: Vec<TargetSpec>,
    /// What gave the fixed targets, such as a flag. Problems name it.
    pub(crate) fixed_origin: PathBuf,
    config: Option<ConfigTargets>,
    directories: Vec<Directory>,
    /// The service of targets that set none.
    pub(crate) service: String,
    /// Labels of every target. A target's own value of a label wins.
    pub(crate) labels: Labels,
    /// An alias that no target may have and that counts as a target: that of the agent itself.
    pub(crate) reserved: Option<Alias>,
    /// The set that the client was last given.
    served: Option<Vec<TargetSpec>>,
    problems: BTreeSet<String>,
    sources: BTreeMap<Alias, (ExporterSettings, Arc<dyn Source>)>,
}

/// A configuration file with `[[target]]` tables, re-read on request.
struct ConfigTargets {
    path: PathBuf,
    good: Vec<TargetSpec>,
    broken: Option<String>,
    /// The file's other settings when the agent started.
    settings: toml::Table,
}

impl ConfigTargets {
    fn load(path: PathBuf) -> Result<Self, TargetFileError> {
        let read = fs::read_to_string(&path);
        let text = read.map_err(|source| TargetFileError::Read { path: path.clone(), source })?;
        let good = parse_config(&path, &text)?;
        let mut settings: toml::Table = toml::from_str(&text).unwrap_or_default();
        settings.remove("target");
        Ok(Self { path, good, broken: None, settings })
    }

    fn reload(&mut self) {
        match Self::load(self.path.clone()) {
            Ok(now) => {
                if now.settings != self.settings {
                    tracing::warn!(file = %self.path.display(), "settings other than [[target]] have changed: they need a restart");
                }
                *self = Self { settings: mem::take(&mut self.settings), ..now };
            }
            Err(error) => self.broken = Some(format!("{}; its targets stay as they were", Chain(&error))),
        }
    }
}

impl Inventory {
    /// The `[[target]]` tables of this configuration file. Blocks.
    ///
    /// # Errors
    /// If the file cannot be used now.
    pub(crate) fn config(mut self, path: PathBuf) -> Result<Self, TargetFileError> {
        self.config = Some(ConfigTargets::load(path)?);
        Ok(self)
    }

    /// The target files in this directory. Several directories are read in the order of these calls.
    pub(crate) fn directory(mut self, path: PathBuf) -> Self {
        self.directories.push(Directory::new(path));
        self
    }

    /// True if there is no target and no directory in which one could appear.
    pub(crate) fn is_empty(&self) -> bool {
        let configured = self.config.as_ref().is_some_and(|config| !config.good.is_empty());
        self.fixed.is_empty() && !configured && self.directories.is_empty()
    }

    /// True if there is a directory to watch for changes.
    pub(crate) fn has_directories(&self) -> bool {
        !self.directories.is_empty()
    }

    /// Re-reads the configuration file. The next [`read`](Self::read) returns its targets. Blocks.
    pub(crate) fn reload_config(&mut self) {
        if let Some(config) = &mut self.config {
            config.reload();
        }
    }

    /// Reads the directories. Returns the whole set of targets if the set has changed. Targets with the same exporter
    /// settings keep their source and its connections. Blocks.
    pub(crate) fn read(&mut self) -> Option<Vec<TargetBuilder>> {
        let (targets, problems) = self.survey();
        self.log(problems);
        if self.served.as_ref() == Some(&targets) {
            return None;
        }
        let builders = self.builders(&targets);
        self.served = Some(targets);
        Some(builders)
    }

    /// Reads the directories. Returns every target that can be served, and the problems of the others. Blocks.
    pub(crate) fn survey(&mut self) -> (Vec<TargetSpec>, BTreeSet<String>) {
        let mut problems = BTreeSet::new();
        for directory in &mut self.directories {
            directory.read(&mut problems);
        }
        let targets = self.collect(&mut problems);
        (targets, problems)
    }

    /// The problems at present.
    pub(crate) fn problems(&self) -> impl ExactSizeIterator<Item = &str> {
        self.problems.iter().map(String::as_str)
    }

    fn collect(&self, problems: &mut BTreeSet<String>) -> Vec<TargetSpec> {
        if let Some(broken) = self.config.as_ref().and_then(|config| config.broken.clone()) {
            problems.insert(broken);
        }
        let config = self.config.iter().flat_map(|config| config.good.iter().map(|spec| (config.path.as_path(), spec)));
        let fixed = self.fixed.iter().map(|spec| (self.fixed_origin.as_path(), spec));
        let found = self.directories.iter().flat_map(Directory::targets);
        let mut targets: BTreeMap<&Alias, (&Path, TargetSpec)> = BTreeMap::new();
        let (mut left_out, mut too_long) = (0, 0);
        let mut bytes_left = MAX_MESSAGE_LEN - OWN_BYTES;
        for (origin, spec) in fixed.chain(config).chain(found) {
            let alias = &spec.target.alias;
            if self.reserved.as_ref() == Some(alias) {
                problems.insert(format!("alias {alias} of {} is left out: the agent itself has it", origin.display()));
            } else if let Some((first, _)) = targets.get(alias) {
                problems.insert(format!(
                    "alias {alias} of {} is left out: {} has it already",
                    origin.display(),
                    first.display()
                ));
            } else if targets.len() + usize::from(self.reserved.is_some()) == MAX_TARGETS {
                left_out += 1;
            } else {
                match self.with_defaults(spec) {
                    Ok(spec) => match claim_bytes(&spec.target) {
                        Some(bytes) if bytes <= bytes_left => {
                            bytes_left -= bytes;
                            targets.insert(alias, (origin, spec));
                        }
                        _ => too_long += 1,
                    },
                    Err(error) => drop(problems.insert(format!("alias {alias} of {}: {error}", origin.display()))),
                }
            }
        }
        if left_out > 0 {
            problems.insert(format!("{left_out} targets are left out: limit is {MAX_TARGETS} for one agent"));
        }
        if too_long > 0 {
            problems.insert(format!(
                "{too_long} targets are left out: what an agent registers may have {MAX_MESSAGE_LEN} bytes; give fewer or shorter labels, or further agents"
            ));
        }
        targets.into_values().map(|(_, spec)| spec).collect()
    }

    fn with_defaults(&self, spec: &TargetSpec) -> Result<TargetSpec, TargetError> {
        let mut spec = spec.clone();
        if spec.target.service.is_empty() {
            spec.target.service.clone_from(&self.service);
        }
        for (name, value) in self.labels.iter() {
            if spec.target.labels.value(name).is_none() {
                spec.target.labels.insert(name, value)?;
            }
        }
        Ok(spec)
    }

    fn log(&mut self, problems: BTreeSet<String>) {
        for problem in problems.difference(&self.problems) {
            tracing::error!(problem, "targets cannot be used as they are written");
        }
        for problem in self.problems.difference(&problems) {
            tracing::info!(problem, "mended");
        }
        self.problems = problems;
    }

    fn builders(&mut self, targets: &[TargetSpec]) -> Vec<TargetBuilder> {
        let mut known = mem::take(&mut self.sources);
        let mut builders = Vec::with_capacity(targets.len());
        for spec in targets {
            let alias = &spec.target.alias;
            let source = match known.remove(alias) {
                Some((settings, source)) if settings == spec.exporter => source,
                _ => {
                    if spec.exporter.tls.insecure_skip_verify {
                        let url = &spec.exporter.url;
                        tracing::warn!(%alias, %url, "insecure_skip_verify: this exporter may be anybody");
                    }
                    let exporter = Exporter::with(spec.exporter.clone());
                    for error in exporter.unusable_files() {
                        tracing::warn!(%alias, error = %Chain(&error), "scrapes of this target will fail");
                    }
                    Arc::new(exporter)
                }
            };
            builders.push(spec.builder(Arc::clone(&source)));
            self.sources.insert(alias.clone(), (spec.exporter.clone(), source));
        }
        builders
    }
}

/// Bytes of a target in a registration, or one more. None for a target that is too long for any.
fn claim_bytes(target: &Target) -> Option<usize> {
    codec::encode(&Claim::from(target)).ok().map(|claim| claim.len())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    struct Fixture {
        dir: TempDir,
        inventory: Inventory,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let inventory = Inventory::default().directory(dir.path().to_owned());
            Self { dir, inventory }
        }

        fn write(&self, name: &str, aliases: &[&str]) {
            let table = |alias: &&str| format!("[[target]]\nalias = \"{alias}\"\nurl = \"http://{name}\"\n");
            let text: String = aliases.iter().map(table).collect();
            fs::write(self.dir.path().join(name), if text.is_empty() { "target = []".into() } else { text })
                .expect("writes");
        }

        fn served(&self) -> Vec<String> {
            let served = self.inventory.served.iter().flatten();
            let summary = |spec: &TargetSpec| format!("{}={}", spec.target.alias, spec.exporter.url.host_header());
            served.map(summary).collect()
        }

        fn source(&self, alias: &str) -> Arc<dyn Source> {
            Arc::clone(&self.inventory.sources[alias].1)
        }
    }

    #[test]
    fn files_that_come_change_and_go_are_followed() {
        let mut fixture = Fixture::new();
        assert!(fixture.inventory.read().is_some_and(|targets| targets.is_empty()));
        fixture.write("b.toml", &["b1", "b2"]);
        fixture.write(".hidden.toml", &["no"]);
        fixture.write("notes.txt", &["no"]);
        fs::create_dir(fixture.dir.path().join("folder.toml")).expect("makes");
        assert!(fixture.inventory.read().is_some());
        assert_eq!(fixture.served(), ["b1=b.toml", "b2=b.toml"]);
        assert!(fixture.inventory.read().is_none(), "nothing has changed");

        let kept = fixture.source("b2");
        fixture.write("b.toml", &["b2", "b3"]);
        fixture.write("a.json.toml", &[]);
        assert!(fixture.inventory.read().is_some());
        assert_eq!(fixture.served(), ["b2=b.toml", "b3=b.toml"]);
        assert!(Arc::ptr_eq(&kept, &fixture.source("b2")), "its connections are kept");
        fs::remove_file(fixture.dir.path().join("b.toml")).expect("there");
        assert!(fixture.inventory.read().is_some_and(|targets| targets.is_empty()));
        assert_eq!(fixture.inventory.problems().len(), 0);
    }

    #[test]
    fn a_broken_file_keeps_its_last_good_targets_and_is_reported() {
        let mut fixture = Fixture::new();
        fixture.write("a.toml", &["a1"]);
        fixture.write("b.toml", &["b1"]);
        fixture.inventory.read();
        for broken in ["[[target", "", "[[target]]\nalias = \"b1\"\nurl = \"http://h\"\nunknown = 1"] {
            fs::write(fixture.dir.path().join("b.toml"), broken).expect("writes");
            for _ in 0..2 {
                assert!(fixture.inventory.read().is_none(), "{broken:?}");
                let problems: Vec<_> = fixture.inventory.problems().collect();
                let expected = |problem: &str| problem.contains("b.toml") && problem.ends_with("stay as they were");
                assert!(matches!(problems[..], [one] if expected(one)), "{problems:?}");
            }
        }
        let mut started_later = Inventory::default().directory(fixture.dir.path().to_owned());
        started_later.read();
        let problem = started_later.problems().next().expect("a broken file");
        assert!(problem.contains("b.toml") && problem.ends_with("none of its targets is registered"), "{problem}");
        fs::remove_file(fixture.dir.path().join("b.toml")).expect("there");
        symlink("nowhere", fixture.dir.path().join("b.toml")).expect("links");
        assert!(fixture.inventory.read().is_none() && fixture.inventory.problems().len() == 1);
        fs::remove_file(fixture.dir.path().join("b.toml")).expect("there");
        fixture.write("b.toml", &["b2"]);
        assert!(fixture.inventory.read().is_some() && fixture.inventory.problems().len() == 0);
        assert_eq!(fixture.served(), ["a1=a.toml", "b2=b.toml"]);
        // A volume that is away for a moment takes nothing with it.
        let elsewhere = fixture.dir.path().with_extension("away");
        fs::rename(fixture.dir.path(), &elsewhere).expect("moves");
        assert!(fixture.inventory.read().is_none() && fixture.inventory.problems().len() == 1);
        fs::rename(&elsewhere, fixture.dir.path()).expect("moves back");
        assert!(fixture.inventory.read().is_none() && fixture.inventory.problems().len() == 0);
    }

    #[test]
    fn a_list_in_yaml_is_a_problem() {
        let mut fixture = Fixture::new();
        fixture.write("a.toml", &["a1"]);
        for name in ["b.yml", ".hidden.yaml", "c.yaml.bak"] {
            fixture.write(name, &["b1"]);
        }
        fixture.inventory.read();
        assert_eq!(fixture.served(), ["a1=a.toml"]);
        let problems: Vec<_> = fixture.inventory.problems().collect();
        assert!(matches!(problems[..], [one] if one.contains("b.yml is YAML")), "{problems:?}");
    }

    #[test]
    fn of_two_files_with_one_alias_the_first_by_name_wins() {
        let mut fixture = Fixture::new();
        fixture.write("b.toml", &["web"]);
        fixture.inventory.read();
        fixture.write("a.toml", &["web", "other"]);
        fixture.inventory.read();
        assert_eq!(fixture.served(), ["other=a.toml", "web=a.toml"]);
        let problems: Vec<_> = fixture.inventory.problems().collect();
        assert!(matches!(problems[..], [one] if one.contains("web") && one.contains("b.toml")), "{problems:?}");
        fs::remove_file(fixture.dir.path().join("a.toml")).expect("there");
        fixture.inventory.read();
        assert_eq!(fixture.served(), ["web=b.toml"]);
    }

    #[test]
    fn a_swapped_link_is_a_change() {
        let mut fixture = Fixture::new();
        // As kubelet lays a ConfigMap out.
        for (version, alias) in [("..v1", "one"), ("..v2", "two")] {
            fs::create_dir(fixture.dir.path().join(version)).expect("makes");
            fixture.write(&format!("{version}/t.toml"), &[alias]);
        }
        let data = fixture.dir.path().join("..data");
        let swap_to = |version: &str| {
            let next = data.with_file_name("..data_tmp");
            symlink(version, &next).expect("links");
            fs::rename(next, &data).expect("renames");
        };
        swap_to("..v1");
        symlink("..data/t.toml", fixture.dir.path().join("t.toml")).expect("links");
        fixture.inventory.read();
        assert!(fixture.served()[0].starts_with("one="));
        swap_to("..v2");
        assert!(fixture.inventory.read().is_some());
        assert!(fixture.served()[0].starts_with("two="));
    }

    #[test]
    fn targets_past_the_limit_are_left_out_and_reported() {
        let mut fixture = Fixture::new();
        let aliases: Vec<String> = (0..MAX_TARGETS + 44).map(|n| format!("t{n:03}")).collect();
        fixture.write("t.toml", &aliases.iter().map(String::as_str).collect::<Vec<_>>());
        fixture.inventory.read();
        assert_eq!(fixture.served().len(), MAX_TARGETS);
        assert!(fixture.inventory.problems().next().is_some_and(|problem| problem.starts_with("44 targets")));
    }

    /// Before: the agent did not start at all.
    #[test]
    fn targets_that_a_registration_has_no_room_for_are_left_out_and_reported() {
        let mut fixture = Fixture::new();
        let value = "x".repeat(1000);
        (0..8).for_each(|n| fixture.inventory.labels.insert(format!("l{n}"), &value).expect("a label"));
        let aliases: Vec<String> = (0..200).map(|n| format!("t{n:03}")).collect();
        fixture.write("t.toml", &aliases.iter().map(String::as_str).collect::<Vec<_>>());
        fixture.inventory.read();
        let fit = (MAX_MESSAGE_LEN - OWN_BYTES) / (8 * 1005);
        let served = fixture.served().len();
        assert!((fit - 2..=fit).contains(&served), "{served} of {fit}");
        let problem = fixture.inventory.problems().next().expect("a problem");
        assert!(
            problem.starts_with(&format!("{} targets", 200 - served)) && problem.contains("shorter labels"),
            "{problem}"
        );
    }

    #[test]
    fn the_agents_own_alias_is_reserved_and_counts_as_a_target() {
        let mut fixture = Fixture::new();
        fixture.inventory.reserved = "t007".parse().ok();
        let aliases: Vec<String> = (0..=MAX_TARGETS).map(|n| format!("t{n:03}")).collect();
        fixture.write("t.toml", &aliases.iter().map(String::as_str).collect::<Vec<_>>());
        fixture.inventory.read();
        assert_eq!(fixture.served().len(), MAX_TARGETS - 1);
        assert!(!fixture.served().iter().any(|served| served.starts_with("t007")));
        let problems: Vec<_> = fixture.inventory.problems().collect();
        assert!(problems.iter().any(|problem| problem.starts_with("alias t007 of")), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.starts_with("1 targets")), "{problems:?}");
    }

    #[test]
    fn defaults_fill_what_a_target_does_not_set() {
        let mut labels = Labels::default();
        labels.insert("region", "eu").expect("fine");
        labels.insert("zone", "1").expect("fine");
        let mut fixture = Fixture::new();
        (fixture.inventory.service, fixture.inventory.labels) = ("node".into(), labels);
        let own = "[[target]]\nalias = \"own\"\nurl = \"http://h\"\nservice = \"db\"\nlabels = { region = \"us\" }\n";
        fs::write(fixture.dir.path().join("t.toml"), own).expect("writes");
        fixture.write("u.toml", &["plain"]);
        fixture.inventory.read();
        let [own, plain] = &fixture.inventory.served.as_ref().expect("read")[..] else { panic!("two targets") };
        assert_eq!((own.target.service.as_str(), plain.target.service.as_str()), ("db", "node"));
        assert_eq!(own.target.labels.iter().collect::<Vec<_>>(), [("region", "us"), ("zone", "1")]);
        assert_eq!(plain.target.labels.value("region"), Some("eu"));
    }
}
