//! The checks beside Prometheus: the scraper's files, HTTP side and ports, and how peers reach the scraper.

use std::{
    io,
    net::{TcpListener, UdpSocket},
};

use anyhow::Context;

use super::{
    Flags,
    clock::{self, PeerTime},
    expected_peer::ExpectedPeer,
    files, lookup, nat, node,
    presence::Presence,
    reachability, registering,
    report::{Check, Checks, Report},
    running_scraper::RunningScraper,
    store,
};
use crate::{
    identity::{HostPort, PeerAddr, PublicKey, SharedSecret},
    nats::NatsConfig,
    network::Whereabouts,
    wire::Alias,
};

/// Why checks of a running scraper are skipped.
const NOT_RUNNING: &str = "no scraper answers";
/// Advice for a scraper that peers outside its network cannot reach.
const RELAY_ADVICE: &str = "start a narthex node with --relay on a public address and give it to the scraper with \
                            --bootstrap, or forward a port to the scraper and start it with --external HOST:PORT";

/// Makes the checks of a scraper with these flags.
pub(super) async fn examine(
    flags: &Flags,
    shared_store: Option<&NatsConfig>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (check, key) = files::key(&flags.scraper_key().context("no key is given")?);
    report.add(check)?;
    let key = key.map(|key| key.public());
    let mut secrets = Vec::new();
    for file in &flags.secret_file {
        let (check, secret) = files::secret(file);
        report.add(check)?;
        secrets.push(secret);
    }
    let running = RunningScraper::at(flags.http.clone(), flags.timeout, flags.credentials.clone());
    let healthy = running.healthy().await;
    let runs = healthy.is_ok();
    report.add(files::data_dir(flags.data_dir.as_deref(), runs))?;
    report.add(healthy)?;
    let presence = Presence::start(&flags.bootstrap, false, None, flags.timeout).await?;
    let mut checks: Vec<Checks<'_>> = Vec::new();
    if let Some(config) = shared_store {
        checks.push(Box::pin(async { vec![store::reachable(config, flags.timeout).await] }));
    }
    if runs {
        checks.extend(running.checks());
    } else {
        checks.push(Box::pin(async { ["ready", "/sd"].map(|name| Check::skipped(name, NOT_RUNNING)).into() }));
    }
    for address in &flags.listen {
        let presence = &presence;
        checks.push(Box::pin(async move {
            match key {
                Some(key) if runs => answers(presence, address, key).await,
                _ => vec![bindable(address)],
            }
        }));
    }
    checks.extend(node::checks(&presence));
    report.add_all(checks).await?;
    let peer_time = flags.secrets(report, &presence, key.filter(|_| runs), &secrets).await?;
    report.add(nat::kind(&presence).await)?;
    let found = announcement(report, &presence, key).await?;
    report.add(relays(&presence, runs.then_some(&running), found.as_ref()).await)?;
    report.add(clock::check(
        peer_time,
        found.as_ref(),
        "the nodes have taken the scraper's announcement: theirs agree to an hour",
    ))?;
    let aliases = if runs {
        running.aliases(&flags.alias).await
    } else {
        ["aliases", "pull"].map(|name| Check::skipped(name, NOT_RUNNING)).into()
    };
    aliases.into_iter().try_for_each(|check| report.add(check))?;
    report.add(nat::dial_back(&presence).await)?;
    presence.end().await;
    Ok(())
}

impl Flags {
    /// Whether the running scraper holds the secrets, asked as a client asks; and the scraper's time.
    async fn secrets(
        &self,
        report: &mut Report,
        presence: &Presence,
        running: Option<PublicKey>,
        secrets: &[Option<SharedSecret>],
    ) -> anyhow::Result<Option<PeerTime>> {
        if self.secret_file.is_empty() {
            report.add(Check::skipped("secret", "no file is given: narthex ticket list shows who may join"))?;
        }
        let linked = running.filter(|key| presence.network.links().path(key).is_some());
        let mut peer_time = None;
        for (file, secret) in self.secret_file.iter().zip(secrets) {
            let name = match self.secret_file.len() {
                1 => "secret".to_owned(),
                _ => format!("secret {}", file.display()),
            };
            let (Some(key), Some(secret)) = (linked, secret) else {
                let detail = "not compared with the scraper's: it takes a running one that answers at --listen";
                report.add(Check::skipped(name, detail))?;
                continue;
            };
            let (check, channel) =
                registering::handshake(presence, name, &key, ExpectedPeer::LocalScraper, secret).await;
            report.add(check)?;
            if let Some(channel) = channel {
                peer_time =
                    peer_time.or(registering::aliases(channel, self.timeout, Alias::to_string, None, &[]).await.1);
            }
        }
        Ok(peer_time)
    }
}

