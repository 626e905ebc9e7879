//! What travels between the processes: the kernel's counters of their TCP sockets, as `ss` shows them.
//!
//! Each socket counts what it has received; who sent it is the process at the other end. Bytes are those in TCP, without
//! headers; messages are segments with data.

use std::{
    collections::HashMap,
    ops::{AddAssign, Sub},
    process::Command,
};

use crate::BoxError;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Nats,
    Scraper,
    Clients,
}

/// What has travelled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Volume {
    pub(crate) bytes: f64,
    pub(crate) messages: f64,
    pub(crate) sockets: f64,
}

/// What has travelled so far, from one role to another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic(HashMap<(Role, Role), Volume>);

/// The sockets at some listening ports, and at the other ends of their connections.
pub(crate) struct Sockets {
    filter: String,
    roles: HashMap<u32, Role>,
    /// By both addresses: also of those that are closed by now.
    seen: HashMap<[String; 2], (Role, Role, Volume)>,
}

impl AddAssign for Volume {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.messages += other.messages;
        self.sockets += other.sockets;
    }
}

impl Sub for Volume {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            bytes: self.bytes - other.bytes,
            messages: self.messages - other.messages,
            sockets: self.sockets - other.sockets,
        }
    }
}

impl Traffic {
    pub(crate) fn sent(&self, from: Role, to: Role) -> Volume {
        self.0.get(&(from, to)).copied().unwrap_or_default()
    }

    /// In both directions.
    pub(crate) fn between(&self, one: Role, other: Role) -> Volume {
        let mut both = self.sent(one, other);
        if one != other {
            both += self.sent(other, one);
        }
        both
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        let volumes = self.0.iter().map(|(&(from, to), &volume)| ((from, to), volume - before.sent(from, to)));
        Self(volumes.collect())
    }
}

impl Sockets {
    /// The listeners' ports, and which process is what.
    pub(crate) fn new(ports: &[u16], roles: HashMap<u32, Role>) -> Self {
        let ports: Vec<String> = ports.iter().map(|port| format!("sport = :{port} or dport = :{port}")).collect();
        Self { filter: format!("( {} )", ports.join(" or ")), roles, seen: HashMap::new() }
    }

    /// This process, too, is of a role.
    pub(crate) fn assign(&mut self, pid: u32, role: Role) {
        self.roles.insert(pid, role);
    }

    /// All that has travelled, except for the last moments of connections that are closed.
    pub(crate) fn traffic(&mut self) -> Result<Traffic, BoxError> {
        let ss = Command::new("ss").args(["-tinpHO", "state", "established", &self.filter]).output()?;
        if !ss.status.success() {
            return Err(format!("ss: {}", String::from_utf8_lossy(&ss.stderr)).into());
        }
        let text = String::from_utf8(ss.stdout)?;
        let sockets: Vec<Socket<'_>> = text.lines().filter_map(Socket::parse).collect();
        // Two connections to different peers may have the same local address.
        let owners: HashMap<_, u32> = sockets.iter().map(|socket| ((socket.local, socket.peer), socket.pid)).collect();
        for Socket { local, peer, pid, received } in &sockets {
            let from = owners.get(&(*peer, *local)).and_then(|pid| self.roles.get(pid));
            if let (Some(from), Some(to)) = (from, self.roles.get(pid)) {
                self.seen.insert([(*local).to_owned(), (*peer).to_owned()], (*from, *to, *received));
            }
        }
        let mut traffic = Traffic::default();
        for (from, to, volume) in self.seen.values() {
            *traffic.0.entry((*from, *to)).or_default() += *volume;
        }
        Ok(traffic)
    }
}

/// One line of `ss`.
struct Socket<'a> {
    local: &'a str,
    peer: &'a str,
    pid: u32,
    received: Volume,
}

impl<'a> Socket<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_whitespace().skip(2); // the queues
        let (local, peer) = (words.next()?, words.next()?);
        let pid = line.split_once("pid=")?.1.split_once(',')?.0.parse().ok()?;
        let count = |name: &str| {
            let value = line.split_once(name).and_then(|(_, rest)| rest.split_whitespace().next());
            value.and_then(|value| value.parse().ok()).unwrap_or(0.0)
        };
        let (bytes, messages) = (count(" bytes_received:"), count(" data_segs_in:"));
        Some(Self { local, peer, pid, received: Volume { bytes, messages, sockets: 1.0 } })
    }
}
