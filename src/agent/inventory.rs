//! Everything an agent serves, from its flags, its configuration file and its directories of target files.
//!
//! Where two of these give one alias, the first wins: flags or configuration, then the directories in their order, in
//! each the files by name. What is wrong is said once when it begins and once when it is over; meanwhile the last
//! targets that made sense stay.

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
    wire::{Alias, Labels, TargetError},
};

/// Where targets come from, and what was last found there.
#[derive(Default)]
pub struct Inventory {
    fixed: Vec<TargetSpec>,
    config: Option<ConfigTargets>,
    directories: Vec<Directory>,
    service: String,
    labels: Labels,
    taken: Option<Alias>,
    /// What the client was last given.
    served: Option<Vec<TargetSpec>>,
    problems: BTreeSet<String>,
    sources: BTreeMap<Alias, (ExporterSettings, Arc<dyn Source>)>,
}

/// A configuration file with `[[target]]` tables, re-read when asked for.
struct ConfigTargets {
    path: PathBuf,
    good: Vec<TargetSpec>,
    broken: Option<String>,
    /// What else the file said when the agent started.
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
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Targets that never change.
    pub fn fixed(mut self, targets: Vec<TargetSpec>) -> Self {
        self.fixed = targets;
        self
    }

    /// The `[[target]]` tables of this configuration file. Blocks.
    ///
    /// # Errors
    /// If it cannot be used now.
    pub fn config(mut self, path: PathBuf) -> Result<Self, TargetFileError> {
        self.config = Some(ConfigTargets::load(path)?);
        Ok(self)
    }

    /// The target files in this directory. Several are read in the order in which they were given.
    pub fn directory(mut self, path: PathBuf) -> Self {
        self.directories.push(Directory::new(path));
        self
    }

    /// The service of targets that say none.
    pub fn service(mut self, service: String) -> Self {
        self.service = service;
        self
    }

    /// An alias that no target may have, and which counts as one: that of the agent itself.
    pub fn taken(mut self, alias: Option<Alias>) -> Self {
        self.taken = alias;
        self
    }

    /// Labels of every target; what a target says itself wins.
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// True if there is no target and no place where one could appear.
    pub fn is_empty(&self) -> bool {
        let configured = self.config.as_ref().is_some_and(|config| !config.good.is_empty());
        self.fixed.is_empty() && !configured && self.directories.is_empty()
    }

    /// True if there is something to watch for changes.
    pub fn has_directories(&self) -> bool {
        !self.directories.is_empty()
    }

    /// Re-reads the configuration file too at the next [`read`](Self::read). Blocks.
    pub fn reload_config(&mut self) {
        if let Some(config) = &mut self.config {
            config.reload();
        }
    }

    /// Reads the directories. Gives the whole set of targets if it is not the one that was last given. Targets whose
    /// exporter is asked as before keep their source, and with it their connections. Blocks.
    pub fn read(&mut self) -> Option<Vec<TargetBuilder>> {
        let (targets, problems) = self.survey();
        self.tell(problems);
        if self.served.as_ref() == Some(&targets) {
            return None;
        }
        let builders = self.builders(&targets);
        self.served = Some(targets);
        Some(builders)
    }

    /// Reads the directories. Gives every target that can be served, and what is wrong with others. Blocks.
    pub(crate) fn survey(&mut self) -> (Vec<TargetSpec>, BTreeSet<String>) {
        let mut problems = BTreeSet::new();
        for directory in &mut self.directories {
            directory.read(&mut problems);
        }
        let targets = self.gathered(&mut problems);
        (targets, problems)
    }

    /// What is wrong at present.
    pub fn problems(&self) -> impl ExactSizeIterator<Item = &str> {
        self.problems.iter().map(String::as_str)
    }

