//! The libp2p swarm: the task that owns it, and the behaviours that it is made of.

pub(crate) mod build;
pub(crate) mod dial_back;
pub(crate) mod driver;
pub(crate) mod identify;
#[cfg(feature = "scraper")]
pub(crate) mod inbound_metrics;
pub(crate) mod limits;
pub(crate) mod local_addresses;
#[cfg(feature = "mdns")]
pub(crate) mod nearby;
pub(crate) mod node_stats;
pub(crate) mod observed;
pub(crate) mod pinger;
pub(crate) mod relay;
pub(crate) mod stream_behaviour;
