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
    future::{BoxFuture, Ready, ready},
};
use libp2p::{
    Multiaddr,
    core::{
        Endpoint,
        transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
    },
    tcp::{self, tokio::TcpStream},
};

use crate::{
    identity::HostPort,
    network::{
        address::{self, Direct},
        transport::{
            answered::Answered,
            proxy::{self, Proxies},
        },
    },
};

/// The operating system's error, or the proxy's. With a type of its own the error stays in the chain of sources: libp2p's
/// wrappers skip the outermost one that they get.
#[derive(Debug, thiserror::Error)]
#[error("TCP")]
pub(crate) struct TcpError(#[from] io::Error);

pub(crate) struct Transport {
    tcp: tcp::tokio::Transport,
    proxies: Arc<Proxies>,
    answered: Answered,
    below_websocket: bool,
}

impl Transport {
    pub(crate) fn new(proxies: Arc<Proxies>, answered: Answered) -> Self {
        let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
        Self { tcp, proxies, answered, below_websocket: false }
    }

    pub(crate) fn below_websocket(self) -> Self {
        Self { below_websocket: true, ..self }
    }

    /// True if the address may be dialled. A stranger can name an address to us, and must neither have names looked up nor
    /// URLs asked.
    fn may_dial(&self, to: &HostPort, options: DialOpts) -> bool {
        let plain = !self.below_websocket && to.ip().is_some();
        plain || !is_named_by_a_stranger(options)
    }
}

impl libp2p::Transport for Transport {
    type Output = TcpStream;
    type Error = TcpError;
    type ListenerUpgrade = Ready<Result<TcpStream, TcpError>>;
    type Dial = BoxFuture<'static, Result<TcpStream, TcpError>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<TcpError>> {
        self.tcp.listen_on(id, addr).map_err(|error| error.map(TcpError))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.tcp.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<TcpError>> {
        let Some(Direct::Tcp(to)) = address::direct(&address::without_peer(&addr)) else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        if !self.may_dial(&to, options) {
            return Err(TransportError::MultiaddrNotSupported(addr));
        }
        // A hole is punched from our own port.
        let proxy = self.proxies.before(&to).filter(|_| options.role == Endpoint::Dialer);
        match proxy {
            Some(proxy) => {
                let tunnel = async move { proxy::connect(proxy, &to).await.map(TcpStream) };
                Ok(tunnel.map_err(|error| TcpError(io::Error::other(error))).boxed())
            }
            None if to.ip().is_some() => {
                let dialled = self.tcp.dial(addr.clone(), options).map_err(|error| error.map(TcpError))?;
                let answered = self.answered.clone();
                Ok(dialled.inspect_ok(move |_| answered.note(&addr)).map_err(TcpError).boxed())
            }
            None => Ok(connect(to).map_ok(TcpStream).map_err(TcpError).boxed()),
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, TcpError>> {
        let event = Pin::new(&mut self.tcp).poll(cx);
        event.map(|event| event.map_upgrade(|stream| ready(stream.into_inner().map_err(TcpError))).map_err(TcpError))
    }
}

/// True for a hole punch, a straight dial to a relayed peer, and a dial-back (AutoNAT): the peer itself names the address.
/// Nothing else plays the listener, or dials from another port than ours.
fn is_named_by_a_stranger(DialOpts { role, port_use }: DialOpts) -> bool {
    role == Endpoint::Listener || port_use == PortUse::New
}

async fn connect(to: HostPort) -> io::Result<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect((to.host.as_str(), to.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use libp2p::Transport as _;

    use super::*;

    #[tokio::test]
    async fn a_stranger_can_name_plain_addresses_only() {
        let dials = |role, port_use, websocket: bool, to: &str| {
            let transport = Transport::new(Arc::new(Proxies::from_env()), Answered::new());
            let mut transport = if websocket { transport.below_websocket() } else { transport };
            transport.dial(to.parse().expect("a multiaddr"), DialOpts { role, port_use }).is_ok()
        };
        for (websocket, to) in
            [(false, "/ip4/127.0.0.1/tcp/1"), (false, "/dns/localhost/tcp/1"), (true, "/ip4/127.0.0.1/tcp/1")]
        {
            assert!(dials(Endpoint::Dialer, PortUse::Reuse, websocket, to), "{to}");
            let plain = !websocket && to.starts_with("/ip4");
            assert_eq!(dials(Endpoint::Listener, PortUse::Reuse, websocket, to), plain, "a punch: {to}");
            assert_eq!(dials(Endpoint::Dialer, PortUse::New, websocket, to), plain, "a dial-back: {to}");
        }
    }
}
