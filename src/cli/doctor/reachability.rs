//! Whether a peer answers at its dial address, over each transport by itself, with the expected key.

use std::{io, time::Duration};

use tokio::{
    net::TcpStream,
    time::{self, Instant},
};

use super::{expected_peer::ExpectedPeer, presence::Presence, report::Check};
use crate::{
    identity::{DialAddress, HostPort, PeerAddr},
    network::{self, ConnectError, LinkTransport},
};

/// Longest wait for a dial, and its repetition. One attempt fails sooner.
const DIAL: Duration = Duration::from_secs(6);
/// Longest wait for a bare TCP connection: a SYN is sent twice within that time.
const TCP_PROBE: Duration = Duration::from_secs(3);

/// Checks the name, TCP and UDP of a peer that has a dial address.
pub(super) async fn reach(presence: &Presence, what: &str, peer: &PeerAddr, expected: ExpectedPeer) -> Vec<Check> {
    let address = match &peer.hint {
        None => return Vec::new(),
        Some(address) if is_indirect(presence, address) => {
            return vec![single_transport(presence, what, peer, address, expected).await];
        }
        Some(address) => address.host_port(),
    };
    let mut checks = Vec::new();
    if address.ip().is_none() {
        let check = resolves(what, address, presence.wait).await;
        let resolved = check.is_ok();
        checks.push(check);
        if !resolved {
            return checks;
        }
    }
    let over = |transport| dial(presence, peer, transport);
    let (tcp, quic) = tokio::join!(
        async {
            match over(LinkTransport::Tcp).await {
                Ok(()) => Ok(()),
                Err(error) => Err((error, probe_tcp(address).await)),
            }
        },
        over(LinkTransport::Quic)
    );
    checks.push(tcp_check(what, address, expected, &tcp, quic.is_ok()));
    checks.push(quic_check(what, address, expected, &quic, tcp.is_ok()));
    checks
}

/// True if a proxy or a reverse proxy is on the way, which may be at fault as well.
pub(super) fn is_indirect(presence: &Presence, address: &DialAddress) -> bool {
    matches!(address, DialAddress::WebSocket(_)) || presence.network.is_proxied(address.host_port())
}

/// The one check of a WebSocket URL, or of an address behind a proxy, whose name may resolve only there.
async fn single_transport(
    presence: &Presence,
    what: &str,
    peer: &PeerAddr,
    address: &DialAddress,
    expected: ExpectedPeer,
) -> Check {
    let (name, transport) = match address {
        DialAddress::HostPort(_) => (format!("{what} TCP"), LinkTransport::Tcp),
        DialAddress::WebSocket(_) => (format!("{what} WebSocket"), LinkTransport::WebSocket),
    };
    let proxy =
        if presence.network.is_proxied(address.host_port()) { ", through the proxy of HTTPS_PROXY" } else { "" };
    match dial(presence, peer, transport).await {
        Ok(()) => Check::ok(name, format!("{address} answers with the right key{proxy}")),
        Err(error) => wrong_key(&name, expected, &error)
            .unwrap_or_else(|| Check::failed(name, error.to_string(), expected.proxy_advice())),
    }
}

/// Dials up to two times, because a lost packet is no fault. The first error stands if there is no time for a second dial.
async fn dial(presence: &Presence, peer: &PeerAddr, transport: LinkTransport) -> Result<(), ConnectError> {
    let wait = DIAL.max(presence.wait);
    let end = Instant::now() + wait;
    let attempt = || time::timeout_at(end, presence.network.connect_over(peer, transport));
    match attempt().await {
        Ok(Err(first @ ConnectError::Unreachable { .. })) => attempt().await.unwrap_or(Err(first)),
        Ok(ended) => ended,
        Err(_) => Err(ConnectError::timed_out(peer.key, wait)),
    }
}

/// The outcome of a bare TCP connection, tried after a failed link.
enum TcpProbe {
    /// A process accepted the connection.
    Open,
    /// No process listens.
    Refused,
    /// No packet came back.
    NoAnswer,
    Other(String),
}

