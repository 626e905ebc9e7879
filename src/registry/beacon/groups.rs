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

/// Prefix of the labels that only relabelling sees, and that are ours.
const META: &str = "__meta_narthex_";
/// The other labels that begin with `__` and that a beacon may have, or what they begin with: Prometheus acts on these, as for any
/// target that it reaches itself.
const OF_SCRAPES: [&str; 5] =
    ["__metrics_path__", "__scheme__", "__scrape_interval__", "__scrape_timeout__", "__param_"];
/// Prefix of what other service discoveries say.
const OTHER_META: &str = "__meta_";
/// Longest target, in bytes.
const MAX_TARGET: usize = 1024;

/// One or more groups of the http_sd list, as JSON that belongs between its brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Groups {
    json: Arc<[u8]>,
    labels: Vec<BTreeMap<String, String>>,
    /// True if they hold a token.
    pub(crate) is_secret: bool,
}

/// Why data is not listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotListed {
    /// The ordinary case: the data is the caller's alone.
    #[error("the data names no targets")]
    NoTargets,
    #[error("{0:?} is no host and port that Prometheus could scrape")]
    Target(String),
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
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Groups {
    pub(super) fn read(kind: &str, key: &str, data: &str) -> Result<Self, NotListed> {
        let (mut groups, is_secret) = match serde_json::from_str(data).map_err(|_| NotListed::NoTargets)? {
            Data::Group(group) => (vec![group], false),
            Data::Groups(groups) => (groups, false),
            Data::OpenShift { token } => {
                let labels = BTreeMap::from([("__param_token".to_owned(), token)]);
                (vec![Group { targets: vec![key.to_owned()], labels }], true)
            }
        };
        groups.retain(|group| !group.targets.is_empty());
        if groups.is_empty() {
            return Err(NotListed::NoTargets);
        }
        for Group { targets, labels } in &mut groups {
            if let Some(unfit) = targets.iter().find(|target| !is_target(target)) {
                return Err(NotListed::Target(unfit.clone()));
            }
            if let Some(unfit) = labels.keys().find(|label| !is_label(label)) {
                return Err(NotListed::Label(unfit.clone()));
            }
            for (label, value) in [("kind", kind), ("key", key)] {
                labels.insert(format!("{META}{label}"), value.to_owned());
            }
        }
        let each: Vec<_> = groups.iter().map(|group| serde_json::to_vec(group).expect("text is JSON")).collect();
        let labels = groups.into_iter().map(|group| group.labels).collect();
        Ok(Self { json: each.join(&b',').into(), labels, is_secret })
    }

    pub(crate) fn json(&self) -> &Arc<[u8]> {
        &self.json
    }

    /// True if a group has the label; as in Prometheus, one with an empty value is one that is not there.
    pub(crate) fn has(&self, name: &str, value: &str) -> bool {
        self.labels.iter().any(|labels| labels.get(name).map_or("", String::as_str) == value)
    }
}

/// True for what Prometheus takes for `__address__`: no path, nothing that could be read as something else.
fn is_target(target: &str) -> bool {
    let is_fit = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | '?' | '#' | '@' | '\\');
    !target.is_empty() && target.len() <= MAX_TARGET && target.chars().all(is_fit)
}

fn is_label(name: &str) -> bool {
    let mut chars = name.chars();
    let is_name = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_ours = name.starts_with(META);
    let is_meant = OF_SCRAPES.into_iter().chain([OTHER_META]).any(|prefix| name.starts_with(prefix));
    is_name && !is_ours && (!name.starts_with("__") || is_meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &str) -> Result<String, NotListed> {
        let groups = Groups::read("k", "host:1", data)?;
        Ok(String::from_utf8(groups.json().to_vec()).expect("text"))
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
    }

    #[test]
    fn what_prometheus_would_refuse_is_not_listed() {
        for data in ["", "x", "1", "{}", "[]", r#"{"targets":[]}"#, r#"{"targets":"a:1"}"#, r#"{"targets":[1]}"#] {
            assert_eq!(read(data), Err(NotListed::NoTargets), "{data}");
        }
        for target in ["", "http://a:1", "a b", "a\\n", "a:1/metrics", "user@a:1"] {
            let refused = read(&format!(r#"{{"targets":["a:1","{target}"]}}"#));
            assert!(matches!(refused, Err(NotListed::Target(_))), "{target}: {refused:?}");
        }
        for label in ["", "1a", "a-b", "é", "__address__", "__name__", "__meta_narthex_alias", "__x"] {
            let refused = read(&format!(r#"{{"targets":["a:1"],"labels":{{"{label}":"v"}}}}"#));
            assert_eq!(refused, Err(NotListed::Label(label.to_owned())));
        }
        assert_eq!(read(r#"{"targets":["a:1"],"labels":{"a":1}}"#), Err(NotListed::NoTargets));
    }
}
