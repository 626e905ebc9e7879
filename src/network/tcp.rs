//! TCP as libp2p wants it, with names, and through the proxy of the environment where there is one.
//!
//! Below both the plain TCP links and the WebSocket ones. Names get here as they were given: a proxy resolves them
//! itself, and TLS has to check them.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    FutureExt, TryFutureExt,
    future::{BoxFuture, Ready},
};
use libp2p::{
    Multiaddr,
    core::{
        Endpoint,
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    },
    tcp::{self, tokio::TcpStream},
};

use super::{
    peer_id::{self, Direct},
    proxy::{self, Proxies},
};
use crate::identity::HostPort;

pub(super) struct Transport {
    tcp: tcp::tokio::Transport,
    proxies: Arc<Proxies>,
}

impl Transport {
    pub(super) fn new(proxies: Arc<Proxies>) -> Self {
        Self { tcp: tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)), proxies }
    }
}

impl libp2p::Transport for Transport {
    type Output = TcpStream;
    type Error = io::Error;
    type ListenerUpgrade = Ready<Result<TcpStream, io::Error>>;
    type Dial = BoxFuture<'static, Result<TcpStream, io::Error>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.tcp.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.tcp.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let Some(Direct::Tcp(place)) = peer_id::direct(&peer_id::without_peer(&addr)) else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        // A hole is punched from our own port.
        let proxy = self.proxies.before(&place).filter(|_| options.role == Endpoint::Dialer);
        match proxy {
            Some(proxy) => {
                Ok(async move { proxy::connect(proxy, &place).await.map(TcpStream).map_err(io::Error::other) }.boxed())
            }
            None if place.ip().is_some() => self.tcp.dial(addr, options),
            None => Ok(connect(place).map_ok(TcpStream).boxed()),
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.tcp).poll(cx)
    }
}

async fn connect(place: HostPort) -> io::Result<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect((place.host.as_str(), place.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
