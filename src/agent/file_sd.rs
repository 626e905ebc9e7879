//! Prometheus's own file_sd lists, as targets of an agent.
//!
//! Labels have Prometheus's meaning: `__scheme__`, `__metrics_path__` and `__param_<name>` make the URL, and other names
//! that begin with `__` are for relabelling and dropped. The alias is the label `__alias__` or `alias`, else `instance`,
//! else the target itself; in the last two cases `-` replaces characters that an alias cannot have (`127.0.0.1:9100`
//! becomes `127.0.0.1-9100`). The service is the label `service`, else `job`.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{
    ExporterUrl,
    spec::{SpecError, TargetSpec},
};
use crate::wire::{Alias, Target, TargetError};

/// Labels with a meaning of their own here, or that narthex sets.
const OWN_LABELS: [&str; 4] = ["alias", "instance", "job", "service"];

/// A target group, by Prometheus's documentation of `<file_sd_config>`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Group {
    /// The group's targets. An error names the faulty one.
    pub(super) fn specs(&self) -> impl Iterator<Item = Result<TargetSpec, (String, SpecError)>> {
        self.targets.iter().map(|address| self.spec(address).map_err(|error| (address.clone(), error)))
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn spec(&self, address: &str) -> Result<TargetSpec, SpecError> {
        if address.contains('/') {
            return Err(SpecError::NotHostPort);
        }
        let url: ExporterUrl = format!("{}://{address}", self.label("__scheme__").unwrap_or("http")).parse()?;
        let mut path = self.label("__metrics_path__").unwrap_or("/metrics").to_owned();
        for (name, value) in &self.labels {
            if let Some(param) = name.strip_prefix("__param_") {
                let mark = if path.contains('?') { '&' } else { '?' };
                path.push_str(&format!("{mark}{}={}", encoded(param), encoded(value)));
            }
        }
        let mut spec = TargetSpec::new(self.alias(address)?, url.with_path(&path)?);
        spec.target.service = self.label("service").or(self.label("job")).unwrap_or_default().to_owned();
        Target::check_name("service", &spec.target.service)?;
        for (name, value) in &self.labels {
            if !name.starts_with("__") && !OWN_LABELS.contains(&name.as_str()) && !value.is_empty() {
                spec.target.labels.insert(name, value)?;
            }
        }
        Ok(spec)
    }

    fn alias(&self, address: &str) -> Result<Alias, TargetError> {
        match self.label("__alias__").or(self.label("alias")) {
            Some(alias) => alias.parse(),
            None => to_alias(self.label("instance").unwrap_or(address)).parse(),
        }
    }
}

/// The text with `-` for each character that an alias cannot have.
fn to_alias(text: &str) -> String {
    let replaced = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    text.chars().map(replaced).collect::<String>().trim_matches('-').to_owned()
}

/// A parameter's name or value, percent-encoded for a query.
fn encoded(text: &str) -> String {
    const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, &RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(group: &str) -> Vec<Result<TargetSpec, (String, SpecError)>> {
        serde_json::from_str::<Group>(group).expect("a group").specs().collect()
    }

    #[test]
    fn a_group_becomes_targets_with_prometheus_s_meaning() {
        let group = r#"{"targets": ["10.0.0.1:9100", "[::1]:9100", "db"], "labels": {
            "__scheme__": "https", "__metrics_path__": "/probe", "__param_collect[]": "a b", "__meta_x": "y",
            "job": "node", "region": "eu", "empty": ""}}"#;
        let specs: Vec<_> = specs(group).into_iter().map(|spec| spec.expect("fit")).collect();
        let aliases: Vec<_> = specs.iter().map(|spec| spec.target.alias.as_str()).collect();
        assert_eq!(aliases, ["10.0.0.1-9100", "1--9100", "db"]);
        let spec = &specs[0];
        assert_eq!(spec.exporter.url.path().as_str(), "/probe?collect%5B%5D=a%20b");
        assert_eq!(spec.exporter.url.to_string(), "https://10.0.0.1:9100/probe?..");
        assert_eq!(spec.target.service, "node");
        assert_eq!(spec.target.labels.iter().collect::<Vec<_>>(), [("region", "eu")]);
    }

    #[test]
    fn an_alias_is_a_label_or_made_of_the_instance() {
        let alias = |labels: &str| {
            let group = format!(r#"{{"targets": ["h:1"], "labels": {{{labels}}}}}"#);
            specs(&group).remove(0).map(|spec| spec.target.alias.to_string()).map_err(|(address, _)| address)
        };
        assert_eq!(alias(r#""__alias__": "web-1", "alias": "x", "instance": "y""#), Ok("web-1".into()));
        assert_eq!(alias(r#""alias": "web-1", "instance": "y""#), Ok("web-1".into()));
        assert_eq!(alias(r#""instance": "web 1/eu""#), Ok("web-1-eu".into()));
        assert_eq!(alias(r#""alias": "web 1""#), Err("h:1".into()), "a written alias is not changed");
        assert_eq!(alias(r#""bad-name": "x""#), Err("h:1".into()));
    }
}
