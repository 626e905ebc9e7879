//! Prometheus's targets, as hosts name them in labels.
//!
//! | label | what it says |
//! |---|---|
//! | `prometheus:NAME` | the host is a target of the job |
//! | `prometheus:NAME:host:H` | at this host, or address; repeatable. Else at the host's own name |
//! | `prometheus:NAME:port:P` | at this port, `-` for none; the last one counts. An IPv6 address is put in brackets |
//! | `prometheus:NAME:K:V` | with this label |

use std::{collections::BTreeMap, net::Ipv6Addr};

use serde::Serialize;

use super::Host;
use crate::wire::is_label_name;

/// A host's group of the http_sd list. The keys begin as Lobby writes them; Prometheus takes both forms.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TargetGroup {
    targets: Vec<String>,
    labels: BTreeMap<String, String>,
}

impl TargetGroup {
    /// The host's group for this job; none if no label names the job.
    pub(super) fn of(host: &Host, job: &str, default_port: u16) -> Option<Self> {
        let (mut hosts, mut port, mut labels, mut is_named) = (Vec::new(), None, BTreeMap::new(), false);
        for label in &host.labels {
            let Some(rest) = label.strip_prefix("prometheus:").and_then(|label| label.strip_prefix(job)) else {
                continue;
            };
            match rest.strip_prefix(':').map(|rest| rest.split_once(':')) {
                None if rest.is_empty() => is_named = true,
                None => {}
                Some(None) => {}
                Some(Some((name, value))) => {
                    is_named = true;
                    match name {
                        "host" if !value.is_empty() => hosts.push(value),
                        "port" if value == "-" || value.parse::<u16>().is_ok() => port = Some(value),
                        "host" | "port" => {}
                        // Prometheus drops a target for one bad label name.
                        name if is_label_name(name) => {
                            labels.insert(name.to_owned(), value.to_owned());
                        }
                        _ => {}
                    }
                }
            }
        }
        if !is_named {
            return None;
        }
        if hosts.is_empty() {
            hosts.push(&host.hostname);
        }
        let default_port = default_port.to_string();
        let port = port.unwrap_or(&default_port);
        let with_port = |host: &str| match port {
            "-" => host.to_owned(),
            port if host.parse::<Ipv6Addr>().is_ok() => format!("[{host}]:{port}"),
            _ if host.contains(':') => host.to_owned(),
            port => format!("{host}:{port}"),
        };
        Some(Self { targets: hosts.into_iter().map(with_port).collect(), labels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(labels: &[&str]) -> Option<String> {
        let host = Host::new("h".into(), labels.iter().map(ToString::to_string).collect(), 0).expect("fit");
        TargetGroup::of(&host, "node", 9100).map(|group| serde_json::to_string(&group).expect("text"))
    }

    #[test]
    fn labels_name_the_targets_of_a_job() {
        let line = |targets: &str, labels: &str| Some(format!("{{\"Targets\":[{targets}],\"Labels\":{{{labels}}}}}"));
        assert_eq!(group(&["prometheus:node:host:a", "prometheus:node:host:b"]), line(r#""a:9100","b:9100""#, ""));
        assert_eq!(
            group(&["prometheus:node:host:a", "prometheus:node:port:1", "prometheus:node:port:2"]),
            line(r#""a:2""#, "")
        );
        assert_eq!(group(&["prometheus:node:host:a", "prometheus:node:port:-"]), line(r#""a""#, ""));
        assert_eq!(group(&["prometheus:node:host:::1"]), line(r#""[::1]:9100""#, ""), "the original's has no port");
        assert_eq!(group(&["prometheus:node:host:a:1"]), line(r#""a:1""#, ""));
        assert_eq!(
            group(&["prometheus:node:host:", "prometheus:node:port:", "prometheus:node:port:x"]),
            line(r#""h:9100""#, "")
        );
        let labelled = ["prometheus:node:host:a", "prometheus:node:env:x:y", "prometheus:node:a-b:z"];
        assert_eq!(group(&labelled), line(r#""a:9100""#, r#""env":"x:y""#));
        assert_eq!(group(&["prometheus:node"]), line(r#""h:9100""#, ""), "the original has no target here");
        assert_eq!(group(&["prometheus:node:env:x"]), line(r#""h:9100""#, r#""env":"x""#));
        for other in [&[][..], &["prometheus:nodes:host:a"], &["node"], &["prometheus:other"], &["prometheus:node:x"]] {
            assert_eq!(group(other), None, "{other:?}");
        }
    }
}
