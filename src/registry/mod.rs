//! The alias table: who is listed under which name, for how long, and who may take a name over.
//!
//! - `table`: every decision, as a plain data structure; no task, no clock (`now` is passed in), no disk.
//! - [`Beacon`]: what a caller of the registration API keeps beside the aliases, in the same table and store.
//! - `listing`: an alias as Prometheus sees it, and its bytes; `budget`: how many of those a peer may have.
//! - [`Registry`]: the handle that the rest of a scraper holds: the table behind a lock, its events and its counters.
//! - [`Journal`]: what a log of holders gets, beside the store, before anything is acknowledged.
//! - `writer`: the one thread that owns the [`Store`]; it writes and flushes all waiting changes as one group.
//! - [`Store`]: keeps leases across restarts; [`SledStore`] is an embedded database.
//!
//! A lease is *active* while it runs, *lapsed* once it was not renewed in time (still listed, so that Prometheus's
//! `up == 0` fires), and *gone* after the retention. A lease ends at a wall-clock time, so a restart revives no lease.
//!
//! Every acknowledged change is on disk. The table in memory may be ahead of the disk, never behind: a change is made
//! and queued under one lock, and acknowledged after its group was flushed. While the store fails, the registry grants
//! plain renewals only, no lease lapses or goes, and the writer keeps the unwritten changes and tries again.
//!
//! A load detects that the store has lost leases. The table is then incomplete, and must not be listed, until the
//! aliases that were noted are there again, or clients had the time to register. What the loss puts in doubt is dropped unless it
//! was renewed by then.

pub(crate) mod backup;
mod beacon;
mod budget;
mod config;
mod contents;
mod error;
mod event;
mod event_log;
mod handle;
mod health;
mod holder;
mod journal;
mod lease;
mod listing;
mod name;
mod shared;
mod store;
mod table;
mod wall_clock;
mod writer;

pub use config::RegistryConfig;
pub use error::RegistryError;
pub use event::{EventKind, RegistryEvent};
pub use shared::Member;
pub use store::StoreError;

pub(crate) use beacon::{Beacon, BeaconError, BeaconName, ListedGroup, OWN_KINDS};
#[cfg(feature = "cli")]
pub(crate) use beacon::{KEY_LABEL, KIND_LABEL, TOKEN_LABEL};
pub(crate) use contents::Contents;
pub(crate) use error::NotLoaded;
pub(crate) use event::{BeaconEvent, BeaconEventKind, Totals};
pub(crate) use handle::Registry;
pub(crate) use holder::{Holders, Presence, Registrant};
pub(crate) use journal::{Cause, Journal, JournalEntry};
pub(crate) use lease::{Lease, LeaseState};
pub(crate) use listing::{Listing, path_label};
pub(crate) use name::Name;
pub(crate) use shared::{Entry, Foreign, Note, SharedEvent};
#[cfg(feature = "nats")]
pub(crate) use store::NatsStore;
pub(crate) use store::{Change, Damage, Loaded, SledStore, Store};
#[cfg(feature = "cli")]
pub(crate) use store::{ProbedBucket, probe_bucket, read_only};
pub(crate) use table::{Counts, Kept};
