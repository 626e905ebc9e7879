//! The listening socket: of TCP or, at a scraper, of a file.

#[cfg(feature = "scraper")]
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    os::unix,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};
use std::{io, net::SocketAddr};

use http::Extensions;
use tokio::net::{self, TcpListener, TcpSocket, TcpStream};
#[cfg(feature = "scraper")]
use tokio::net::{UnixListener, UnixStream};

#[cfg(feature = "scraper")]
use super::Gate;
use super::spare_files::SpareFiles;
use crate::identity::HostPort;
#[cfg(feature = "scraper")]
use crate::{identity::HostPortError, socket_file::SocketFile};

/// Bytes that the kernel takes for a client that does not read; it would take several MiB by itself, which a peer would send
/// in vain.
const SEND_BUFFER: u32 = 256 << 10;
/// Connections that may wait for the accept.
const BACKLOG: u32 = 1024;
/// The mode of a socket's file: its owner and group may connect.
#[cfg(feature = "scraper")]
const SOCKET_MODE: u32 = 0o660;
/// What a Unix socket's path stands behind.
#[cfg(feature = "scraper")]
const UNIX: &str = "unix:";

/// The address to listen on for HTTP is taken, or is no address of this host.
#[derive(Debug, thiserror::Error)]
#[error("could not listen for HTTP on {addr}")]
#[non_exhaustive]
pub struct BindError {
    /// The address asked for.
    pub addr: String,
    /// The error of the system.
    pub source: io::Error,
}

impl BindError {
    fn at(addr: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let addr = addr.to_string();
        |source| Self { addr, source }
    }
}

/// Where a scraper's HTTP side listens. As text `HOST:PORT`, or `unix:PATH` with an absolute path.
#[cfg(feature = "scraper")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAddr {
    /// A TCP address; port 0 takes any free one.
    Tcp(HostPort),
    /// A Unix socket, made with the mode 0660 and removed at the end. One that a dead process left is replaced.
    Unix(PathBuf),
}

/// A text is no address to listen on.
#[cfg(feature = "scraper")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpAddrError {
    /// Neither host and port nor a socket.
    #[error(transparent)]
    Tcp(#[from] HostPortError),
    /// A socket without an absolute path.
    #[error("expected {UNIX} and an absolute path, as in unix:/run/narthex/http.sock")]
    Unix,
}

#[cfg(feature = "scraper")]
impl HttpAddr {
    /// The address, if it is one of TCP.
    pub fn tcp(&self) -> Option<&HostPort> {
        match self {
            Self::Tcp(addr) => Some(addr),
            Self::Unix(_) => None,
        }
    }
}

#[cfg(feature = "scraper")]
impl From<HostPort> for HttpAddr {
    fn from(addr: HostPort) -> Self {
        Self::Tcp(addr)
    }
}

#[cfg(feature = "scraper")]
impl FromStr for HttpAddr {
    type Err = HttpAddrError;

    fn from_str(text: &str) -> Result<Self, HttpAddrError> {
        match unix_path(text) {
            Some(path) => path.map(Self::Unix).ok_or(HttpAddrError::Unix),
            None => Ok(Self::Tcp(text.parse()?)),
        }
    }
}

#[cfg(feature = "scraper")]
impl fmt::Display for HttpAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// The socket that `unix:PATH` names: `None` for another text, `Some(None)` without an absolute path. URLs have `//` before it.
#[cfg(feature = "scraper")]
pub(crate) fn unix_path(text: &str) -> Option<Option<PathBuf>> {
    let path = text.strip_prefix(UNIX)?;
    let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
    let is_one = path.starts_with('/') && !path.starts_with("//") && !path.ends_with('/') && !path.contains('\0');
    Some(is_one.then(|| PathBuf::from(path)))
}

/// A socket that listens already, as a service manager passes one.
#[cfg(feature = "scraper")]
#[derive(Debug)]
pub enum HttpSocket {
    /// Of TCP.
    Tcp(std::net::TcpListener),
    /// Of a file, which stays.
    Unix(unix::net::UnixListener),
}

#[cfg(feature = "scraper")]
impl fmt::Display for HttpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unnamed = |f: &mut fmt::Formatter<'_>| f.write_str("a passed socket");
        match self {
            Self::Tcp(socket) => match socket.local_addr() {
                Ok(addr) => addr.fmt(f),
                Err(_) => unnamed(f),
            },
            Self::Unix(socket) => {
                let addr = socket.local_addr().ok();
                match addr.as_ref().and_then(unix::net::SocketAddr::as_pathname) {
                    Some(path) => write!(f, "{UNIX}{}", path.display()),
                    None => unnamed(f),
                }
            }
        }
    }
}

/// The scraper's end of the connection that a request came by; every request has it as an extension.
#[cfg(feature = "scraper")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum LocalAddr {
    Tcp(SocketAddr),
    Unix,
}

/// The address that a request comes from; every request has it as an extension.
#[cfg(feature = "scraper")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddr(pub(crate) IpAddr);

#[cfg(feature = "scraper")]
impl From<SocketAddr> for LocalAddr {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }
}

