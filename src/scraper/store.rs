//! Opens the store of the table: on this scraper's disk, or shared with other scrapers.

#[cfg(feature = "nats")]
use tokio::sync::watch;
use tokio::task;

use super::{ScraperConfig, ScraperError, TABLE};
use crate::registry::{SledStore, Store};
#[cfg(feature = "nats")]
use crate::{
    identity::{DialAddress, PublicKey},
    network::Network,
    registry::{Member, NatsStore},
};

pub(super) struct OpenStore {
    pub(super) store: Box<dyn Store>,
    #[cfg(feature = "nats")]
    pub(super) group: Option<SharedGroup>,
}

/// The ways to the other scrapers of a shared store.
#[cfg(feature = "nats")]
pub(super) struct SharedGroup {
    pub(super) members: watch::Receiver<std::sync::Arc<[Member]>>,
    /// What the others are told of this scraper.
    pub(super) own: watch::Sender<Option<Member>>,
}

impl OpenStore {
    /// Sets the table's settings to what the store needs, too.
    pub(super) async fn open(config: &mut ScraperConfig) -> Result<Self, ScraperError> {
        let table = config.data_dir.join(TABLE);
        #[cfg(feature = "nats")]
        if let Some(shared) = &config.store {
            // A lease is written every fourth renewal instead of at each.
            config.registry.slack = config.registry.lease;
            config.registry.max_stale = Some(shared.max_stale);
            let store = NatsStore::open(&shared.nats, table).await?;
            let (members, own) = store.group();
            return Ok(Self { store: Box::new(store), group: Some(SharedGroup { members, own }) });
        }
        let opened = task::spawn_blocking(|| SledStore::open(table)).await;
        let store = opened.map_err(|_| ScraperError::TaskEnded("store"))??;
        Ok(Self {
            store: Box::new(store),
            #[cfg(feature = "nats")]
            group: None,
        })
    }
}

/// This scraper as the others can dial it: at the addresses that its operator gives, or else at those that it listens on.
#[cfg(feature = "nats")]
pub(super) fn own_member(key: PublicKey, network: &Network) -> Member {
    let external = network.external().to_vec();
    let listening = || network.listening().iter().filter_map(|at| at.to_string().parse::<DialAddress>().ok()).collect();
    Member { key, addresses: if external.is_empty() { listening() } else { external } }
}
