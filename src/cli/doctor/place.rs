//! Whether a peer answers at its place, over each transport by itself, and whether it is who it should be.

use std::{io, time::Duration};

use tokio::{
    net::TcpStream,
    time::{self, Instant},
};

use super::{presence::Presence, report::Check, whose::Whose};
use crate::{
    identity::{DialAddress, HostPort, PeerAddr},
    network::{self, ConnectError, LinkTransport},
};

/// Name, TCP and UDP of a peer with a hint.
pub(super) async fn reach(presence: &Presence, what: &str, peer: &PeerAddr, whose: Whose) -> Vec<Check> {
    let place = match &peer.hint {
        None => return Vec::new(),
        Some(place) if is_indirect(presence, place) => return vec![only_way(presence, what, peer, place, whose).await],
        Some(place) => place.host_port(),
    };
    let mut checks = Vec::new();
    if place.ip().is_none() {
        let check = resolves(what, place, presence.wait).await;
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
                Err(error) => Err((error, knock(place).await)),
            }
        },
        over(LinkTransport::Quic)
    );
    checks.push(tcp_check(what, place, whose, &tcp, quic.is_ok()));
    checks.push(quic_check(what, place, whose, &quic, tcp.is_ok()));
    checks
}

/// True where something stands before the peer that may be at fault as well.
pub(super) fn is_indirect(presence: &Presence, place: &DialAddress) -> bool {
    matches!(place, DialAddress::WebSocket(_)) || presence.network.is_proxied(place.host_port())
}

/// Of a WebSocket, and through a proxy. Its name may mean nothing to us, and more than the peer may be at fault.
async fn only_way(presence: &Presence, what: &str, peer: &PeerAddr, place: &DialAddress, whose: Whose) -> Check {
    let (name, transport) = match place {
        DialAddress::HostPort(_) => (format!("{what} TCP"), LinkTransport::Tcp),
        DialAddress::WebSocket(_) => (format!("{what} WebSocket"), LinkTransport::WebSocket),
    };
    let proxy = if presence.network.is_proxied(place.host_port()) { ", through the proxy of HTTPS_PROXY" } else { "" };
    match dial(presence, peer, transport).await {
        Ok(()) => Check::ok(name, format!("{place} answers with the right key{proxy}")),
        Err(error) => {
            wrong_key(&name, whose, &error).unwrap_or_else(|| Check::failed(name, error.to_string(), whose.way()))
        }
    }
}

/// Tries twice: a lost packet is no fault. What the first attempt met is told if there is no time for the second.
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

/// What a bare TCP connection met, where a link did not come about.
enum Knock {
    /// Somebody accepted it.
    Open,
    /// Nobody listens.
    Refused,
    /// Nothing came back.
    Silent,
    Other(String),
}

async fn knock(place: &HostPort) -> Knock {
    match time::timeout(KNOCK, TcpStream::connect((place.host.as_str(), place.port))).await {
        Ok(Ok(_)) => Knock::Open,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Knock::Refused,
        Ok(Err(error)) if error.kind() != io::ErrorKind::TimedOut => Knock::Other(error.to_string()),
        _ => Knock::Silent,
    }
}

async fn resolves(what: &str, place: &HostPort, wait: Duration) -> Check {
    let (name, host) = (format!("{what} name"), &place.host);
    let advice = || format!("see to the name {host} and to this host's resolver (getent hosts {host})");
    match time::timeout(wait, network::resolve(place)).await {
        Ok(Ok(found)) if !found.is_empty() => {
            let found: Vec<String> = found.iter().map(|at| at.ip().to_string()).collect();
            Check::ok(name, format!("{host} is {}", found.join(", ")))
        }
        Ok(Ok(_)) => Check::failed(name, format!("{host} has no address"), advice()),
        Ok(Err(error)) => Check::failed(name, format!("{host} does not resolve ({error})"), advice()),
        Err(_) => Check::failed(name, format!("{host} does not resolve: the resolver is silent"), advice()),
    }
}

fn tcp_check(
    what: &str,
    place: &HostPort,
    whose: Whose,
    dialled: &Result<(), (ConnectError, Knock)>,
    quic: bool,
) -> Check {
    let name = format!("{what} TCP");
    let (flag, role) = (whose.flag(), whose.role());
    let (error, knock) = match dialled {
        Ok(()) => return Check::ok(name, format!("{place} answers with the right key")),
        Err((error, knock)) => (error, knock),
    };
    if let Some(check) = wrong_key(&name, whose, error) {
        return check;
    }
    if quic {
        let advice = format!("UDP is enough to work; let TCP to port {} pass too, for when UDP is blocked", place.port);
        return Check::warning(name, format!("no link to {place} over TCP ({error})"), advice);
    }
    match knock {
        Knock::Open if error.was_cut() => {
            Check::failed(name, format!("{place} takes connections and ends them ({error})"), whose.cut())
        }
        Knock::Open => Check::failed(
            name,
            format!("something listens at {place}, but it does not speak as a narthex peer ({error})"),
            format!("see what has that port; give the place of a running narthex {role} with {flag}"),
        ),
        Knock::Refused => Check::failed(
            name,
            format!("nothing listens at {place} (connection refused)"),
            format!("start the narthex {role} there, or mend the place in {flag}"),
        ),
        Knock::Silent => Check::failed(
            name,
            format!("no answer from {place}"),
            format!("is that host up? Let TCP to port {} pass the firewalls on the way", place.port),
        ),
        Knock::Other(reason) => Check::failed(
            name,
            format!("{place} cannot be reached ({reason})"),
            "see to this host's network and routes",
        ),
    }
}

fn quic_check(what: &str, place: &HostPort, whose: Whose, dialled: &Result<(), ConnectError>, tcp: bool) -> Check {
    let name = format!("{what} UDP");
    let Err(error) = dialled else { return Check::ok(name, format!("{place} answers with the right key, by QUIC")) };
    if let Some(check) = wrong_key(&name, whose, error) {
        return check;
    }
    let silent = || format!("no QUIC answer from {place}");
    if tcp {
        let advice = format!(
            "TCP is enough to work; let UDP to port {} pass too, so that more holes can be punched",
            place.port
        );
        Check::warning(name, silent(), advice)
    } else if error.was_cut() {
        Check::failed(name, format!("{place} takes QUIC and ends it ({error})"), whose.cut())
    } else {
        let advice =
            format!("as for TCP: start the narthex {} there, or let UDP to port {} pass", whose.role(), place.port);
        Check::failed(name, silent(), advice)
    }
}

/// The check failed because of somebody else's key, if that is why.
pub(super) fn wrong_key(name: &str, whose: Whose, error: &ConnectError) -> Option<Check> {
    let ConnectError::WrongKey { found, .. } = error else { return None };
    Some(Check::failed(name, error.to_string(), whose.other_key(found)))
}

/// Longer than one attempt takes to fail.
const DIAL: Duration = Duration::from_secs(6);
const KNOCK: Duration = Duration::from_secs(3);