/// A listening socket, and what its accept loop has in reserve.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) socket: Socket,
    pub(super) spare: SpareFiles,
    /// Whose TLS is spoken, if any.
    #[cfg(feature = "scraper")]
    pub(super) gate: Option<Arc<Gate>>,
}

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    /// Its file, if this process has made it, goes before it: the number of an inode in use is no other one's.
    #[cfg(feature = "scraper")]
    Unix {
        _file: Option<SocketFile>,
        socket: UnixListener,
    },
}

/// A connection that was accepted.
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    #[cfg(feature = "scraper")]
    Unix(UnixStream),
}

impl Listener {
    fn tcp(socket: std::net::TcpListener) -> io::Result<Self> {
        let spare = SpareFiles::of(&socket)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Socket::Tcp(TcpListener::from_std(socket)?),
            spare,
            #[cfg(feature = "scraper")]
            gate: None,
        })
    }
}

#[cfg(feature = "scraper")]
impl Listener {
    /// One that listens at the address.
    pub(crate) async fn bind(addr: &HttpAddr) -> Result<Self, BindError> {
        match addr {
            HttpAddr::Tcp(addr) => bind(addr).await.map(|(listener, _)| listener),
            HttpAddr::Unix(path) => SocketFile::bind(path, SOCKET_MODE)
                .and_then(|(socket, file)| Self::unix(socket, Some(file)))
                .map_err(BindError::at(addr)),
        }
    }

    /// One that listens on this socket.
    pub(crate) fn passed(socket: HttpSocket) -> Result<Self, BindError> {
        let name = socket.to_string();
        let listener = match socket {
            HttpSocket::Tcp(socket) => socket2::SockRef::from(&socket)
                .set_send_buffer_size(SEND_BUFFER as usize)
                .and_then(|()| Self::tcp(socket)),
            HttpSocket::Unix(socket) => Self::unix(socket, None),
        };
        listener.map_err(BindError::at(name))
    }

    fn unix(socket: unix::net::UnixListener, file: Option<SocketFile>) -> io::Result<Self> {
        let spare = SpareFiles::of(&socket)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Socket::Unix { _file: file, socket: UnixListener::from_std(socket)? }, spare, gate: None })
    }

    /// The address of TCP, if it is one.
    pub(crate) fn tcp_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix { .. } => None,
        }
    }

    /// Speaks the gate's TLS.
    pub(crate) fn behind(self, gate: Arc<Gate>) -> Self {
        Self { gate: Some(gate), ..self }
    }
}

impl Socket {
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(socket) => {
                let (stream, from) = socket.accept().await?;
                Ok(Accepted::Tcp(stream, from))
            }
            #[cfg(feature = "scraper")]
            Self::Unix { socket, .. } => Ok(Accepted::Unix(socket.accept().await?.0)),
        }
    }
}

#[cfg(feature = "scraper")]
impl Accepted {
    /// The address it comes from: a Unix socket is this host's.
    pub(super) fn from(&self) -> IpAddr {
        match self {
            Self::Tcp(_, from) => from.ip(),
            Self::Unix(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// The two ends, as the requests of the connection have them. `None` if it is dead already.
    pub(super) fn ends(&self) -> Option<Extensions> {
        let mut ends = Extensions::new();
        ends.insert(match self {
            Self::Tcp(stream, _) => LocalAddr::from(stream.local_addr().ok()?),
            Self::Unix(_) => LocalAddr::Unix,
        });
        ends.insert(ClientAddr(self.from()));
        Some(ends)
    }
}

/// A node asks for no ends.
#[cfg(not(feature = "scraper"))]
impl Accepted {
    pub(super) fn from(&self) -> std::net::IpAddr {
        let Self::Tcp(_, from) = self;
        from.ip()
    }

    pub(super) fn ends(&self) -> Option<Extensions> {
        Some(Extensions::new())
    }
}

/// Opens the listening socket, and returns its address: port 0 takes any free one.
pub(crate) async fn bind(addr: &HostPort) -> Result<(Listener, SocketAddr), BindError> {
    let bound = async {
        let socket = listen((addr.host.as_str(), addr.port)).await?.into_std()?;
        let local = socket.local_addr()?;
        Ok((Listener::tcp(socket)?, local))
    };
    bound.await.map_err(BindError::at(addr))
}

/// Listens on the first of the addresses that can be listened on. Connections inherit the size of the send buffer.
async fn listen(addr: (&str, u16)) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for addr in net::lookup_host(addr).await? {
        let listening = || {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.set_send_buffer_size(SEND_BUFFER)?;
            socket.bind(addr)?;
            socket.listen(BACKLOG)
        };
        match listening() {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(all(test, feature = "scraper"))]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port_or_a_socket() {
        for text in ["127.0.0.1:19960", "[::1]:1", "scraper.example:80", "unix:/run/narthex/http.sock"] {
            assert_eq!(text.parse::<HttpAddr>().expect(text).to_string(), text);
        }
        let socket = HttpAddr::Unix("/run/x".into());
        assert_eq!("unix:///run/x".parse::<HttpAddr>().expect("fine"), socket, "as a URL has it");
        for text in ["unix:", "unix:run/x", "unix://run/x", "unix:/run/", "unix:/a\0b", "/run/x", "Unix:/run/x", "http"]
        {
            text.parse::<HttpAddr>().expect_err(text);
        }
    }
}
