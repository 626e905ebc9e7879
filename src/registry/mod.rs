//! The alias table: who is listed under which name, for how long, and who may take a name over.
//!
//! - `table`: every decision, as a plain data structure; no task, no clock (`now` is passed in), no disk.
//! - [`Registry`]: the handle that the rest of a scraper holds: the table behind a lock, its events and its counters.
//! - `writer`: the one thread that owns the [`Store`]; it groups what is waiting into one write and one flush.
//! - [`Store`]: where leases survive a restart; [`SledStore`] is the embedded one.
//!
//! A lease is *active* while it runs, *lapsed* once it was not renewed in time (still listed, so that Prometheus's
//! `up == 0` fires), and *gone* after the retention. Its end is a wall-clock time: a restart revives nobody.
//!
//! What was acknowledged is on disk. The table in memory may run ahead of the disk, never behind it: a change is made
//! and queued under one lock, in one order, and acknowledged when its group was flushed. While the store fails nothing
//! is granted but plain renewals, and no lease lapses or goes; what is owed stays with the writer, which tries again.
//! A store that lost leases is found out at its load. The table is then incomplete for as long as clients need to register
//! again, and must not be listed.

mod config;
mod error;
mod event;
mod handle;
mod lease;
mod store;
mod table;
mod writer;

pub use config::{AliasPolicy, AliasPolicyError, RegistryConfig};
pub use error::{NotLoaded, RegistryError};
pub use event::{EventKind, RegistryEvent, Totals};
pub use handle::{Registry, Snapshot};
pub use lease::{Lease, LeaseState};
pub use store::{Change, Damage, Loaded, SledStore, Store, StoreError};
pub use table::Counts;
