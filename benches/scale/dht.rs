//! The DHT: what a scraper's announcement and a client's look-up carry at the nodes.

use std::{collections::HashMap, fmt, time::Duration};

use narthex::{Client, KeyPair, PeerAddr, SharedSecret, client::EventKind, identity};
use tokio::time::{Instant, sleep};

use crate::{
    BoxError,
    processes::{Child, get, node, scraper},
    snapshot::sample,
    sockets::{Role, Sockets, Traffic, Volume},
};

/// Between two looks at the sockets.
const LOOK: Duration = Duration::from_millis(250);
/// Looks around one at which an announcement was new that count as its own.
const AROUND: usize = 4;

/// Measures `length` of a scraper that is announced to a chain of nodes, and some look-ups.
pub(crate) async fn measure(nodes: usize, length: Duration, lookups: usize) -> Result<(), BoxError> {
    let directory = tempfile::Builder::new().prefix("narthex-bench-").tempdir()?;
    let path = directory.path();
    let secret = SharedSecret::generate();
    identity::create_secret(&path.join("secret"), &secret)?;
    let mut chain: Vec<Child> = Vec::new();
    for number in 0..nodes {
        let bootstrap = chain.last().map(|last| Ok::<_, BoxError>(format!("--bootstrap={}", last.peer()?))).transpose()?;
        chain.push(node(path, &format!("node-{number}"), &bootstrap.as_deref().into_iter().collect::<Vec<_>>()).await?);
    }
    let last = chain.last().ok_or("no node")?.peer()?;
    let scraper = scraper(path, "scraper", &[&format!("--bootstrap={last}"), "--log-level=warn"]).await?;
    let mut roles: HashMap<u32, Role> = chain.iter().map(|node| (node.id(), Role::Node)).collect();
    roles.extend([(scraper.id(), Role::Scraper), (std::process::id(), Role::Clients)]);
    let ports: Vec<u16> = chain.iter().map(|node| node.p2p.port()).collect();
    let mut sockets = Sockets::new(&ports, roles);
    while stored(&chain).await? < nodes as f64 {
        sleep(LOOK).await;
    }
    sleep(Duration::from_secs(10)).await; // the nodes get to know each other
    announcements(&chain, &mut sockets, length).await?;

    let key = PeerAddr::from(scraper.peer()?.key);
    let before = sockets.traffic()?;
    let asked = answered(&chain).await?;
    for number in 0..lookups {
        let client = Client::builder(key.clone(), secret.clone()).key(KeyPair::generate()).bootstrap([last.clone()]);
        let client = client.alias(format!("c{number}")).metrics(|| Ok::<_, fmt::Error>("m 1\n".to_owned()));
        let client = client.start().await?;
        let mut events = client.events();
        while !matches!(events.recv().await?.kind, EventKind::Registered { .. }) {
            sockets.traffic()?;
        }
        sleep(LOOK).await;
        sockets.traffic()?;
        client.shutdown().await;
    }
    let found = sockets.traffic()?.since(&before);
    let each = |volume: Volume| format!("{:.0} bytes, {:.1} messages", volume.bytes / lookups as f64, volume.messages / lookups as f64);
    println!("a look-up by a client that was given the key and a node, with the connections for it:");
    println!("  client to nodes: {}, {:.1} connections", each(found.from_to(Role::Clients, Role::Node)), found.from_to(Role::Clients, Role::Node).sockets / lookups as f64);
    println!("  nodes to client: {}", each(found.from_to(Role::Node, Role::Clients)));
    println!("  questions that nodes answered: {:.1}", (answered(&chain).await? - asked) / lookups as f64);
    Ok(())
}

/// Tells what belongs to announcements from what the links cost by themselves.
async fn announcements(chain: &[Child], sockets: &mut Sockets, length: Duration) -> Result<(), BoxError> {
    let began = Instant::now();
    let (mut looks, mut last) = (Vec::new(), (sockets.traffic()?, stored(chain).await?));
    while began.elapsed() < length {
        sleep(LOOK).await;
        let now = (sockets.traffic()?, stored(chain).await?);
        looks.push((now.0.since(&last.0), now.1 - last.1));
        last = now;
    }
    let is_announcing = |at: usize| looks[at.saturating_sub(AROUND)..looks.len().min(at + AROUND + 1)].iter().any(|look| look.1 > 0.0);
    let seconds = began.elapsed().as_secs_f64() / looks.len() as f64;
    let taken: f64 = looks.iter().map(|look| look.1).sum();
    let count = taken / chain.len() as f64;
    println!("{} nodes, a scraper, {length:?}: {count} announcements", chain.len());
    for (what, from, to) in [("scraper to nodes", Role::Scraper, Role::Node), ("nodes to scraper", Role::Node, Role::Scraper), ("between nodes", Role::Node, Role::Node)] {
        let total = |looks: &mut dyn Iterator<Item = &(Traffic, f64)>| {
            looks.fold((Volume::default(), 0.0), |(mut sum, count), (traffic, _)| {
                sum += traffic.from_to(from, to);
                (sum, count + 1.0)
            })
        };
        let (busy, busy_looks) = total(&mut (0..looks.len()).filter(|&at| is_announcing(at)).map(|at| &looks[at]));
        let (quiet, quiet_looks) = total(&mut (0..looks.len()).filter(|&at| !is_announcing(at)).map(|at| &looks[at]));
        let an_hour = 3600.0 / seconds / f64::max(quiet_looks, 1.0);
        println!(
            "  {what}: an announcement {:.0} bytes, {:.1} messages; else {:.0} bytes, {:.0} messages an hour",
            (busy.bytes - quiet.bytes / quiet_looks * busy_looks) / count,
            (busy.messages - quiet.messages / quiet_looks * busy_looks) / count,
            quiet.bytes * an_hour,
            quiet.messages * an_hour,
        );
    }
    Ok(())
}

/// Announcements that nodes have taken, together.
async fn stored(chain: &[Child]) -> Result<f64, BoxError> {
    sum(chain, &["narthex_dht_records_stored_total"]).await
}

/// Look-ups that nodes have answered, together.
async fn answered(chain: &[Child]) -> Result<f64, BoxError> {
    let name = |outcome: &str| format!("narthex_dht_lookups_total{{outcome=\"{outcome}\"}}");
    sum(chain, &[&name("found"), &name("missed")]).await
}

async fn sum(chain: &[Child], names: &[&str]) -> Result<f64, BoxError> {
    let mut all = 0.0;
    for node in chain {
        let samples = get(node.http, "/metrics").await?.1;
        all += names.iter().map(|name| sample(&samples, name)).sum::<f64>();
    }
    Ok(all)
}
