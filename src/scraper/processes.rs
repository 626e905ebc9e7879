//! Which process holds each key: two machines with copies of one key must not take turns at its aliases.
//!
//! A client names its process by an instance id, and registers again over each connection that becomes its best. So the
//! connections of the process that holds a key are known. While one of them answers, any other process with the same key is
//! refused, and its connection is closed: the scraper pulls over the newest one. A process that was restarted has
//! left connections that are closed or answer nothing, and takes its key over at once, or after the probe.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{self, Instant},
};

use crate::{
    identity::PublicKey,
    network::{LinkId, Network, PULL_PROTOCOL},
    wire::InstanceId,
};

/// A pull that every client answers, with a 404.
const NO_ALIAS: &[u8] = b"GET / HTTP/1.1\r\nhost: narthex\r\n\r\n";
/// Longest wait for an answer from the process that holds the key: a client waits 10 s for its own.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a refused process is counted: it tries again within half a minute.
const CONTESTED_FOR: Duration = Duration::from_secs(300);

/// The processes that have registered, by their keys. Each has a connection, or had one a minute ago.
pub(super) struct Processes {
    network: Network,
    known: Mutex<HashMap<PublicKey, Process>>,
}

struct Process {
    /// None if the process does not name itself: clients of earlier versions are not told apart.
    instance: Option<InstanceId>,
    /// The connections over which the process has registered, some of them closed.
    links: Vec<LinkId>,
    /// When another process was refused last.
    contested_at: Option<Instant>,
    /// True until the process was told of that.
    untold: bool,
}

/// What becomes of a process that registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The process holds the key.
    Holds,
    /// The process holds the key, and hears for the first time that another one wants it.
    Contested,
    /// Another process holds the key.
    InUse,
}

impl Processes {
    pub(super) fn new(network: Network) -> Self {
        Self { network, known: Mutex::default() }
    }

    /// Decides whether the process at the other end of `link` holds the key `peer`. May take as long as a probe.
    pub(super) async fn admit(&self, peer: PublicKey, instance: Option<InstanceId>, link: LinkId) -> Admission {
        loop {
            let rivals = match self.claim(peer, instance, link) {
                Ok(admission) => return admission,
                Err(rivals) => rivals,
            };
            self.network.links().demote(&peer, link);
            let probes = rivals.iter().map(|rival| time::timeout(PROBE_TIMEOUT, self.answers(*rival)));
            let answered = join_all(probes).await;
            if answered.into_iter().any(|answered| answered.unwrap_or(false)) {
                // Without a name it may be the holder itself, whose exchange broke off.
                if instance.is_some()
                    && let Some(process) = self.known().get_mut(&peer)
                {
                    (process.contested_at, process.untold) = (Some(Instant::now()), true);
                }
                return Admission::InUse;
            }
            for rival in rivals {
                self.network.close(rival, "its process answers no more, and another one has the key").await;
            }
        }
    }

