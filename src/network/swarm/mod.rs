//! The libp2p swarm: the task that owns it, and the behaviours that it is made of.

#[cfg(feature = "node")]
pub(crate) mod announcements;
pub(crate) mod boxed;
pub(crate) mod build;
pub(crate) mod dht;
#[cfg(feature = "node")]
pub(crate) mod dht_server;
#[cfg(feature = "scraper")]
pub(crate) mod dial_back;
#[cfg(feature = "node")]
pub(crate) mod dial_back_server;
pub(crate) mod driver;
#[cfg(feature = "scraper")]
pub(crate) mod held;
pub(crate) mod hole_punch;
pub(crate) mod identify;
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) mod inbound_metrics;
pub(crate) mod limits;
#[cfg(feature = "mdns")]
pub(crate) mod nearby;
#[cfg(feature = "node")]
pub(crate) mod node_stats;
pub(crate) mod pinger;
pub(crate) mod probes;
pub(crate) mod relay;
pub(crate) mod stream_behaviour;
pub(crate) mod wrapped;
