//! libp2p's relay on one connection, able to refuse a circuit over it at once.
//!
//! The relay itself opens a stream for each circuit that its limits allow. A yamux connection that has no
//! room for another stream breaks, with all its circuits; a QUIC one makes the peer that asked wait.

use std::{
    io,
    task::{Context, Poll},
};

use libp2p::{
    relay,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, NetworkBehaviour, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError},
    },
};

type Inner = <relay::Behaviour as NetworkBehaviour>::ConnectionHandler;

/// An instruction to the handler of a connection.
#[derive(Debug)]
pub(crate) enum Instruction {
    /// Do as the relay demands.
    Follow(<Inner as ConnectionHandler>::FromBehaviour),
    /// The relay demands a circuit for which there is no room.
    Refuse(<Inner as ConnectionHandler>::FromBehaviour),
}

pub(crate) struct Handler {
    inner: Inner,
    /// Circuits for which no stream is opened.
    refused: usize,
}

impl Handler {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner, refused: 0 }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Instruction;
    type ToBehaviour = <Inner as ConnectionHandler>::ToBehaviour;
    type InboundProtocol = <Inner as ConnectionHandler>::InboundProtocol;
    type OutboundProtocol = <Inner as ConnectionHandler>::OutboundProtocol;
    type InboundOpenInfo = <Inner as ConnectionHandler>::InboundOpenInfo;
    type OutboundOpenInfo = <Inner as ConnectionHandler>::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {
            Instruction::Follow(event) => self.inner.on_behaviour_event(event),
            Instruction::Refuse(event) => {
                self.refused += 1;
                self.inner.on_behaviour_event(event);
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        loop {
            match self.inner.poll(cx) {
                // It takes no matter which of those that wait for a stream fails: all are to the same peer.
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol }) if self.refused > 0 => {
                    self.refused -= 1;
                    let (_, info) = protocol.into_upgrade();
                    let error = StreamUpgradeError::Io(io::ErrorKind::QuotaExceeded.into());
                    self.inner.on_connection_event(ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }));
                }
                done => return done,
            }
        }
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
        self.inner.on_connection_event(event);
    }
}