    /// True if the process at the other end of `link` answers a pull of no alias. A stream alone shows nothing: it counts as
    /// open before the other end has heard of it.
    async fn answers(&self, link: LinkId) -> bool {
        let Ok(mut stream) = self.network.open_over(link, PULL_PROTOCOL).await else { return false };
        let sent = async {
            stream.write_all(NO_ALIAS).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        sent.await.is_ok()
    }

    /// True if the process at the other end of `link` may release what the key holds.
    pub(super) fn holds(&self, peer: &PublicKey, instance: Option<InstanceId>, link: LinkId) -> bool {
        let known = self.known();
        let holder = known.get(peer);
        holder.is_none_or(|holder| holder.is(instance, link) || self.listed(peer, holder).is_empty())
    }

    /// Forgets processes without a connection.
    pub(super) fn forget_gone(&self) {
        self.known().retain(|peer, process| !self.listed(peer, process).is_empty());
    }

    /// The keys that a second process wants.
    pub(super) fn contested(&self) -> usize {
        let lately = |process: &&Process| process.contested_at.is_some_and(|at| at.elapsed() < CONTESTED_FOR);
        self.known().values().filter(lately).count()
    }

    /// Notes the process as the holder, or returns the connections of another holder.
    fn claim(&self, peer: PublicKey, instance: Option<InstanceId>, link: LinkId) -> Result<Admission, Vec<LinkId>> {
        let mut known = self.known();
        if let Some(holder) = known.get_mut(&peer) {
            let mut listed = self.listed(&peer, holder);
            if holder.instance == instance || (holder.is(instance, link) && !listed.is_empty()) {
                if !listed.contains(&link) {
                    listed.push(link);
                }
                holder.links = listed;
                holder.instance = holder.instance.or(instance);
                // Who does not name itself cannot be told.
                let untold = instance.is_some() && std::mem::take(&mut holder.untold);
                return Ok(if untold { Admission::Contested } else { Admission::Holds });
            }
            if !listed.is_empty() {
                return Err(listed);
            }
        }
        known.insert(peer, Process { instance, links: vec![link], contested_at: None, untold: false });
        Ok(Admission::Holds)
    }

    fn listed(&self, peer: &PublicKey, process: &Process) -> Vec<LinkId> {
        process.links.iter().copied().filter(|link| self.network.links().is_listed(peer, *link)).collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PublicKey, Process>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// True if this may be the process itself. A client whose exchange broke off asks again without its name, as if the scraper
    /// were of an earlier version: it is then known by its connection, or is named the next time.
    fn is(&self, instance: Option<InstanceId>, link: LinkId) -> bool {
        self.instance == instance || self.instance.is_none() || (instance.is_none() && self.links.contains(&link))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::KeyPair,
        network::{LinkPath, NetworkConfig, NetworkRole},
    };

    const OWN: Option<InstanceId> = Some(InstanceId([1; 16]));
    const OTHER: Option<InstanceId> = Some(InstanceId([2; 16]));

    /// Links that only the table has: the network's task does not run.
    async fn linked() -> (Processes, PublicKey, [LinkId; 2]) {
        let config = NetworkConfig::new(NetworkRole::Client);
        let (network, _) = Network::start(&KeyPair::generate(), config, Vec::new()).await.expect("starts");
        let peer = KeyPair::generate().public();
        let links = [(); 2].map(|()| {
            network.links().add_test_link(peer, LinkPath::Direct);
            let link = network.links().best(&peer).expect("linked");
            network.links().demote(&peer, link);
            link
        });
        assert_ne!(links[0], links[1]);
        (Processes::new(network), peer, links)
    }

    #[tokio::test]
    async fn a_process_that_first_comes_nameless_and_then_names_itself_holds_its_key() {
        let (processes, peer, [first, second]) = linked().await;
        assert_eq!(processes.claim(peer, None, first), Ok(Admission::Holds));
        assert_eq!(processes.claim(peer, OWN, first), Ok(Admission::Holds), "it may have been the same");
        assert_eq!(processes.claim(peer, OTHER, second), Err(vec![first]), "from now on it has a name");
        assert_eq!(processes.claim(peer, None, second), Err(vec![first]));
        assert!(!processes.holds(&peer, OTHER, second) && !processes.holds(&peer, None, second));
        assert_eq!(processes.claim(peer, None, first), Ok(Admission::Holds), "it is known by its connection");
        assert_eq!(processes.claim(peer, OTHER, second), Err(vec![first]), "and keeps its name");
        assert_eq!(processes.claim(peer, OWN, second), Ok(Admission::Holds), "over its other connection, too");
        assert_eq!(processes.claim(peer, OTHER, second), Err(vec![first, second]));
    }

    #[tokio::test]
    async fn a_nameless_process_that_names_itself_over_another_connection_holds_its_key() {
        let (processes, peer, [first, second]) = linked().await;
        assert_eq!(processes.claim(peer, None, first), Ok(Admission::Holds));
        assert_eq!(processes.claim(peer, OWN, second), Ok(Admission::Holds));
        assert_eq!(processes.claim(peer, OTHER, second), Err(vec![first, second]));
        assert_eq!(processes.claim(peer, None, first), Ok(Admission::Holds), "the first connection is its own");
    }
}
