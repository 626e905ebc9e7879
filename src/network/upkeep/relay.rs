//! One relay that makes us reachable: a reservation on each connection to it, and room on them.
//!
//! A relay sends a circuit over the connection with most room, of those that hold a reservation. One over QUIC has room for a
//! thousand circuits, one over TCP for some eighty. So QUIC is dialled again and again as long as only TCP works, and further
//! TCP connections are opened as circuits fill those that there are.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::watch, time};

use crate::{
    identity::{PeerAddr, PublicKey},
    network::{
        address,
        failure::{Closed, NoReservation},
        handle::Network,
        links::status::LinkTransport,
        transport::muxing,
    },
    telemetry::{LogPace, short_duration},
};

/// Connections to one relay that we open for the sake of room. The relay permits a few more of one peer, which may have lost
/// some unnoticed.
const MOST_CONNECTIONS: usize = 6;
/// Circuits for which there is to be room before they are asked for: a connection takes some round trips.
const SPARE: usize = 16;
/// Between two looks at the number of circuits, which hundreds of clients change at the same moment.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a connection that could not be opened, and after a reservation that a relay has refused on one connection of several.
const PAUSE: Duration = Duration::from_secs(30);

/// Holds a reservation on each connection that we have opened to a relay, and sees to it that there is room on them. `granted`
/// is called with the first. Returns when none is left, with the reason of the last.
pub(super) async fn hold(network: &Network, relay: &PeerAddr, granted: impl Fn() + Sync) -> NoReservation {
    tokio::select! {
        end = reserve_on_each(network, &relay.key, &granted) => end,
        never = keep_dialling_quic(network, relay) => match never {},
        never = make_room(network, &relay.key) => match never {},
    }
}

async fn reserve_on_each(network: &Network, relay: &PublicKey, granted: &(impl Fn() + Sync)) -> NoReservation {
    let held = Held { relays: network.links().relays(), reservations: AtomicUsize::new(0) };
    let reserve = async |link| match network.reserve(*relay, link).await {
        Ok(end) => {
            let _counted = Counted::new(&held, granted);
            end.await.unwrap_or_else(|_| Closed.into())
        }
        Err(why) => why,
    };
    let (mut used, mut held_on, mut pauses) = (HashSet::new(), FuturesUnordered::new(), FuturesUnordered::new());
    let mut changes = network.links().changes();
    loop {
        for (link, _) in network.links().opened(relay) {
            if used.insert(link) {
                held_on.push(async move { (link, reserve(link).await) });
            }
        }
        if held_on.is_empty() {
            return NoReservation::lost("not connected");
        }
        tokio::select! {
            Some((link, why)) = held_on.next() => {
                if held_on.is_empty() {
                    return why;
                }
                tracing::debug!(%relay, %why, "no reservation on one connection to a relay");
                pauses.push(async move { time::sleep(PAUSE).await; link });
            }
            Some(link) = pauses.next() => drop(used.remove(&link)),
            _ = changes.changed() => {}
        }
    }
}

async fn keep_dialling_quic(network: &Network, relay: &PeerAddr) -> Infallible {
    let opened = || network.links().opened(&relay.key);
    let without_quic = || {
        let opened = opened();
        !opened.is_empty() && opened.iter().all(|(_, at)| LinkTransport::of(at) != LinkTransport::Quic)
    };
    loop {
        network.links().wait_until(without_quic).await;
        for pause in pauses() {
            time::sleep(pause).await;
            if !without_quic() {
                break;
            }
            let beside = opened().into_iter().map(|(_, at)| at).collect();
            match network.dialler.connect_over_quic(relay, beside).await {
                Ok(()) => tracing::debug!(%relay, "a relay is reached over QUIC too"),
                Err(error) => tracing::debug!(%relay, %error, "a relay is not reached over QUIC"),
            }
        }
    }
}

async fn make_room(network: &Network, relay: &PublicKey) -> Infallible {
    let mut changes = network.links().changes();
    let log = LogPace::default();
    loop {
        let opened = network.links().opened(relay);
        let room: usize = opened.iter().map(|(_, at)| muxing::max_circuits(address::is_tcp(at))).sum();
        let circuits = network.links().through(relay).len();
        if circuits + SPARE >= room
            && let Some((_, at)) = opened.iter().max_by_key(|(_, at)| address::is_tcp(at))
        {
            if opened.len() < MOST_CONNECTIONS {
                tracing::debug!(%relay, circuits, room, "opening a further connection to a relay");
                if let Err(error) = network.dialler.connect_again(*relay, at.clone()).await {
                    tracing::warn!(%relay, %error, retry_in = short_duration(PAUSE), "no further connection to a relay whose room for circuits ends");
                    time::sleep(PAUSE).await;
                }
            } else if let Some(count) = log.due() {
                tracing::warn!(%relay, circuits, room, count, "the room for circuits through a relay ends: let UDP out to the relay, or name another one");
            }
        }
        time::sleep(LOOK_EVERY).await;
        let _ = changes.changed().await;
    }
}

/// UDP that is blocked for a moment is soon tried again, UDP that is blocked for good ever more rarely.
fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(5))
        .with_max_delay(Duration::from_secs(5 * 60))
        .with_jitter()
        .without_max_times()
        .build()
}

/// The reservations at one relay, which counts as one of our relays while there are any.
struct Held<'a> {
    relays: &'a watch::Sender<usize>,
    reservations: AtomicUsize,
}

struct Counted<'a>(&'a Held<'a>);

impl<'a> Counted<'a> {
    fn new(held: &'a Held<'a>, first: impl Fn()) -> Self {
        if held.reservations.fetch_add(1, Ordering::Relaxed) == 0 {
            held.relays.send_modify(|count| *count += 1);
            first();
        }
        Self(held)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if self.0.reservations.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.relays.send_modify(|count| *count -= 1);
        }
    }
}
