//! Beside Prometheus: the scraper's files, its HTTP side, its ports, and how others get to it.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use http::Uri;

use super::{
    clock::{self, Told},
    files, lookup, nat, node, place,
    presence::Presence,
    registering,
    report::{Check, Checks, Report},
    running::Running,
    whose::Whose,
};
use crate::{
    identity::{HostPort, PeerAddr, PublicKey, SharedSecret},
    network::Whereabouts,
    wire::Alias,
};

/// What a scraper was given.
pub(super) struct ScraperSide {
    /// For each answer.
    pub(super) wait: Duration,
    pub(super) key_file: PathBuf,
    pub(super) secret_files: Vec<PathBuf>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) http: Uri,
    pub(super) listen: Vec<HostPort>,
    pub(super) nodes: Vec<PeerAddr>,
    pub(super) aliases: Vec<Alias>,
}

impl ScraperSide {
    pub(super) async fn examine(&self, report: &mut Report) -> anyhow::Result<()> {
        let (check, key) = files::key(&self.key_file);
        report.add(check)?;
        let key = key.map(|key| key.public());
        let mut secrets = Vec::new();
        for file in &self.secret_files {
            let (check, secret) = files::secret(file);
            report.add(check)?;
            secrets.push(secret);
        }
        let running = Running::at(self.http.clone(), self.wait);
        let healthy = running.healthy().await;
        let runs = healthy.is_ok();
        report.add(files::data_dir(self.data_dir.as_deref(), runs))?;
        report.add(healthy)?;
        let presence = Presence::start(&self.nodes, false, None, self.wait).await?;
        let mut checks: Vec<Checks<'_>> = Vec::new();
        if runs {
            checks.extend(running.checks());
        } else {
            checks.push(Box::pin(async { ["ready", "/sd"].map(|name| Check::skipped(name, NOT_RUNNING)).into() }));
        }
        for place in &self.listen {
            let presence = &presence;
            checks.push(Box::pin(async move {
                match key {
                    Some(key) if runs => answers(presence, place, key).await,
                    _ => vec![bindable(place)],
                }
            }));
        }
        checks.extend(node::checks(&presence));
        report.add_all(checks).await?;
        let told = self.secrets(report, &presence, key.filter(|_| runs), &secrets).await?;
        report.add(nat::kind(&presence).await)?;
        let found = self.announcement(report, &presence, key).await?;
        report.add(self.relays(&presence, runs.then_some(&running), found.as_ref()).await)?;
        report.add(clock::check(
            told,
            found.as_ref(),
            "the nodes have taken the scraper's announcement: theirs agree to an hour",
        ))?;
        let aliases = if runs {
            running.aliases(&self.aliases).await
        } else {
            ["aliases", "pull"].map(|name| Check::skipped(name, NOT_RUNNING)).into()
        };
        aliases.into_iter().try_for_each(|check| report.add(check))?;
        report.add(nat::dial_back(&presence).await)?;
        presence.end().await;
        Ok(())
    }

    /// Whether the running scraper holds the secrets, asked as a client would. Tells its time as well.
    async fn secrets(
        &self,
        report: &mut Report,
        presence: &Presence,
        running: Option<PublicKey>,
        secrets: &[Option<SharedSecret>],
    ) -> anyhow::Result<Option<Told>> {
        let linked = running.filter(|key| presence.network.links().path(key).is_some());
        let mut told = None;
        for (file, secret) in self.secret_files.iter().zip(secrets) {
            let name = match self.secret_files.len() {
                1 => "secret".to_owned(),
                _ => format!("secret {}", file.display()),
            };
            let (Some(key), Some(secret)) = (linked, secret) else {
                let detail = "not compared with the scraper's: it takes a running one that answers at --listen";
                report.add(Check::skipped(name, detail))?;
                continue;
            };
            let (check, channel) = registering::handshake(presence, name, &key, Whose::Own, secret).await;
            report.add(check)?;
            if let Some(channel) = channel {
                told = told.or(registering::aliases(channel, self.wait, Alias::to_string, None, &[]).await.1);
            }
        }
        Ok(told)
    }

    /// Whether clients find the scraper by its key, and at places that they can reach.
    async fn announcement(
        &self,
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

    /// The relays that the running scraper has, or whether one could be had.
    async fn relays(&self, presence: &Presence, running: Option<&Running>, found: Option<&Whereabouts>) -> Check {
        let name = "relays";
        if self.nodes.is_empty() {
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
}

/// How many nodes would relay for us.
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

/// The scraper's own key must answer at its port.
async fn answers(presence: &Presence, place: &HostPort, key: PublicKey) -> Vec<Check> {
    let host = match place.ip() {
        Some(ip) if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        Some(ip) if ip.is_unspecified() => "::1".to_owned(),
        _ => place.host.clone(),
    };
    if lacks(place) {
        return vec![Check::skipped(format!("port {place}"), "this host has no such addresses")];
    }
    presence.network.links().keep(key);
    place::reach(presence, &format!("port {place}"), &PeerAddr::at(key, host, place.port), Whose::Own).await
}

/// The port must be free for a scraper that is to start.
fn bindable(place: &HostPort) -> Check {
    let name = format!("port {place}");
    if lacks(place) {
        return Check::skipped(name, "this host has no such addresses");
    }
    let at = (place.host.as_str(), place.port);
    let bound = TcpListener::bind(at).map_err(|error| ("TCP", error)).and_then(|_| {
        UdpSocket::bind(at).map_err(|error| ("UDP", error))?;
        Ok(())
    });
    match bound {
        Ok(()) => Check::ok(name, "free, for TCP and UDP"),
        Err((transport, error)) => Check::failed(
            name,
            format!("cannot be listened on ({transport}: {error}), and no scraper of ours answers"),
            "end what has the port (ss -lntup), or give the scraper another --listen",
        ),
    }
}

/// True for every address of a family that this host does not have.
fn lacks(place: &HostPort) -> bool {
    let unspecified = place.ip().filter(|ip| ip.is_unspecified());
    let Some(Err(error)) = unspecified.map(|ip| UdpSocket::bind((ip, 0))) else { return false };
    error.kind() != io::ErrorKind::PermissionDenied
}

const NOT_RUNNING: &str = "no scraper answers";
const RELAY_ADVICE: &str = "start a narthex node with --relay on a public address and give it to the scraper with \
                            --bootstrap, or forward a port to the scraper and start it with --external HOST:PORT";
