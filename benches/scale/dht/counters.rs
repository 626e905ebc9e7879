//! Counters of nftables at some ports.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::BoxError;

/// Counts what goes to some ports, and what comes from them.
pub(crate) struct Counters(());

/// Bytes and packets, to and from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Volume([f64; 4]);

impl Counters {
    pub(crate) fn new(ports: &[u16]) -> Result<Self, BoxError> {
        let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let chain = "type filter hook output priority 0;";
        let count = |side, name| format!("meta l4proto {{ tcp, udp }} th {side} {{ {ports} }} counter name {name};");
        let rules = [count("dport", "to"), count("sport", "from")].concat();
        let rules =
            format!("table inet bench {{ counter to {{}}; counter from {{}}; chain out {{ {chain} {rules} }}\n}}\n");
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
        nft.stdin.take().ok_or("no standard input")?.write_all(rules.as_bytes())?;
        if nft.wait()?.success() { Ok(Self(())) } else { Err("nft takes no counters".into()) }
    }

    pub(crate) fn read(&self) -> Result<Volume, BoxError> {
        let nft = Command::new("nft").args(["-j", "list", "counters", "table", "inet", "bench"]).output()?;
        let listed: Value = serde_json::from_slice(&nft.stdout)?;
        let of = |name: &str, what: &str| {
            let counters = listed["nftables"].as_array()?.iter().map(|one| &one["counter"]);
            counters.filter(|counter| counter["name"] == name).find_map(|counter| counter[what].as_f64())
        };
        let all = [of("to", "bytes"), of("to", "packets"), of("from", "bytes"), of("from", "packets")];
        let all: Option<Vec<f64>> = all.into_iter().collect();
        Ok(Volume(all.and_then(|all| all.try_into().ok()).ok_or("nft has no counters")?))
    }
}

impl Volume {
    pub(crate) fn with(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] + other.0[at]))
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] - before.0[at]))
    }

    /// Without what is carried each second anyway.
    pub(crate) fn less(self, each_second: Self, length: Duration) -> Self {
        Self(std::array::from_fn(|at| self.0[at] - each_second.0[at] * length.as_secs_f64()))
    }

    pub(crate) fn each_of(self, count: f64) -> Self {
        Self(self.0.map(|value| value / count))
    }

    pub(crate) fn each(self, count: f64) -> String {
        let [bytes_to, to, bytes_from, from] = self.each_of(count).0;
        format!("{bytes_to:.0} bytes in {to:.1} packets to nodes, {bytes_from:.0} in {from:.1} from them")
    }
}