async fn probe_tcp(address: &HostPort) -> TcpProbe {
    match time::timeout(TCP_PROBE, TcpStream::connect((address.host.as_str(), address.port))).await {
        Ok(Ok(_)) => TcpProbe::Open,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => TcpProbe::Refused,
        Ok(Err(error)) if error.kind() != io::ErrorKind::TimedOut => TcpProbe::Other(error.to_string()),
        _ => TcpProbe::NoAnswer,
    }
}

async fn resolves(what: &str, address: &HostPort, wait: Duration) -> Check {
    let (name, host) = (format!("{what} name"), &address.host);
    let advice = || format!("see to the name {host} and to this host's resolver (getent hosts {host})");
    match time::timeout(wait, network::resolve(address)).await {
        Ok(Ok(found)) if !found.is_empty() => {
            let found: Vec<String> = found.iter().map(|at| at.ip().to_string()).collect();
            Check::ok(name, format!("{host} is {}", found.join(", ")))
        }
        Ok(Ok(_)) => Check::failed(name, format!("{host} has no address"), advice()),
        Ok(Err(error)) => Check::failed(name, format!("{host} does not resolve ({error})"), advice()),
        Err(_) => Check::failed(name, format!("{host} does not resolve: the resolver does not answer"), advice()),
    }
}

fn tcp_check(
    what: &str,
    address: &HostPort,
    expected: ExpectedPeer,
    dialled: &Result<(), (ConnectError, TcpProbe)>,
    quic: bool,
) -> Check {
    let name = format!("{what} TCP");
    let (flag, role) = (expected.flag(), expected.role());
    let (error, probe) = match dialled {
        Ok(()) => return Check::ok(name, format!("{address} answers with the right key")),
        Err((error, probe)) => (error, probe),
    };
    if let Some(check) = wrong_key(&name, expected, error) {
        return check;
    }
    if quic {
        let advice =
            format!("UDP is enough to work; let TCP to port {} pass too, for when UDP is blocked", address.port);
        return Check::warning(name, format!("no link to {address} over TCP ({error})"), advice);
    }
    match probe {
        TcpProbe::Open if error.was_cut() => Check::failed(
            name,
            format!("{address} takes connections and ends them ({error})"),
            expected.closed_advice(),
        ),
        TcpProbe::Open => Check::failed(
            name,
            format!("something listens at {address}, but it does not answer as a narthex peer ({error})"),
            format!("see what has that port; give the address of a running narthex {role} with {flag}"),
        ),
        TcpProbe::Refused => Check::failed(
            name,
            format!("nothing listens at {address} (connection refused)"),
            format!("start the narthex {role} there, or mend the address in {flag}"),
        ),
        TcpProbe::NoAnswer => Check::failed(
            name,
            format!("no answer from {address}"),
            format!("is that host up? Let TCP to port {} pass the firewalls on the way", address.port),
        ),
        TcpProbe::Other(reason) => Check::failed(
            name,
            format!("{address} cannot be reached ({reason})"),
            "see to this host's network and routes",
        ),
    }
}

fn quic_check(
    what: &str,
    address: &HostPort,
    expected: ExpectedPeer,
    dialled: &Result<(), ConnectError>,
    tcp: bool,
) -> Check {
    let name = format!("{what} UDP");
    let Err(error) = dialled else { return Check::ok(name, format!("{address} answers with the right key, by QUIC")) };
    if let Some(check) = wrong_key(&name, expected, error) {
        return check;
    }
    let no_answer = || format!("no QUIC answer from {address}");
    if tcp {
        let advice = format!(
            "TCP is enough to work; let UDP to port {} pass too, so that more holes can be punched",
            address.port
        );
        Check::warning(name, no_answer(), advice)
    } else if error.was_cut() {
        Check::failed(name, format!("{address} takes QUIC and ends it ({error})"), expected.closed_advice())
    } else {
        let advice = format!(
            "as for TCP: start the narthex {} there, or let UDP to port {} pass",
            expected.role(),
            address.port
        );
        Check::failed(name, no_answer(), advice)
    }
}

/// The failed check, if a peer with another key answered.
pub(super) fn wrong_key(name: &str, expected: ExpectedPeer, error: &ConnectError) -> Option<Check> {
    let ConnectError::WrongKey { found, .. } = error else { return None };
    Some(Check::failed(name, error.to_string(), expected.wrong_key_advice(found)))
}
