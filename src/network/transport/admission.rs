//! All transports together, with a place for each connection that comes in.
//!
//! libp2p has no way to end a connection that is still in its handshake. Here the handshake is a future that can be
//! aborted: it then ends with an error, and the socket closes with it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::{
    FutureExt, TryFutureExt,
    future::{AbortHandle, AbortRegistration, Abortable, BoxFuture, MapErr},
};
use libp2p::{
    Multiaddr, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
};

use crate::network::transport::half_open::{HalfOpen, Place};

/// Connections without a place that one poll closes: the swarm has other work.
const REFUSED_AT_ONCE: usize = 64;

#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmissionError<E> {
    #[error("the connection made room for another one")]
    Evicted,
    #[error(transparent)]
    Transport(E),
}

/// Gives each inbound connection its place, or closes it.
pub(crate) struct Admission<T> {
    transport: T,
    half_open: HalfOpen,
}

impl<T> Admission<T> {
    pub(crate) fn new(transport: T, half_open: HalfOpen) -> Self {
        Self { transport, half_open }
    }
}

impl<T> Transport for Admission<T>
where
    T: Transport<Output: 'static, Error: 'static, ListenerUpgrade: Send + 'static> + Unpin,
{
    type Output = T::Output;
    type Error = AdmissionError<T::Error>;
    type ListenerUpgrade = BoxFuture<'static, Result<T::Output, Self::Error>>;
    type Dial = MapErr<T::Dial, fn(T::Error) -> Self::Error>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.transport.listen_on(id, addr).map_err(|error| error.map(AdmissionError::Transport))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.transport.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        let dialled = self.transport.dial(addr, options).map_err(|error| error.map(AdmissionError::Transport))?;
        Ok(dialled.map_err(AdmissionError::Transport))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        for _ in 0..REFUSED_AT_ONCE {
            let Poll::Ready(event) = Pin::new(&mut self.transport).poll(cx) else { return Poll::Pending };
            let (abort, aborted) = AbortHandle::new_pair();
            let place = match &event {
                TransportEvent::Incoming { send_back_addr, .. } => match self.half_open.admit(send_back_addr, abort) {
                    None => continue,
                    place => place,
                },
                _ => None,
            };
            let held = |upgrade| hold(upgrade, aborted, place).boxed();
            return Poll::Ready(event.map_upgrade(held).map_err(AdmissionError::Transport));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The handshake, when it is its turn, with its place for as long as it takes.
async fn hold<T, E>(
    upgrade: impl Future<Output = Result<T, E>>,
    aborted: AbortRegistration,
    place: Option<Place>,
) -> Result<T, AdmissionError<E>> {
    let handshake = async {
        // Only connections that come in are upgraded here.
        let Some(mut place) = place else { return upgrade.await.map_err(AdmissionError::Transport) };
        place.turn().await;
        let ended = tokio::select! {
            biased;
            ended = upgrade => ended.map_err(AdmissionError::Transport)?,
            () = place.taken_over() => return Err(AdmissionError::Evicted),
        };
        place.proved();
        Ok(ended)
    };
    Abortable::new(handshake, aborted).await.unwrap_or(Err(AdmissionError::Evicted))
}