/// Whether clients find the scraper by its key, and at addresses that they can reach.
async fn announcement(
    report: &mut Report,
    presence: &Presence,
    key: Option<PublicKey>,
) -> anyhow::Result<Option<Whereabouts>> {
    let name = "announcement";
    let Some(key) = key else {
        report.add(Check::skipped(name, "it takes the scraper's key"))?;
        return Ok(None);
    };
    let (check, found) = lookup::find(presence, name.to_owned(), &key).await;
    report.add(check)?;
    if let Some(found) = &found {
        report.add(reachable(found))?;
    }
    Ok(found)
}

/// The relays of the running scraper, or whether a relay would accept a scraper.
async fn relays(presence: &Presence, running: Option<&RunningScraper>, found: Option<&Whereabouts>) -> Check {
    let name = "relays";
    if presence.nodes.is_empty() {
        return Check::skipped(name, "without --bootstrap there is none");
    }
    if !presence.reaches_a_node() {
        return Check::skipped(name, "no bootstrap node answers");
    }
    let (held, what) = match running {
        Some(running) => match running.relays().await {
            Ok(held) => (held, "the running scraper can be reached through"),
            Err(error) => return Check::failed(name, format!("{error:#}"), "see the scraper's log"),
        },
        None => (granted(presence).await, "a scraper could be reached through"),
    };
    if held > 0 {
        Check::ok(name, format!("{what} {held}"))
    } else if found.is_some_and(|found| found.public > 0) {
        Check::ok(name, "none, and none is needed where the announced public address can be reached")
    } else {
        Check::warning(name, format!("there is none that {what}"), RELAY_ADVICE)
    }
}

/// How many nodes grant a reservation.
async fn granted(presence: &Presence) -> u64 {
    let asked = presence.nodes.iter().map(|node| presence.network.try_reservation(node.key));
    futures::future::join_all(asked).await.into_iter().filter(Result::is_ok).count() as u64
}

fn reachable(found: &Whereabouts) -> Check {
    let name = "announced addresses";
    match found {
        Whereabouts { public: 0, relayed: 0, .. } => Check::warning(
            name,
            "only private ones: enough inside this network, peers outside of it cannot reach the scraper",
            RELAY_ADVICE,
        ),
        Whereabouts { public: 0, .. } => Check::ok(name, "through relays, and inside this network"),
        Whereabouts { .. } => Check::ok(name, "public ones; a firewall before them is not seen from here"),
    }
}

/// Checks that the scraper's own key answers at its port.
async fn answers(presence: &Presence, address: &HostPort, key: PublicKey) -> Vec<Check> {
    let host = match address.ip() {
        Some(ip) if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        Some(ip) if ip.is_unspecified() => "::1".to_owned(),
        _ => address.host.clone(),
    };
    if lacks(address) {
        return vec![Check::skipped(format!("port {address}"), "this host has no such addresses")];
    }
    presence.network.links().keep(key);
    reachability::reach(
        presence,
        &format!("port {address}"),
        &PeerAddr::at(key, host, address.port),
        ExpectedPeer::LocalScraper,
    )
    .await
}

/// Checks that the port is free for a scraper that starts later.
fn bindable(address: &HostPort) -> Check {
    let name = format!("port {address}");
    if lacks(address) {
        return Check::skipped(name, "this host has no such addresses");
    }
    let at = (address.host.as_str(), address.port);
    let bound = TcpListener::bind(at).map_err(|error| ("TCP", error)).and_then(|_| {
        UdpSocket::bind(at).map_err(|error| ("UDP", error))?;
        Ok(())
    });
    match bound {
        Ok(()) => Check::ok(name, "free, for TCP and UDP"),
        Err((transport, error)) => Check::failed(
            name,
            format!("cannot be listened on ({transport}: {error}), and no running scraper answers"),
            "end what has the port (ss -lntup), or give the scraper another --listen",
        ),
    }
}

/// True if the address means every address of a family that this host does not have.
fn lacks(address: &HostPort) -> bool {
    let unspecified = address.ip().filter(|ip| ip.is_unspecified());
    let Some(Err(error)) = unspecified.map(|ip| UdpSocket::bind((ip, 0))) else { return false };
    error.kind() != io::ErrorKind::PermissionDenied
}
