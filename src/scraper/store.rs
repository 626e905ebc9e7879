//! Opens the store of the table: on this scraper's disk, or shared with other scrapers.

use tokio::{sync::watch, task};
use tokio_util::sync::CancellationToken;

use super::{ScraperConfig, ScraperError, TABLE};
#[cfg(feature = "nats")]
use crate::registry::NatsStore;
use crate::{
    identity::PublicKey,
    network::Network,
    registry::{Member, SledStore, Store},
};

pub(super) struct OpenStore {
    pub(super) store: Box<dyn Store>,
    /// What the other scrapers of a shared store are told of this one.
    pub(super) own: Option<watch::Sender<Option<Member>>>,
}

impl OpenStore {
    /// Sets what the store needs in the settings, too: those of the table, and who shares it.
    pub(super) async fn open(config: &mut ScraperConfig) -> Result<Self, ScraperError> {
        let table = config.data_dir.join(TABLE);
        #[cfg(feature = "nats")]
        if let Some(shared) = &config.store {
            // A lease is written at every fourth renewal instead of at each.
            config.registry.slack = config.registry.lease;
            config.registry.max_stale = Some(shared.max_stale);
            let store = NatsStore::open(&shared.nats, table).await?;
            let (members, own) = store.group();
            config.members = Some(members);
            return Ok(Self { store: Box::new(store), own: Some(own) });
        }
        let opened = task::spawn_blocking(|| SledStore::open(table)).await;
        let store = opened.map_err(|_| ScraperError::TaskEnded("store"))??;
        Ok(Self { store: Box::new(store), own: None })
    }
}

/// Tells the other scrapers where this one is, as that changes, until `stop` fires: at the addresses that its operator gives, or else at
/// those of the host that it listens on or was seen at.
pub(super) async fn keep_own_member(
    key: PublicKey,
    network: Network,
    own: watch::Sender<Option<Member>>,
    stop: CancellationToken,
) {
    network.listeners_up().await;
    let mut reach = network.reach();
    loop {
        let addresses = match network.external() {
            [] => reach.borrow_and_update().dial_addresses(),
            external => external.to_vec(),
        };
        let member = Some(Member { key, addresses });
        own.send_if_modified(|known| std::mem::replace(known, member.clone()) != member);
        match stop.run_until_cancelled(reach.changed()).await {
            Some(Ok(())) => {}
            _ => return stop.cancelled().await,
        }
    }
}
