//! The `[[secret]]` tables of a scraper's configuration: secrets with a name, a time and bounds.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use super::{keys, value};
use crate::{
    access::{AliasGlob, AliasPolicy, NamedSecret, Quota, Scope, SecretName},
    wire::{Labels, Target},
};

/// The key of the tables.
pub(super) const KEY: &str = "secret";

/// The tables of a file, read and not yet checked.
#[derive(Clone, Debug, Default)]
pub(super) struct SecretTables(Vec<Table>);

/// A table, with paths from the directory of its file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    /// The file of the secret, as `narthex secret` writes it; or several, while one replaces another.
    #[serde(alias = "files")]
    file: OneOrMore,
    /// Aliases that may be registered with it: `*` stands for any characters, `?` for one. All if there is none.
    #[serde(default, alias = "alias")]
    aliases: Option<Vec<AliasGlob>>,
    /// Labels of every target that is registered with it.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// The service of every target that is registered with it.
    service: Option<String>,
    /// Most aliases at once of all who have it.
    #[serde(alias = "max-aliases")]
    max_aliases: Option<usize>,
    /// Most bytes of these in /sd, such as `1MiB`.
    #[serde(alias = "max-bytes")]
    max_bytes: Option<String>,
    /// `live`, `pinned` or `overwrite`, between those who have it.
    #[serde(alias = "alias-policy")]
    alias_policy: Option<String>,
    /// From when until when it may be used, such as `2027-01-01T00:00:00Z`.
    #[serde(alias = "not-before")]
    not_before: Option<Time>,
    #[serde(alias = "not-after")]
    not_after: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

/// TOML's own, or a text.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Time {
    Toml(toml::value::Datetime),
    Text(String),
}

impl SecretTables {
    /// Takes the tables out of a configuration file. A `secret` that is no table is left where it is.
    ///
    /// # Errors
    /// A line that says which table has what fault.
    pub(super) fn take(config: &mut toml::Table, file: &Path) -> Result<Self, String> {
        let is_tables =
            config.get(KEY).and_then(toml::Value::as_array).is_some_and(|all| all.iter().all(toml::Value::is_table));
        let Some(toml::Value::Array(tables)) = is_tables.then(|| config.remove(KEY)).flatten() else {
            return Ok(Self::default());
        };
        let tables = tables.into_iter().enumerate().map(|(number, table)| {
            let name = table.get("name").and_then(toml::Value::as_str).map(str::to_owned);
            let mut table: Table = table.try_into().map_err(|error: toml::de::Error| {
                let which = name.map_or_else(|| format!("number {}", number + 1), |name| format!("{name:?}"));
                let hint = match error.message().contains("unknown field") {
                    true => "; keys of the scraper itself stand above the first [[secret]]",
                    false => "",
                };
                format!("{}: [[secret]] {which}: {}{hint}", file.display(), error.message().trim_end())
            })?;
            if let Some(dir) = file.parent() {
                table.file.paths_mut().iter_mut().for_each(|path| *path = dir.join(&*path));
            }
            Ok(table)
        });
        tables.collect::<Result<_, String>>().map(Self)
    }

    /// The secrets, read from their files.
    pub(super) fn read(&self) -> anyhow::Result<Vec<NamedSecret>> {
        let mut secrets = Vec::new();
        for (number, table) in self.0.iter().enumerate() {
            if self.0[..number].iter().any(|before| before.name == table.name) {
                bail!(
                    "[[secret]] {:?} is there twice: give one of them another name, or one table both files",
                    table.name
                );
            }
            let read = table.read().with_context(|| format!("[[secret]] {:?}", table.name))?;
            secrets.extend(read);
        }
        Ok(secrets)
    }
}

impl OneOrMore {
    fn paths(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::More(paths) => paths,
        }
    }

    fn paths_mut(&mut self) -> &mut [PathBuf] {
        match self {
            Self::One(path) => std::slice::from_mut(path),
            Self::More(paths) => paths,
        }
    }
}

impl Table {
    fn read(&self) -> anyhow::Result<Vec<NamedSecret>> {
        let name: SecretName = self.name.parse()?;
        let scope = self.scope()?;
        let [not_before, not_after] = [&self.not_before, &self.not_after].map(|time| time.as_ref().map(Time::read));
        let (not_before, not_after) = (not_before.transpose()?, not_after.transpose()?);
        if let (Some(from), Some(until)) = (not_before, not_after) {
            ensure!(from < until, "not_after is not later than not_before");
        }
        ensure!(!self.file.paths().is_empty(), "file names no file");
        let secrets = self.file.paths().iter().map(|path| {
            let secret = keys::load_secret(path)?;
            Ok(NamedSecret { scope: scope.clone(), not_before, not_after, ..NamedSecret::new(name.clone(), secret) })
        });
        secrets.collect()
    }

    fn scope(&self) -> anyhow::Result<Scope> {
        let mut labels = Labels::default();
        for (name, value) in &self.labels {
            labels.insert(name, value)?;
        }
        if let Some(service) = &self.service {
            Target::check_name("service", service)?;
        }
        if self.max_aliases == Some(0) {
            bail!("max_aliases is 0: nobody could register with it");
        }
        if self.aliases.as_ref().is_some_and(Vec::is_empty) {
            bail!("aliases is empty: nobody could register with it; leave it out to permit any");
        }
        let policy = self.alias_policy.as_deref().map(str::parse::<AliasPolicy>).transpose()?;
        let max_bytes = self.max_bytes.as_deref().map(value::bytes).transpose();
        let max_bytes = max_bytes.map_err(|why| anyhow::anyhow!("max_bytes: {why}"))?;
        Ok(Scope {
            aliases: self.aliases.clone().unwrap_or_default(),
            labels,
            service: self.service.clone(),
            quota: Quota { max_aliases: self.max_aliases, max_bytes, policy },
            ..Scope::default()
        })
    }
}

impl Time {
    fn read(&self) -> anyhow::Result<SystemTime> {
        let text = match self {
            Self::Toml(time) => time.to_string(),
            Self::Text(text) => text.clone(),
        };
        humantime::parse_rfc3339(&text)
            .with_context(|| format!("{text:?} is no time such as 2027-01-01T00:00:00Z, which ends with Z"))
    }
}
