//! The targets that a beacon's data names, as groups of the http_sd list.
//!
//! Data is listed if it is JSON of one of these forms:
//!
//! ```json
//! {"targets": ["10.0.0.1:9100"], "labels": {"env": "prod"}}
//! [{"targets": ["10.0.0.1:9100"]}, {"targets": ["10.0.0.2:9100"]}]
//! {"token": "..."}
//! ```
//!
//! The last is that of the original's OpenShift beacons: the key is the target, and the token its parameter `token`. Prometheus refuses
//! a whole list for one bad label name, so what it would not take is not listed.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::wire::is_label_name;

/// Prefix of the labels that only relabelling sees, and that are ours.
const META: &str = "__meta_narthex_";
/// The other labels that begin with `__` and that a beacon may have: Prometheus acts on these, as for any target that it reaches
/// itself. It drops a target for an interval that it cannot read, so those are not among them.
const OF_SCRAPES: [&str; 2] = ["__metrics_path__", "__scheme__"];
/// What others begin with: parameters of the scrape, and what other service discoveries say.
const OF_SCRAPES_PREFIXES: [&str; 2] = ["__param_", "__meta_"];
/// The labels of every group: the beacon's kind, and its key.
pub(crate) const KIND_LABEL: &str = "__meta_narthex_kind";
pub(crate) const KEY_LABEL: &str = "__meta_narthex_key";
/// The parameter that is a token.
pub(crate) const TOKEN_LABEL: &str = "__param_token";
/// Longest target, in bytes.
const MAX_TARGET: usize = 1024;

/// A group of the http_sd list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedGroup {
    pub(crate) json: Arc<[u8]>,
    labels: BTreeMap<String, String>,
}

/// Why data is not listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotListed {
    /// The ordinary case: the data is the caller's alone.
    #[error("the data names no targets")]
    NoTargets,
    /// Not named: what is unfit may hold a password.
    #[error("one of the targets is no host and port that Prometheus could scrape")]
    Target,
    #[error("Prometheus takes no label {0:?} from a beacon")]
    Label(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Data {
    Group(Group),
    Groups(Vec<Group>),
    OpenShift { token: String },
}

#[derive(Deserialize, Serialize)]
struct Group {
    targets: Vec<String>,
    /// Go writes `null` for a map that is not there.
    labels: Option<BTreeMap<String, String>>,
}

impl ListedGroup {
    /// The groups of a beacon's data; at least one.
    pub(super) fn read(kind: &str, key: &str, data: &str) -> Result<Vec<Self>, NotListed> {
        let mut groups = match serde_json::from_str(data).map_err(|_| NotListed::NoTargets)? {
            Data::Group(group) => vec![group],
            Data::Groups(groups) => groups,
            Data::OpenShift { token } => {
                let labels = Some(BTreeMap::from([(TOKEN_LABEL.to_owned(), token)]));
                vec![Group { targets: vec![key.to_owned()], labels }]
            }
        };
        groups.retain(|group| !group.targets.is_empty());
        if groups.is_empty() {
            return Err(NotListed::NoTargets);
        }
        for Group { targets, labels } in &mut groups {
            let labels = labels.get_or_insert_default();
            if !targets.iter().all(|target| is_target(target)) {
                return Err(NotListed::Target);
            }
            if let Some(unfit) = labels.keys().find(|label| !is_label(label)) {
                return Err(NotListed::Label(unfit.clone()));
            }
            for (label, value) in [(KIND_LABEL, kind), (KEY_LABEL, key)] {
                labels.insert(label.to_owned(), value.to_owned());
            }
        }
        let listed = groups.into_iter().map(|group| Self {
            json: serde_json::to_vec(&group).expect("text is JSON").into(),
            labels: group.labels.unwrap_or_default(),
        });
        Ok(listed.collect())
    }

    /// The label's value; as in Prometheus, a label that is not there has an empty one.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// True if it holds a token.
    pub(crate) fn is_secret(&self) -> bool {
        self.labels.contains_key(TOKEN_LABEL)
    }
}

/// True for what Prometheus takes for `__address__`: no path, nothing that could be read as something else.
fn is_target(target: &str) -> bool {
    let is_fit = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | '?' | '#' | '@' | '\\');
    !target.is_empty() && target.len() <= MAX_TARGET && target.chars().all(is_fit)
}

fn is_label(name: &str) -> bool {
    let is_ours = name.starts_with(META);
    let is_meant = OF_SCRAPES.contains(&name) || OF_SCRAPES_PREFIXES.into_iter().any(|prefix| name.starts_with(prefix));
    is_label_name(name) && !is_ours && (!name.starts_with("__") || is_meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &str) -> Result<String, NotListed> {
        let groups = ListedGroup::read("k", "host:1", data)?;
        let each = groups.iter().map(|group| std::str::from_utf8(&group.json).expect("text"));
        Ok(each.collect::<Vec<_>>().join(","))
    }

    #[test]
    fn what_names_targets_is_listed_with_its_kind_and_key() {
        let meta = r#""__meta_narthex_key":"host:1","__meta_narthex_kind":"k""#;
        assert_eq!(read(r#"{"targets":["a:1","b"]}"#), Ok(format!(r#"{{"targets":["a:1","b"],"labels":{{{meta}}}}}"#)));
        let listed = read(r#"[{"targets":["[::1]:9"],"labels":{"env":"é\""},"other":1},{"targets":["b:2"]}]"#);
        let first = format!(r#"{{"targets":["[::1]:9"],"labels":{{{meta},"env":"é\""}}}}"#);
        assert_eq!(listed, Ok(format!(r#"{first},{{"targets":["b:2"],"labels":{{{meta}}}}}"#)));
        let listed = read(r#"{"token":"t"}"#);
        assert_eq!(listed, Ok(format!(r#"{{"targets":["host:1"],"labels":{{{meta},"__param_token":"t"}}}}"#)));
        assert!(read(r#"{"targets":["a:1"],"labels":{"__metrics_path__":"/m","__meta_other":"x"}}"#).is_ok());
        assert_eq!(read(r#"{"targets":["a:1"],"labels":null}"#), read(r#"{"targets":["a:1"]}"#));
    }

    #[test]
    fn what_prometheus_would_refuse_is_not_listed() {
        for data in ["", "x", "1", "{}", "[]", r#"{"targets":[]}"#, r#"{"targets":"a:1"}"#, r#"{"targets":[1]}"#] {
            assert_eq!(read(data), Err(NotListed::NoTargets), "{data}");
        }
        for target in ["", "http://a:1", "a b", "a\\n", "a:1/metrics", "user@a:1"] {
            let refused = read(&format!(r#"{{"targets":["a:1","{target}"]}}"#));
            assert_eq!(refused, Err(NotListed::Target), "{target}");
        }
        for label in [
            "",
            "1a",
            "a-b",
            "é",
            "__address__",
            "__name__",
            "__meta_narthex_alias",
            "__metrics_path__x",
            "__scrape_interval__",
            "__x",
        ] {
            let refused = read(&format!(r#"{{"targets":["a:1"],"labels":{{"{label}":"v"}}}}"#));
            assert_eq!(refused, Err(NotListed::Label(label.to_owned())));
        }
        assert_eq!(read(r#"{"targets":["a:1"],"labels":{"a":1}}"#), Err(NotListed::NoTargets));
    }
}