    /// All targets that can be served.
    fn gathered(&self, problems: &mut BTreeSet<String>) -> Vec<TargetSpec> {
        if let Some(broken) = self.config.as_ref().and_then(|config| config.broken.clone()) {
            problems.insert(broken);
        }
        let config = self.config.iter().flat_map(|config| config.good.iter().map(|spec| (config.path.as_path(), spec)));
        let fixed = self.fixed.iter().map(|spec| (Path::new("--target"), spec));
        let found = self.directories.iter().flat_map(Directory::targets);
        let mut targets: BTreeMap<&Alias, (&Path, TargetSpec)> = BTreeMap::new();
        let mut left_out = 0;
        for (origin, spec) in fixed.chain(config).chain(found) {
            let alias = &spec.target.alias;
            if self.taken.as_ref() == Some(alias) {
                problems.insert(format!("alias {alias} of {} is left out: the agent itself has it", origin.display()));
            } else if let Some((first, _)) = targets.get(alias) {
                problems.insert(format!(
                    "alias {alias} of {} is left out: {} has it already",
                    origin.display(),
                    first.display()
                ));
            } else if targets.len() + usize::from(self.taken.is_some()) == MAX_TARGETS {
                left_out += 1;
            } else {
                match self.with_defaults(spec) {
                    Ok(spec) => drop(targets.insert(alias, (origin, spec))),
                    Err(error) => drop(problems.insert(format!("alias {alias} of {}: {error}", origin.display()))),
                }
            }
        }
        if left_out > 0 {
            problems.insert(format!("{left_out} targets are left out: limit is {MAX_TARGETS} for one agent"));
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

    fn tell(&mut self, problems: BTreeSet<String>) {
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
            let mut builder = TargetBuilder::new(alias.as_str()).service(&spec.target.service);
            for (name, value) in spec.target.labels.iter() {
                builder = builder.label(name, value);
            }
            builders.push(builder.metrics(Arc::clone(&source)).filter(spec.filter.clone()));
            self.sources.insert(alias.clone(), (spec.exporter.clone(), source));
        }
        builders
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    struct Place {
        dir: TempDir,
        inventory: Inventory,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let inventory = Inventory::new().directory(dir.path().to_owned());
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
            let shown = |spec: &TargetSpec| format!("{}={}", spec.target.alias, spec.exporter.url.host_header());
            served.map(shown).collect()
        }

        fn source(&self, alias: &str) -> Arc<dyn Source> {
            Arc::clone(&self.inventory.sources[alias].1)
        }
    }

    #[test]
    fn files_that_come_change_and_go_are_followed() {
        let mut place = Place::new();
        assert!(place.inventory.read().is_some_and(|targets| targets.is_empty()));
        place.write("b.toml", &["b1", "b2"]);
        place.write(".hidden.toml", &["no"]);
        place.write("notes.txt", &["no"]);
        fs::create_dir(place.dir.path().join("folder.toml")).expect("makes");
        assert!(place.inventory.read().is_some());
        assert_eq!(place.served(), ["b1=b.toml", "b2=b.toml"]);
        assert!(place.inventory.read().is_none(), "nothing has changed");

        let kept = place.source("b2");
        place.write("b.toml", &["b2", "b3"]);
        place.write("a.json.toml", &[]);
        assert!(place.inventory.read().is_some());
        assert_eq!(place.served(), ["b2=b.toml", "b3=b.toml"]);
        assert!(Arc::ptr_eq(&kept, &place.source("b2")), "its connections are kept");
        fs::remove_file(place.dir.path().join("b.toml")).expect("there");
        assert!(place.inventory.read().is_some_and(|targets| targets.is_empty()));
        assert_eq!(place.inventory.problems().len(), 0);
    }

    #[test]
    fn a_broken_file_keeps_its_last_good_targets_and_is_reported() {
        let mut place = Place::new();
        place.write("a.toml", &["a1"]);
        place.write("b.toml", &["b1"]);
        place.inventory.read();
        for broken in ["[[target", "", "[[target]]\nalias = \"b1\"\nurl = \"http://h\"\nunknown = 1"] {
            fs::write(place.dir.path().join("b.toml"), broken).expect("writes");
            for _ in 0..2 {
                assert!(place.inventory.read().is_none(), "{broken:?}");
                let problems: Vec<_> = place.inventory.problems().collect();
                let told = |problem: &str| problem.contains("b.toml") && problem.ends_with("stay as they were");
                assert!(matches!(problems[..], [one] if told(one)), "{problems:?}");
            }
        }
        let mut started_later = Inventory::new().directory(place.dir.path().to_owned());
        started_later.read();
        let problem = started_later.problems().next().expect("a broken file");
        assert!(problem.contains("b.toml") && problem.ends_with("none of its targets is registered"), "{problem}");
        fs::remove_file(place.dir.path().join("b.toml")).expect("there");
        symlink("nowhere", place.dir.path().join("b.toml")).expect("links");
        assert!(place.inventory.read().is_none() && place.inventory.problems().len() == 1);
        fs::remove_file(place.dir.path().join("b.toml")).expect("there");
        place.write("b.toml", &["b2"]);
        assert!(place.inventory.read().is_some() && place.inventory.problems().len() == 0);
        assert_eq!(place.served(), ["a1=a.toml", "b2=b.toml"]);
        // A volume that is away for a moment takes nothing with it.
        let elsewhere = place.dir.path().with_extension("away");
        fs::rename(place.dir.path(), &elsewhere).expect("moves");
        assert!(place.inventory.read().is_none() && place.inventory.problems().len() == 1);
        fs::rename(&elsewhere, place.dir.path()).expect("moves back");
        assert!(place.inventory.read().is_none() && place.inventory.problems().len() == 0);
    }

    #[test]
    fn a_list_in_yaml_is_not_passed_over_in_silence() {
        let mut place = Place::new();
        place.write("a.toml", &["a1"]);
        for name in ["b.yml", ".hidden.yaml", "c.yaml.bak"] {
            place.write(name, &["b1"]);
        }
        place.inventory.read();
        assert_eq!(place.served(), ["a1=a.toml"]);
        let problems: Vec<_> = place.inventory.problems().collect();
        assert!(matches!(problems[..], [one] if one.contains("b.yml is YAML")), "{problems:?}");
    }

    #[test]
    fn of_two_files_with_one_alias_the_first_by_name_wins() {
        let mut place = Place::new();
        place.write("b.toml", &["web"]);
        place.inventory.read();
        place.write("a.toml", &["web", "other"]);
        place.inventory.read();
        assert_eq!(place.served(), ["other=a.toml", "web=a.toml"]);
        let problems: Vec<_> = place.inventory.problems().collect();
        assert!(matches!(problems[..], [one] if one.contains("web") && one.contains("b.toml")), "{problems:?}");
        fs::remove_file(place.dir.path().join("a.toml")).expect("there");
        place.inventory.read();
        assert_eq!(place.served(), ["web=b.toml"]);
    }

    #[test]
    fn a_swapped_link_is_a_change() {
        let mut place = Place::new();
        // As kubelet lays a ConfigMap out.
        for (version, alias) in [("..v1", "one"), ("..v2", "two")] {
            fs::create_dir(place.dir.path().join(version)).expect("makes");
            place.write(&format!("{version}/t.toml"), &[alias]);
        }
        let data = place.dir.path().join("..data");
        let swap_to = |version: &str| {
            let next = data.with_file_name("..data_tmp");
            symlink(version, &next).expect("links");
            fs::rename(next, &data).expect("renames");
        };
        swap_to("..v1");
        symlink("..data/t.toml", place.dir.path().join("t.toml")).expect("links");
        place.inventory.read();
        assert!(place.served()[0].starts_with("one="));
        swap_to("..v2");
        assert!(place.inventory.read().is_some());
        assert!(place.served()[0].starts_with("two="));
    }

    #[test]
    fn what_is_too_much_is_left_out_and_told() {
        let mut place = Place::new();
        let aliases: Vec<String> = (0..300).map(|n| format!("t{n:03}")).collect();
        place.write("t.toml", &aliases.iter().map(String::as_str).collect::<Vec<_>>());
        place.inventory.read();
        assert_eq!(place.served().len(), MAX_TARGETS);
        assert!(place.inventory.problems().next().is_some_and(|problem| problem.starts_with("44 targets")));
    }

    #[test]
    fn the_agents_own_alias_is_no_targets_and_takes_the_room_of_one() {
        let mut place = Place::new();
        place.inventory = std::mem::take(&mut place.inventory).taken("t007".parse().ok());
        let aliases: Vec<String> = (0..257).map(|n| format!("t{n:03}")).collect();
        place.write("t.toml", &aliases.iter().map(String::as_str).collect::<Vec<_>>());
        place.inventory.read();
        assert_eq!(place.served().len(), MAX_TARGETS - 1);
        assert!(!place.served().iter().any(|served| served.starts_with("t007")));
        let problems: Vec<_> = place.inventory.problems().collect();
        assert!(problems.iter().any(|problem| problem.starts_with("alias t007 of")), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.starts_with("1 targets")), "{problems:?}");
    }

    #[test]
    fn defaults_fill_what_a_target_does_not_say() {
        let mut labels = Labels::default();
        labels.insert("region", "eu").expect("fine");
        labels.insert("zone", "1").expect("fine");
        let mut place = Place::new();
        place.inventory = mem::take(&mut place.inventory).service("node".into()).labels(labels);
        let own = "[[target]]\nalias = \"own\"\nurl = \"http://h\"\nservice = \"db\"\nlabels = { region = \"us\" }\n";
        fs::write(place.dir.path().join("t.toml"), own).expect("writes");
        place.write("u.toml", &["plain"]);
        place.inventory.read();
        let [own, plain] = &place.inventory.served.as_ref().expect("read")[..] else { panic!("two targets") };
        assert_eq!((own.target.service.as_str(), plain.target.service.as_str()), ("db", "node"));
        assert_eq!(own.target.labels.iter().collect::<Vec<_>>(), [("region", "us"), ("zone", "1")]);
        assert_eq!(plain.target.labels.value("region"), Some("eu"));
    }
}
