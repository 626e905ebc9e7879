//! The DHT: what a scraper's announcement and a client's look-up carry at the nodes.
//!
//! Peers link nodes over TCP and QUIC. So all runs in a network namespace of its own, which ends with the processes in it, where
//! nftables counts the packets to and from the nodes, headers included.

mod counters;

use std::{env, fmt, process::Command, time::Duration};

use narthex::{Client, KeyPair, PeerAddr, SharedSecret, client::EventKind, identity};
use tokio::time::{Instant, sleep};

use crate::{
    BoxError,
    processes::{Child, get, node, scraper},
    snapshot::sample,
};
use counters::{Counters, Volume};

/// Between two looks at the counters.
const LOOK: Duration = Duration::from_millis(250);
/// Looks around one at which an announcement was new that count as its own.
const AROUND: usize = 4;
/// In which nodes get to know each other.
const SETTLED: Duration = Duration::from_secs(20);

/// Runs this program again with the flag `--inside`, in a namespace of its own. Wants root.
pub(crate) fn in_a_namespace() -> Result<(), BoxError> {
    let mut unshare = Command::new("unshare");
    let ended = unshare.arg("--net").arg(env::current_exe()?).args(env::args_os().skip(1)).arg("--inside").status()?;
    if ended.success() { Ok(()) } else { Err(format!("in the namespace: {ended}").into()) }
}

/// Measures `length` of a scraper that is announced to a chain of nodes, and some look-ups.
pub(crate) async fn measure(nodes: usize, length: Duration, lookups: usize) -> Result<(), BoxError> {
    if !Command::new("ip").args(["link", "set", "lo", "up"]).status()?.success() {
        return Err("the namespace's loopback is not up".into());
    }
    let directory = tempfile::Builder::new().prefix("narthex-bench-").tempdir()?;
    let path = directory.path();
    let secret = SharedSecret::generate();
    identity::create_secret(&path.join("secret"), &secret)?;
    let mut chain: Vec<Child> = Vec::new();
    for number in 0..nodes {
        let bootstrap =
            chain.last().map(|last| Ok::<_, BoxError>(format!("--bootstrap={}", last.peer()?))).transpose()?;
        chain.push(node(path, &format!("node-{number}"), &bootstrap.as_deref().into_iter().collect::<Vec<_>>()).await?);
    }
    let last = chain.last().ok_or("no node")?.peer()?;
    let scraper = scraper(path, "scraper", &[&format!("--bootstrap={last}"), "--log-level=warn"]).await?;
    let counters = Counters::new(&chain.iter().map(|node| node.p2p.port()).collect::<Vec<_>>())?;
    while stored(&chain).await? < nodes as f64 {
        sleep(LOOK).await;
    }
    sleep(SETTLED).await;
    let quiet = announcements(&chain, &counters, length).await?;

    let key = PeerAddr::from(scraper.peer()?.key);
    let (before, began, asked) = (counters.read()?, Instant::now(), answered(&chain).await?);
    for number in 0..lookups {
        let client = Client::builder(key.clone(), secret.clone()).key(KeyPair::generate()).bootstrap([last.clone()]);
        let client = client.alias(format!("c{number}")).metrics(|| Ok::<_, fmt::Error>("m 1\n".to_owned()));
        let client = client.start().await?;
        let mut events = client.events();
        while !matches!(events.recv().await?.kind, EventKind::Registered { .. }) {}
        client.shutdown().await;
    }
    let found = counters.read()?.since(before).less(quiet, began.elapsed());
    println!(
        "a look-up by a client that was given the key and a node, with its connections: {}",
        found.each(lookups as f64)
    );
    println!("questions that nodes answered: {:.1}", (answered(&chain).await? - asked) / lookups as f64);
    Ok(())
}

/// Tells what belongs to announcements from what the links carry by themselves, and returns the latter, a second.
async fn announcements(chain: &[Child], counters: &Counters, length: Duration) -> Result<Volume, BoxError> {
    let began = Instant::now();
    let (mut looks, mut last) = (Vec::new(), (counters.read()?, stored(chain).await?));
    while began.elapsed() < length {
        sleep(LOOK).await;
        let now = (counters.read()?, stored(chain).await?);
        looks.push((now.0.since(last.0), now.1 - last.1));
        last = now;
    }
    let near = |at: usize| at.saturating_sub(AROUND)..looks.len().min(at + AROUND + 1);
    let is_announcing = |at: &usize| looks[near(*at)].iter().any(|look| look.1 > 0.0);
    let (busy, quiet): (Vec<usize>, Vec<usize>) = (0..looks.len()).partition(is_announcing);
    let sum = |of: &[usize]| of.iter().fold(Volume::default(), |sum, &at| sum.with(looks[at].0));
    let look = began.elapsed() / u32::try_from(looks.len())?;
    let quiet = sum(&quiet).each_of(quiet.len() as f64 * look.as_secs_f64());
    let count = looks.iter().map(|look| look.1).sum::<f64>() / chain.len() as f64;
    let announced = sum(&busy).less(quiet, look * u32::try_from(busy.len())?);
    println!("{} nodes, a scraper, {length:?}: {count} announcements", chain.len());
    println!("an announcement: {}", announced.each(count));
    println!("the links without it, an hour: {}", quiet.each(1.0 / 3600.0));
    Ok(quiet)
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
