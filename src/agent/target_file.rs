//! Files of targets: TOML and JSON with the tables of [`TargetSpec`], and Prometheus's file_sd JSON.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    file_sd::Group,
    spec::{SpecError, Table, TargetSpec},
};
use crate::wire::Alias;

/// Why none of a file's targets can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetFileError {
    /// The file could not be read, or is longer than any list of targets.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is empty: it may be about to be written. A list without targets is `target = []` or `[]`.
    #[error("{} is empty", path.display())]
    Empty { path: PathBuf },
    /// The content is malformed, or has an unknown key or an invalid value.
    #[error("{}, line {line}: {message}", path.display())]
    Content { path: PathBuf, line: usize, message: String },
    /// A well-formed target is refused.
    #[error("{}: target {target}", path.display())]
    Target { path: PathBuf, target: String, source: SpecError },
    /// Two targets have the same alias.
    #[error("{}: alias {alias} is given twice", path.display())]
    Duplicate { path: PathBuf, alias: Alias },
}

/// Parses the targets in a file's text. The extension of `path` gives the format; relative paths in the text start at
/// the file's directory.
///
/// # Errors
/// [`TargetFileError`] with file, line and key.
pub(crate) fn parse_targets(path: &Path, text: &str) -> Result<Vec<TargetSpec>, TargetFileError> {
    if text.trim().is_empty() {
        Err(TargetFileError::Empty { path: path.to_owned() })
    } else if path.extension().is_some_and(|end| end == "json") {
        parse_json(path, text)
    } else {
        specs(path, from_toml::<Targets>(path, text)?.target)
    }
}

/// Parses the `[[target]]` tables of a configuration file, which may have other keys. Targets written as texts
/// (`target = ["alias=url"]`) are ignored.
///
/// # Errors
/// As [`parse_targets`].
pub(crate) fn parse_config(path: &Path, text: &str) -> Result<Vec<TargetSpec>, TargetFileError> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        target: Vec<Table>,
    }
    if !has_tables(&from_toml::<toml::Table>(path, text)?) {
        return Ok(Vec::new());
    }
    specs(path, from_toml::<Config>(path, text)?.target)
}

/// True if the key `target` of a configuration holds tables.
pub(crate) fn has_tables(config: &toml::Table) -> bool {
    let targets = config.get("target").and_then(toml::Value::as_array);
    targets.is_some_and(|targets| targets.iter().any(toml::Value::is_table))
}

/// A file with nothing but targets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Targets {
    #[serde(default)]
    target: Vec<Table>,
}

fn parse_json(path: &Path, text: &str) -> Result<Vec<TargetSpec>, TargetFileError> {
    let has_groups = match from_json(path, text)? {
        serde_json::Value::Array(items) => items.iter().any(|item| item.get("targets").is_some()),
        _ => return specs(path, from_json::<Targets>(path, text)?.target),
    };
    if !has_groups {
        return specs(path, from_json(path, text)?);
    }
    let groups: Vec<Group> = from_json(path, text)?;
    let specs = groups.iter().flat_map(Group::specs).map(|spec| {
        spec.map_err(|(address, source)| TargetFileError::Target {
            path: path.to_owned(),
            target: format!("{address:?}"),
            source,
        })
    });
    unique(path, specs.collect::<Result<_, _>>()?)
}

fn specs(path: &Path, tables: Vec<Table>) -> Result<Vec<TargetSpec>, TargetFileError> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let specs = tables.into_iter().map(|table| {
        let target = table.alias().to_string();
        table.spec(directory).map_err(|source| TargetFileError::Target { path: path.to_owned(), target, source })
    });
    unique(path, specs.collect::<Result<_, _>>()?)
}

fn unique(path: &Path, specs: Vec<TargetSpec>) -> Result<Vec<TargetSpec>, TargetFileError> {
    let mut aliases: Vec<&Alias> = specs.iter().map(|spec| &spec.target.alias).collect();
    aliases.sort_unstable();
    match aliases.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(TargetFileError::Duplicate { path: path.to_owned(), alias: twice[0].clone() }),
        None => Ok(specs),
    }
}

