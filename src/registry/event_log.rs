//! The log of events: one line for all that a registration did in one way, and not many lines of any peer.

use std::{collections::HashMap, fmt, mem, num::NonZeroU32, sync::OnceLock};

use super::{EventKind, RegistryEvent};
use crate::{
    access::SecretName,
    identity::PublicKey,
    telemetry::{Few, LogRate},
    wire::Alias,
};

/// First lines of peers, and further lines of all.
const LINES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(300).expect("three hundred is not zero");

/// Where a peer is, if that is known.
pub(crate) type AddressOf = dyn Fn(&PublicKey) -> Option<String> + Send + Sync;

pub(super) struct EventLog {
    rate: LogRate,
    address_of: OnceLock<Box<AddressOf>>,
}

impl EventLog {
    pub(super) fn new() -> Self {
        Self { rate: LogRate::new(LINES_PER_MINUTE), address_of: OnceLock::new() }
    }

    /// From now on the lines have the peers' addresses. A second call changes nothing.
    pub(super) fn locate_by(&self, address_of: Box<AddressOf>) {
        let _ = self.address_of.set(address_of);
    }

    /// Writes a line for each kind of event of each peer, within the rate. Never called under a lock, as a log may block.
    pub(super) fn write(&self, events: &[RegistryEvent], secret_of: impl Fn(&Alias) -> Option<SecretName>) {
        for alike in group(events) {
            let peer = &alike[0].peer;
            if let Some(left_out) = self.rate.line(peer) {
                let address = self.address_of.get().and_then(|address_of| address_of(peer));
                write(&alike, address, secret_of(&alike[0].alias), left_out);
            }
        }
    }

    /// Drops the rates of peers that have been silent for a while.
    pub(super) fn forget_old(&self) {
        self.rate.forget_old();
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventLog").field(&self.rate).finish()
    }
}

/// The events of each kind and peer, in the order of their first ones. No group is empty.
fn group(events: &[RegistryEvent]) -> Vec<Vec<&RegistryEvent>> {
    let mut groups: Vec<Vec<&RegistryEvent>> = Vec::new();
    let mut places = HashMap::new();
    for event in events {
        let place = *places.entry((mem::discriminant(&event.kind), event.peer)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(alike) => alike.push(event),
            None => groups.push(vec![event]),
        }
    }
    groups
}

fn write(alike: &[&RegistryEvent], address: Option<String>, secret: Option<SecretName>, left_out: Option<u64>) {
    let (first, alias) = (alike[0], Few(alike.iter().map(|event| &event.alias).collect()));
    let (peer, secret) = (first.peer, secret.map(tracing::field::display));
    match first.kind {
        EventKind::Registered => tracing::info!(%alias, %peer, address, secret, left_out, "alias registered"),
        EventKind::Updated => tracing::info!(%alias, %peer, address, secret, left_out, "alias updated"),
        EventKind::SecretChanged => {
            tracing::info!(%alias, %peer, address, secret, left_out, "alias renewed with another secret")
        }
        EventKind::Returned => {
            tracing::info!(%alias, %peer, address, secret, left_out, "alias renewed after it had lapsed")
        }
        EventKind::Released => tracing::info!(%alias, %peer, left_out, "alias released"),
        EventKind::Lapsed => tracing::info!(%alias, %peer, left_out, "alias lapsed: it was not renewed in time"),
        EventKind::Gone => tracing::info!(%alias, %peer, left_out, "alias gone: it was lapsed for the whole retention"),
        EventKind::TakenOver { .. } => {
            let holder = holders(alike);
            tracing::info!(%alias, %peer, address, secret, %holder, left_out, "alias taken over");
        }
        EventKind::TakeoverRefused { .. } => {
            let holder = holders(alike);
            tracing::warn!(%alias, %peer, address, %holder, left_out, "alias refused: another peer holds it");
        }
    }
}

/// The peers that held the aliases, each once.
fn holders(alike: &[&RegistryEvent]) -> Few<PublicKey> {
    let mut holders = Vec::new();
    for event in alike {
        if let EventKind::TakenOver { from: holder } | EventKind::TakeoverRefused { holder } = event.kind
            && !holders.contains(&holder)
        {
            holders.push(holder);
        }
    }
    Few(holders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    fn event(number: usize, peer: PublicKey, kind: EventKind) -> RegistryEvent {
        RegistryEvent { alias: format!("web-{number}").parse().expect("an alias"), peer, kind }
    }

    /// Before: ten peers that had written thirty lines each silenced all others.
    #[test]
    fn noisy_peers_do_not_silence_the_first_line_of_another() {
        let log = EventLog::new();
        for _ in 0..20 {
            let noisy = KeyPair::generate().public();
            while log.rate.line(&noisy).is_some() {}
        }
        assert!(log.rate.line(&KeyPair::generate().public()).is_some());
    }

    #[test]
    fn what_a_registration_did_in_one_way_is_one_line() {
        let [peer, holder] = [(); 2].map(|()| KeyPair::generate().public());
        let refused = EventKind::TakeoverRefused { holder };
        let mut events: Vec<_> = (0..250).map(|number| event(number, peer, refused)).collect();
        events.push(event(250, peer, EventKind::Registered));
        events.push(event(251, holder, EventKind::Registered));
        let groups = group(&events);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [250, 1, 1]);
        assert_eq!(holders(&groups[0]).to_string(), holder.to_string());
    }
}
