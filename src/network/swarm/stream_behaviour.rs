//! The stream behaviour: opens and accepts streams by protocol and by key.
//!
//! Streams are handed straight from the connection's handler to the task that waits for them, past the swarm's task. A
//! stranger's stream is refused here, before one of its bytes is read. (`libp2p-stream` drops bursts, leaks a sender per
//! connection, and may pick the relay.)

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use libp2p::{
    StreamProtocol,
    core::{UpgradeInfo, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, Stream,
        StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::PublicKey,
    network::{
        config::NetworkRole,
        error::innermost,
        links::{
            acceptor::{Acceptor, FirewallBlock, InboundStream},
            connection::{Connection, Control, OpenError, OpenRequest},
            stream::LinkStream,
            table::Links,
        },
        peer_id,
        swarm::wrapped::{NewConnection, Wrap},
    },
};

/// Requests to open streams that may wait for a connection's handler.
const OPEN_QUEUE: usize = 256;

struct Acceptors {
    protocols: Vec<StreamProtocol>,
    by_protocol: HashMap<StreamProtocol, Acceptor>,
    blocks: broadcast::Sender<FirewallBlock>,
}

impl Acceptors {
    /// A refused stream is dropped, which resets it.
    fn route(&self, peer: PublicKey, protocol: &StreamProtocol, stream: LinkStream) {
        let Some(acceptor) = self.by_protocol.get(protocol) else { return };
        if !acceptor.firewall.admits(&peer) {
            tracing::debug!(%peer, %protocol, "firewall: refused a stranger's stream");
            let _ = self.blocks.send(FirewallBlock { peer });
            return;
        }
        if acceptor.inbox.try_send(InboundStream { peer, stream }).is_err() {
            tracing::debug!(%peer, %protocol, "too many streams wait: refused one");
        }
    }
}

pub(crate) struct Behaviour {
    links: Links,
    acceptors: Arc<Acceptors>,
    /// Connections whose handler is built and which another behaviour may still deny.
    unconfirmed: HashMap<ConnectionId, Control>,
    /// True if anybody may connect to us, false if only peers whose links we keep.
    open_to_strangers: bool,
}

impl Behaviour {
    pub(crate) fn new(
        links: Links,
        acceptors: Vec<Acceptor>,
        blocks: broadcast::Sender<FirewallBlock>,
        role: NetworkRole,
    ) -> Self {
        let name = |acceptor: &Acceptor| StreamProtocol::new(acceptor.protocol);
        let protocols = acceptors.iter().map(name).collect();
        let by_protocol = acceptors.into_iter().map(|acceptor| (name(&acceptor), acceptor)).collect();
        let acceptors = Arc::new(Acceptors { protocols, by_protocol, blocks });
        Self { links, acceptors, unconfirmed: HashMap::new(), open_to_strangers: role != NetworkRole::Client }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the peer's key is not Ed25519")]
struct NotEd25519;

#[derive(Debug, thiserror::Error)]
#[error("only our scrapers may connect to us")]
struct Stranger;

impl Wrap for Behaviour {
    type Handler = Handler;
    type Event = Infallible;

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        let NewConnection { id, peer, .. } = connection;
        let peer = peer_id::public_key(&peer).ok_or_else(|| ConnectionDenied::new(NotEd25519))?;
        if connection.is_inbound() && !self.open_to_strangers && !self.links.is_kept(&peer) {
            return Err(ConnectionDenied::new(Stranger));
        }
        let (open, requests) = mpsc::channel(OPEN_QUEUE);
        let control = Control { open, gone: CancellationToken::new(), streams: Arc::default() };
        self.unconfirmed.insert(id, control.clone());
        let (kept, acceptors) = (self.links.kept_flag(peer), Arc::clone(&self.acceptors));
        Ok(Handler { id, peer, requests, control, kept, acceptors })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let (id, peer) = (established.connection_id, peer_id::public_key(&established.peer_id));
                if let (Some(peer), Some(control)) = (peer, self.unconfirmed.remove(&id)) {
                    self.links.add(id, Connection::new(peer, established.endpoint, control));
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                let why = closed.cause.map_or_else(|| "closed".to_owned(), |cause| innermost(cause));
                self.links.unlist(closed.connection_id, &why);
            }
            // Another behaviour has denied the connection after our handler was built.
            FromSwarm::DialFailure(failure) => drop(self.unconfirmed.remove(&failure.connection_id)),
            FromSwarm::ListenFailure(failure) => drop(self.unconfirmed.remove(&failure.connection_id)),
            _ => {}
        }
    }
}

pub(crate) struct Handler {
    id: ConnectionId,
    peer: PublicKey,
    requests: mpsc::Receiver<OpenRequest>,
    control: Control,
    kept: Arc<AtomicBool>,
    acceptors: Arc<Acceptors>,
}

type Reply = oneshot::Sender<Result<Stream, OpenError>>;

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Accept;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = (StreamProtocol, Reply);

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        SubstreamProtocol::new(Accept(Arc::clone(&self.acceptors)), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        loop {
            match self.requests.poll_recv(cx) {
                Poll::Ready(Some(request)) if request.reply.is_closed() => {} // gave up while waiting
                Poll::Ready(Some(OpenRequest { protocol, reply })) => {
                    let info = (protocol.clone(), reply);
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                        protocol: SubstreamProtocol::new(ReadyUpgrade::new(protocol), info),
                    });
                }
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol), ..
            }) => {
                let stream = LinkStream::new(stream, self.id, &self.control);
                self.acceptors.route(self.peer, &protocol, stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: (_, reply),
            }) => {
                let _ = reply.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: (protocol, reply), error }) => {
                let _ = reply.send(Err(match error {
                    StreamUpgradeError::Timeout => OpenError::Timeout,
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported(protocol),
                    StreamUpgradeError::Io(error) => OpenError::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                }));
            }
            _ => {}
        }
    }
}

/// Accepts any of our protocols, and returns which one it was.
pub(crate) struct Accept(Arc<Acceptors>);

impl UpgradeInfo for Accept {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocols.clone().into_iter()
    }
}

impl<S: Send> libp2p::core::InboundUpgrade<S> for Accept {
    type Output = (S, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: S, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
