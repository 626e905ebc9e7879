//! What a scraper or a node asks: its own addresses, and its bootstrap nodes.

use std::{net::SocketAddr, sync::Arc};

use tokio::time;

use super::Network;
#[cfg(feature = "node")]
use crate::network::swarm::node_stats::NodeCounts;
use crate::{
    identity::DialAddress,
    network::{
        address,
        command::Command,
        error::NetworkError,
        reach::Reach,
        transport::{inbound::InboundCounts, resolve},
    },
    telemetry::Refusals,
};

impl Network {
    /// The addresses that we listen on, plain TCP and QUIC: all of this host's, where the configuration gives `0.0.0.0` or `::`.
    pub(crate) fn listening(&self) -> &[SocketAddr] {
        &self.bound
    }

    /// Waits for all listeners to have an address, soon after the start.
    pub(crate) async fn listeners_up(&self) {
        let Some(by) = self.dialler.listeners_by else { return };
        let is_up = |reach: &Reach, at: &SocketAddr| {
            let mut own = reach.listeners.iter().filter_map(address::socket_addr);
            own.any(|own| own.port() == at.port() && own.is_ipv4() == at.is_ipv4())
        };
        let mut reach = self.dialler.reach.clone();
        let all = reach.wait_for(|reach| self.bound.iter().all(|at| is_up(reach, at)));
        let _ = time::timeout_at(by, all).await;
    }

    /// The operator's external addresses.
    pub(crate) fn external(&self) -> &[DialAddress] {
        &self.external
    }

    /// Looks the operator's external addresses up again.
    ///
    /// # Errors
    /// [`NetworkError::External`] names the first that does not resolve.
    pub(crate) async fn resolve_external(&self) -> Result<(), NetworkError> {
        let addresses = resolve::external(&self.external).await?;
        let _ = self.dialler.command(Command::External { addresses }).await;
        Ok(())
    }

    /// Connections that others open.
    pub(crate) fn inbound(&self) -> InboundCounts {
        self.inbound.read()
    }

    /// What limits have refused; every part of the process counts here.
    pub(crate) fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// True while peers can dial in.
    #[cfg(feature = "node")]
    pub(crate) fn is_listening(&self) -> bool {
        !self.dialler.reach.borrow().listeners.is_empty()
    }

    /// Returns once we know an address of ours that means something everywhere.
    #[cfg(feature = "node")]
    pub(crate) async fn public_address(&self) {
        if self.external.is_empty() {
            let public = |reach: &Reach| reach.direct().any(|address| !address::is_private(address));
            let _ = self.dialler.reach.clone().wait_for(public).await;
        }
    }

    /// True if one of the bootstrap nodes is linked, or there are none.
    #[cfg(feature = "node")]
    pub(crate) fn has_a_node(&self) -> bool {
        self.bootstrap().is_empty() || self.bootstrap().iter().any(|node| self.links().path(&node.key).is_some())
    }

    /// At a node: what it has done for others.
    #[cfg(feature = "node")]
    pub(crate) fn node_counts(&self) -> NodeCounts {
        self.stats.counts()
    }
}
