//! The state of one connection: all that is known of it.

use std::{sync::Arc, time::Duration};

use libp2p::{
    Multiaddr, StreamProtocol,
    core::{ConnectedPoint, transport::PortUse},
    swarm::ConnectionId,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::PublicKey,
    network::{
        address,
        links::{
            local_end::LocalEnd,
            status::{LinkPath, LinkTransport},
        },
    },
};

/// Names one connection of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(pub(crate) ConnectionId);

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("not connected")]
    NotConnected,
    #[error("the link was lost")]
    Lost,
    #[error("too many streams are being opened")]
    Busy,
    #[error("the peer does not speak {0}")]
    Unsupported(StreamProtocol),
    #[error("the stream did not open in time")]
    Timeout,
    #[error("the stream failed: {0}")]
    Io(std::io::Error),
}

pub(crate) struct OpenRequest {
    pub(crate) protocol: StreamProtocol,
    pub(crate) reply: oneshot::Sender<Result<libp2p::Stream, OpenError>>,
}

/// What the handler of a connection shares with the table.
#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) open: mpsc::Sender<OpenRequest>,
    /// Cancelled when the connection is given up; its streams then end.
    pub(crate) gone: CancellationToken,
    /// Held by every stream over the connection.
    pub(crate) streams: Arc<()>,
}

#[cfg(test)]
impl Control {
    fn without_swarm() -> Self {
        Self { open: mpsc::channel(1).0, gone: CancellationToken::new(), streams: Arc::new(()) }
    }
}

/// One libp2p connection, from the moment when it is established until libp2p reports that it is closed.
pub(crate) struct Connection {
    pub(crate) peer: PublicKey,
    pub(crate) path: LinkPath,
    /// The other end's address: the peer's, or the relay's.
    pub(crate) address: Multiaddr,
    pub(crate) control: Control,
    pub(crate) inbound: bool,
    /// True if we opened the connection, direct and from the port that we listen on. Where the peer sees us is then an
    /// address that others may reach us at.
    pub(crate) from_our_port: bool,
    /// Our end; none for circuits, and where the remote address is a name.
    pub(crate) local_end: Option<LocalEnd>,
    pub(crate) since: Instant,
    #[cfg(feature = "scraper")]
    pub(crate) rtt: Option<Duration>,
    /// True once the peer has reported over this connection how it sees us.
    pub(crate) identified: bool,
    /// True if a dial of ours asked for the connection, until the peer has reported where it sees us. Only the first
    /// report is used: a peer that we trust cannot add addresses without bound.
    pub(crate) requested: bool,
    /// True for a circuit that a peer opened, until the peer's public addresses have been dialled.
    pub(crate) may_be_direct: bool,
    /// When the peer last had a registration under way, or wanted one for which there was no place.
    #[cfg(feature = "scraper")]
    pub(crate) registering_at: Option<Instant>,
    /// True once the end that dialled has made one of a better transport instead.
    pub(crate) left: bool,
    /// Since when there has been a better connection to the peer.
    pub(crate) superseded_at: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(peer: PublicKey, endpoint: &ConnectedPoint, control: Control) -> Self {
        let (relayed, inbound) = (endpoint.is_relayed(), endpoint.is_listener());
        let remote = endpoint.get_remote_address();
        let reuses = matches!(endpoint, ConnectedPoint::Dialer { port_use: PortUse::Reuse, .. });
        let address = match endpoint {
            // Of a circuit that a peer opened, only our half is known.
            ConnectedPoint::Listener { local_addr, .. } if relayed => local_addr,
            _ => remote,
        };
        let known_end = match endpoint {
            ConnectedPoint::Listener { local_addr, .. } => address::socket_addr(local_addr),
            ConnectedPoint::Dialer { .. } => None,
        };
        Self {
            peer,
            path: if relayed { LinkPath::Relayed } else { LinkPath::Direct },
            address: address::without_peer(address),
            control,
            inbound,
            from_our_port: reuses && !relayed,
            local_end: address::socket_addr(remote).filter(|_| !relayed).and_then(|to| LocalEnd::new(known_end, to)),
            since: Instant::now(),
            #[cfg(feature = "scraper")]
            rtt: None,
            identified: false,
            requested: false,
            may_be_direct: inbound && relayed,
            #[cfg(feature = "scraper")]
            registering_at: None,
            left: false,
            superseded_at: None,
        }
    }

    /// Over QUIC to `192.0.2.7:19961`, or through a relay there.
    #[cfg(test)]
    pub(crate) fn without_swarm(peer: PublicKey, path: LinkPath) -> Self {
        let own = "/ip4/192.0.2.7/udp/19961/quic-v1".parse().expect("an address");
        let address = match path {
            LinkPath::Direct => own,
            LinkPath::Relayed => address::Circuit { relay: peer, at: own }.address(),
        };
        let (role_override, port_use) = (libp2p::core::Endpoint::Dialer, PortUse::Reuse);
        Self::new(peer, &ConnectedPoint::Dialer { address, role_override, port_use }, Control::without_swarm())
    }

    /// Opened by the peer, from this address.
    #[cfg(all(test, any(feature = "scraper", feature = "node")))]
    pub(crate) fn opened_from(peer: PublicKey, send_back_addr: Multiaddr) -> Self {
        let local_addr = "/ip4/192.0.2.7/tcp/19961".parse().expect("an address");
        Self::new(peer, &ConnectedPoint::Listener { local_addr, send_back_addr }, Control::without_swarm())
    }

    /// Lower is better: direct before relayed, TCP before QUIC (half the memory, two thirds of the CPU), WebSocket last
    /// (frames around what TCP carries as well). Of a circuit each end knows only its own half.
    pub(crate) fn rank(&self) -> (LinkPath, Option<LinkTransport>) {
        (self.path, self.is_direct().then(|| self.transport()))
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.path == LinkPath::Direct
    }

    pub(crate) fn transport(&self) -> LinkTransport {
        LinkTransport::of(&self.address)
    }

    /// True if the peer has opened a newer connection in the same way, and this one has been there for longer than it
    /// takes to dial a peer in several ways at once: it may be dead.
    pub(crate) fn may_be_replaced_by(&self, newer: &Self, after: Duration) -> bool {
        let alike = self.is_direct() && newer.is_direct() && self.transport() == newer.transport();
        alike && self.since.elapsed() > after
    }

    /// For people: where the connection leads.
    pub(crate) fn describe(&self) -> String {
        let way = if self.is_direct() { "to" } else { "through the relay at" };
        format!("{way} {}", address::display(&self.address))
    }
}
