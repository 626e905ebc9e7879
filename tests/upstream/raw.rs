//! A behaviour that opens and accepts raw streams, on which the test itself speaks the protocols.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    task::{Context, Poll},
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use crate::peer::{Peer, Polled, Settings, settle};

/// For a [`Raw`] peer that accepts nothing: no other peer knows the protocol.
pub(crate) const NOTHING: StreamProtocol = StreamProtocol::new("/nothing/1");

/// Opens streams, and accepts those of one protocol; the test reads and writes them.
pub(crate) struct Raw {
    accepts: StreamProtocol,
    asked: VecDeque<(PeerId, StreamProtocol)>,
    got: VecDeque<RawStream>,
}

/// A stream that a [`Raw`] peer opened or accepted.
#[derive(Debug)]
pub(crate) struct RawStream {
    pub(crate) stream: Stream,
}

impl RawStream {
    /// Writes, with a length in front as libp2p's protocols have it.
    pub(crate) fn send(&mut self, message: &[u8]) {
        let bytes = [length(message.len()), message.to_vec()].concat();
        self.stream.write_all(&bytes).now_or_never().expect("room").expect("an open stream");
        self.stream.flush().now_or_never().expect("room").expect("an open stream");
    }

    /// What is there to be read now: none if nothing has come yet.
    pub(crate) fn read(&mut self) -> Option<io::Result<Vec<u8>>> {
        let mut buffer = vec![0; 1024];
        let read = self.stream.read(&mut buffer).now_or_never()?;
        Some(read.map(|length| {
            buffer.truncate(length);
            buffer
        }))
    }

    /// Ends this side.
    pub(crate) fn end(&mut self) {
        self.stream.close().now_or_never().expect("room").expect("an open stream");
    }

    /// Whether the other side has ended it, properly or by a reset, before it wrote anything.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.read().is_some_and(|read| read.map_or(true, |bytes| bytes.is_empty()))
    }
}

impl Peer<Raw> {
    pub(crate) fn raw(accepts: StreamProtocol) -> Self {
        Self::raw_with(Settings::default(), accepts)
    }

    pub(crate) fn raw_with(settings: Settings, accepts: StreamProtocol) -> Self {
        Self::with(settings, |_, _| Raw { accepts, asked: VecDeque::new(), got: VecDeque::new() })
    }

    /// Asks for a stream; [`Peer::streams`] has it later.
    pub(crate) fn open(&mut self, peer: PeerId, protocol: StreamProtocol) {
        self.behaviour().asked.push_back((peer, protocol));
    }

    /// Opens one stream to a connected peer.
    pub(crate) fn opened(&mut self, to: &mut impl Polled, protocol: StreamProtocol) -> RawStream {
        self.open(to.peer_id(), protocol);
        settle(&mut [self, to]);
        self.streams().pop().expect("a stream")
    }

    /// The streams that have come since the last call.
    pub(crate) fn streams(&mut self) -> Vec<RawStream> {
        self.behaviour().got.drain(..).collect()
    }
}

/// Bytes as a field of a Protobuf message.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], length(bytes.len()), bytes.to_vec()].concat()
}

/// Below 16 384, as an unsigned varint.
fn length(length: usize) -> Vec<u8> {
    let byte = |length: usize| u8::try_from(length).expect("a short message");
    match length {
        0..0x80 => vec![byte(length)],
        _ => vec![byte(length & 0x7f) | 0x80, byte(length >> 7)],
    }
}

impl NetworkBehaviour for Raw {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler { accepts: self.accepts.clone(), asked: VecDeque::new(), got: VecDeque::new() })
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler { accepts: self.accepts.clone(), asked: VecDeque::new(), got: VecDeque::new() })
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, stream: THandlerOutEvent<Self>) {
        self.got.push_back(stream);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.asked.pop_front() {
            Some((peer_id, event)) => {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event })
            }
            None => Poll::Pending,
        }
    }
}

type Wanted = ReadyUpgrade<StreamProtocol>;

pub(crate) struct Handler {
    accepts: StreamProtocol,
    asked: VecDeque<StreamProtocol>,
    got: VecDeque<RawStream>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = StreamProtocol;
    type ToBehaviour = RawStream;
    type InboundProtocol = Wanted;
    type OutboundProtocol = Wanted;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Wanted> {
        SubstreamProtocol::new(Wanted::new(self.accepts.clone()), ())
    }

    fn on_behaviour_event(&mut self, protocol: StreamProtocol) {
        self.asked.push_back(protocol);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Wanted, (), RawStream>> {
        if let Some(stream) = self.got.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        match self.asked.pop_front() {
            Some(protocol) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Wanted::new(protocol), ()),
            }),
            None => Poll::Pending,
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Wanted, Wanted>) {
        let stream = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => protocol,
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => protocol,
            _ => return,
        };
        self.got.push_back(RawStream { stream });
    }
}
