//! A scraper of the group, as the others know it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::identity::{DialAddress, PublicKey};

/// A scraper of the group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its key.
    pub key: PublicKey,
    /// Where it can be dialled. With none, it is looked up by its key.
    pub addresses: Vec<DialAddress>,
}

/// The members, as they change. The scraper itself may be among them.
pub type Members = watch::Receiver<Arc<[Member]>>;
