//! Prometheus scrapes services that have no reachable address.
//!
//! A service registers an *alias* with a *scraper*, by the scraper's public key and a shared secret. The scraper,
//! beside Prometheus, pulls the service's metrics over the link that the service opened, which is encrypted and bound
//! to both keys, and lists it by http_sd. No port is opened at the service, and no list of targets is kept by hand.
//!
//! A service links only the client (`default-features = false, features = ["client"]`):
//!
//! ```no_run
//! # #[cfg(feature = "client")]
//! # async fn service() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{path::Path, sync::Arc};
//!
//! use narthex::{Client, PeerAddr, identity::load_secret};
//! use prometheus_client::registry::Registry;
//!
//! let scraper: PeerAddr = "x1iunbk8pqzxgsobi97zje9hxr7smb4dn6rcn4b61q6we39pknxo@scraper.example.org:19961".parse()?;
//! let secret = load_secret(Path::new("keys/fleet.secret"))?;
//! let registry = Registry::default();
//!
//! let client = Client::builder(scraper, secret)
//!     .alias("web-1")
//!     .service("web")
//!     .label("region", "eu")
//!     .metrics(Arc::new(registry)) // or one of many others: see `client::IntoSource`
//!     .start()
//!     .await?; // usable at once; linking and registering go on in the background
//!
//! let mut events = client.events(); // LinkUp, Registered, RegisterFailed, PullSucceeded, ..
//! println!("{:?}", events.recv().await?);
//!
//! client.shutdown().await; // releases the alias: Prometheus drops it without an alert
//! # Ok(())
//! # }
//! ```
//!
//! | role | what it is | type | feature |
//! |---|---|---|---|
//! | client | in a service: registers, answers pulls | `Client` | `client` |
//! | agent | beside unmodified exporters: a client whose sources are URLs | `agent::Exporter` | `agent` |
//! | scraper | beside Prometheus: table of aliases, pulls, HTTP | `Scraper` | `scraper` |
//! | node | public helper through which peers find each other by key | `Node` | `node` |
//!
//! The default feature `cli` has all of them, and the `narthex` command. `prometheus`, `metrics` and `tower` add sources
//! (see `client::IntoSource`), `filter` a metric filter. `docs/` in the repository has the architecture, the protocol, operation and security.

// docs.rs sets this, so that each item there names the feature it needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "scraper")]
mod access;
#[cfg(feature = "agent")]
pub mod agent;
mod atomic_file;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "scraper")]
mod dir_lock;
#[cfg(all(any(fuzzing, test), feature = "cli"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "scraper")]
mod hook;
#[cfg(feature = "client")]
mod http;
pub mod identity;
#[cfg(feature = "client")]
mod ip_network;
#[cfg(feature = "scraper")]
mod lobby;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "client")]
mod network;
#[cfg(feature = "node")]
pub mod node;
mod private_file;
#[cfg(feature = "scraper")]
mod registration_log;
#[cfg(feature = "scraper")]
mod registry;
#[cfg(feature = "scraper")]
pub mod scraper;
#[cfg(any(feature = "agent", feature = "scraper"))]
mod secret_file;
mod small_file;
#[cfg(feature = "scraper")]
mod socket_file;
#[cfg(feature = "client")]
mod telemetry;
#[doc(hidden)]
pub mod wire;

#[cfg(feature = "client")]
pub use client::{Client, ClientBuilder, TargetBuilder};
#[cfg(any(feature = "scraper", feature = "node"))]
pub use http::{BindError, HttpLimits};
pub use identity::{KeyPair, PeerAddr, PublicKey, SharedSecret};
#[cfg(feature = "client")]
pub use network::{NetworkError, NetworkLimits};
#[cfg(feature = "node")]
pub use node::{Node, NodeConfig, NodeError};
#[cfg(feature = "scraper")]
pub use scraper::{Scraper, ScraperConfig};
#[cfg(feature = "client")]
pub use wire::{Ticket, TicketError};
