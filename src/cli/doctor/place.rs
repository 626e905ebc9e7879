//! Whether a peer answers at its place, over each transport by itself, and whether it is who it should be.

use std::{io, time::Duration};

use tokio::{net::TcpStream, time};

use super::{presence::Presence, report::Check};
use crate::{
    identity::{HostPort, PeerAddr, Place},
    network::{self, ConnectError, LinkTransport},
};

/// Name, TCP and UDP of a peer with a hint.
pub(super) async fn reach(presence: &Presence, what: &str, peer: &PeerAddr, whose: &Whose) -> Vec<Check> {
    let place = match &peer.hint {
        None => return Vec::new(),
        Some(Place::HostPort(at)) if !presence.network.is_proxied(at) => at,
        Some(place) => return vec![only_way(presence, what, peer, place, whose).await],
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
    checks.push(tcp_check(what, place, whose, &tcp));
    checks.push(quic_check(what, place, whose, &quic, tcp.is_ok()));
    checks
}

/// Of a WebSocket, and through a proxy. Its name may mean nothing to us, and more than the peer may be at fault.
async fn only_way(presence: &Presence, what: &str, peer: &PeerAddr, place: &Place, whose: &Whose) -> Check {
    let (name, transport) = match place {
        Place::HostPort(_) => (format!("{what} TCP"), LinkTransport::Tcp),
        Place::WebSocket(_) => (format!("{what} WebSocket"), LinkTransport::WebSocket),
    };
    let proxy = if presence.network.is_proxied(place.at()) { ", through the proxy of HTTPS_PROXY" } else { "" };
    match dial(presence, peer, transport).await {
        Ok(()) => Check::ok(name, format!("{place} answers with the right key{proxy}")),
        Err(error) => wrong_key(&name, whose, &error).unwrap_or_else(|| {
            let advice = format!(
                "see to the proxy of HTTPS_PROXY if there is one, to what passes requests on to the {} (its upgrade, its certificate), and to the {} itself",
                whose.role, whose.role
            );
            Check::failed(name, error.to_string(), advice)
        }),
    }
}

/// Tries twice: a lost packet is no fault.
async fn dial(presence: &Presence, peer: &PeerAddr, transport: LinkTransport) -> Result<(), ConnectError> {
    let attempts = async {
        match presence.network.connect_over(peer, transport).await {
            Err(ConnectError::Unreachable { .. }) => presence.network.connect_over(peer, transport).await,
            ended => ended,
        }
    };
    let silent = || ConnectError::Unreachable { peer: peer.key, reasons: "no answer in time".to_owned() };
    time::timeout(DIAL.max(presence.wait), attempts).await.unwrap_or_else(|_| Err(silent()))
}

/// Words for advice on a peer.
pub(super) struct Whose {
    /// The flag that names it.
    pub(super) flag: &'static str,
    /// What should be running there.
    pub(super) role: &'static str,
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

fn tcp_check(what: &str, place: &HostPort, whose: &Whose, dialled: &Result<(), (ConnectError, Knock)>) -> Check {
    let name = format!("{what} TCP");
    let Whose { flag, role } = whose;
    let (error, knock) = match dialled {
        Ok(()) => return Check::ok(name, format!("{place} answers with the right key")),
        Err((error, knock)) => (error, knock),
    };
    if let Some(check) = wrong_key(&name, whose, error) {
        return check;
    }
    match knock {
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

fn quic_check(what: &str, place: &HostPort, whose: &Whose, dialled: &Result<(), ConnectError>, tcp: bool) -> Check {
    let name = format!("{what} UDP");
    let Err(error) = dialled else { return Check::ok(name, format!("{place} answers with the right key, by QUIC")) };
    if let Some(check) = wrong_key(&name, whose, error) {
        return check;
    }
    let advice = if tcp {
        format!("TCP is enough to work; let UDP to port {} pass too, so that more holes can be punched", place.port)
    } else {
        format!("as for TCP: start the narthex {} there, or let UDP to port {} pass", whose.role, place.port)
    };
    Check::failed(name, format!("no QUIC answer from {place}"), advice)
}

fn wrong_key(name: &str, whose: &Whose, error: &ConnectError) -> Option<Check> {
    let ConnectError::WrongKey { peer, address, found } = error else { return None };
    let detail = format!("{address} answered with another key: expected {peer}, found {found}");
    let advice =
        format!("if that is the {} you mean, give {found} with {}; else mend the place", whose.role, whose.flag);
    Some(Check::failed(name, detail, advice))
}

/// Longer than one attempt takes to fail.
const DIAL: Duration = Duration::from_secs(6);
const KNOCK: Duration = Duration::from_secs(3);
