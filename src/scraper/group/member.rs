//! A scraper of the group, as the others know it.

use std::sync::Arc;

use tokio::sync::watch;

pub use crate::registry::Member;

/// The members, as they change. The scraper itself may be among them.
pub type Members = watch::Receiver<Arc<[Member]>>;
