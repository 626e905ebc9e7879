//! How many streams a connection carries, and how many bytes they may pin: yamux over TCP and WebSocket, QUIC.

use std::time::Duration;

use libp2p::{quic, yamux};

use crate::network::config::NetworkRole;

/// Pulls from one peer at once; further ones wait.
pub(crate) const MAX_PULL_STREAMS: usize = 64;

/// Towards a scraper a peer opens a few streams; a scraper opens up to [`MAX_PULL_STREAMS`] of its own on the same
/// connection. Between a relay and a scraper each circuit is one; circuits beyond that are refused.
pub(crate) const MAX_STREAMS: usize = MAX_PULL_STREAMS + 32;

/// Towards a scraper over QUIC, which bounds what all streams of a connection can pin together: a relay may have one for each
/// of many circuits. quinn keeps 60 bytes for each that may come, so the others permit no more than over TCP.
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) const MAX_QUIC_STREAMS: u32 = 1024;

/// Streams that a relay leaves to the other end, and to those that are being closed.
#[cfg(any(feature = "scraper", feature = "node"))]
const SPARE_STREAMS: usize = 16;

/// Bytes of a QUIC stream that nobody has read yet.
const STREAM_WINDOW: u32 = 256 * 1024;

/// libp2p's own is 5 s: a peer that UDP does not reach is dialled over TCP long before.
const QUIC_HANDSHAKE: Duration = Duration::from_secs(2);

/// The only sign of a lost peer, or of a lost mapping of a NAT.
const QUIC_IDLE_MS: u32 = 25_000;

/// Below a NAT's shortest timeouts for UDP, which are about 30 s.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// libp2p has no way to switch quinn's pings off.
#[cfg(any(feature = "scraper", feature = "node"))]
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What a connection may pin is its streams times their window of 256 KiB, which yamux fills before we read.
pub(crate) fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config
}

pub(crate) fn quic_config(mut config: quic::Config, role: NetworkRole) -> quic::Config {
    config.handshake_timeout = QUIC_HANDSHAKE;
    config.max_idle_timeout = QUIC_IDLE_MS;
    // One side keeps the path alive, the one that has few links.
    config.keep_alive_interval = match role {
        NetworkRole::Client => QUIC_KEEP_ALIVE,
        #[cfg(any(feature = "scraper", feature = "node"))]
        _ => NEVER,
    };
    // What a hostile peer can pin: the defaults are 10 and 15 MB, and no faster.
    config.max_stream_data = STREAM_WINDOW;
    config.max_connection_data = match role {
        // Pulls that nobody reads must not use up the window of the others: as much as yamux permits.
        #[cfg(feature = "scraper")]
        NetworkRole::Scraper => STREAM_WINDOW * MAX_PULL_STREAMS as u32,
        _ => 4 * STREAM_WINDOW,
    };
    config.max_concurrent_stream_limit = match role {
        #[cfg(feature = "scraper")]
        NetworkRole::Scraper => MAX_QUIC_STREAMS,
        _ => MAX_STREAMS as u32,
    };
    config
}

/// Circuits that a relay builds over one connection.
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) fn max_circuits(is_tcp: bool) -> usize {
    let streams = if is_tcp { MAX_STREAMS } else { MAX_QUIC_STREAMS as usize };
    streams - SPARE_STREAMS
}