fn from_toml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, TargetFileError> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        content(path, line, error.message())
    })
}

fn from_json<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, TargetFileError> {
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        // serde_json appends the position to its message; ours comes before.
        let position = format!(" at line {} column {}", error.line(), error.column());
        content(path, error.line(), message.strip_suffix(&position).unwrap_or(&message))
    })
}

fn content(path: &Path, line: usize, message: impl fmt::Display) -> TargetFileError {
    TargetFileError::Content { path: path.to_owned(), line, message: message.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Chain;

    const TOML: &str =
        "[[target]]\nalias = \"a\"\nurl = \"http://h:1\"\n\n[[target]]\nalias = \"b\"\nurl = \"http://h:2\"\n";

    fn aliases(name: &str, text: &str) -> Result<Vec<String>, String> {
        let specs = parse_targets(Path::new(name), text).map_err(|error| Chain(&error).to_string())?;
        Ok(specs.iter().map(|spec| spec.target.alias.to_string()).collect())
    }

    #[test]
    fn the_same_targets_are_read_from_every_format() {
        let tables = r#"[{"alias": "a", "url": "http://h:1"}, {"alias": "b", "url": "http://h:2", "timeout": "5s"}]"#;
        let file_sd = r#"[{"targets": ["h:1"], "labels": {"alias": "a"}}, {"targets": ["b"]}, {"targets": []}]"#;
        for (name, text) in [
            ("t.toml", TOML),
            ("t.json", tables),
            ("t.json", &format!("{{\"target\": {tables}}}")),
            ("t.json", file_sd),
        ] {
            assert_eq!(aliases(name, text), Ok(vec!["a".into(), "b".into()]), "{text}");
        }
        assert_eq!(aliases("t.toml", "target = []"), Ok(vec![]));
        assert_eq!(aliases("t.json", "[]"), Ok(vec![]));
    }

    #[test]
    fn an_error_names_the_file_the_line_and_the_key() {
        for (name, text, parts) in [
            ("d/t.toml", TOML.replace("url = \"http://h:2\"", "urll = \"x\""), &["d/t.toml, line 7", "`urll`"][..]),
            ("t.toml", "target = 1".into(), &["t.toml, line 1"]),
            ("t.toml", format!("{TOML}[other]\n"), &["line 8", "`other`"]),
            ("t.toml", "[[target]]\nalias = \"a b\"\nurl = \"http://h\"".into(), &["line 2", "\"a b\""]),
            ("t.toml", TOML.replace("\"b\"", "\"a\""), &["alias a is given twice"]),
            ("t.toml", TOML.replace("http://h:2", "http://h:2\"\nca_file = \"x"), &["target b: ca_file needs"]),
            ("t.toml", "\n".into(), &["t.toml is empty"]),
            ("t.json", "[{\"alias\": \"a\",\n\"url\": 1}]".into(), &["t.json, line 2", "expected a string"]),
            ("t.json", "{\"targets\": []}".into(), &["`targets`", "`target`"]),
            ("t.json", "[{\"targets\": [\"http://h\"]}]".into(), &["target \"http://h\"", "is host:port"]),
            ("t.json", "[{\"targets\": [], \"lables\": {}}]".into(), &["`lables`"]),
            ("t.json", "[{\"targets\": [\"h\", \"h\"]}]".into(), &["alias h is given twice"]),
        ] {
            let error = aliases(name, &text).expect_err(&text);
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }

    #[test]
    fn a_configuration_has_other_keys_and_may_write_targets_as_texts() {
        let path = Path::new("agent.toml");
        let config = |text: &str| parse_config(path, text).map(|specs| specs.len()).map_err(|error| error.to_string());
        assert_eq!(config(&format!("secret-file = \"s\"\n{TOML}")), Ok(2));
        assert_eq!(config("target = [\"a=http://h\"]"), Ok(0));
        assert_eq!(config("service = \"x\""), Ok(0));
        assert!(config("target = [\"a=http://h\", {alias = \"b\", url = \"http://h\"}]").is_err());
    }
}
