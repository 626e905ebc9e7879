//! One group: it starts, is registered with, is renewed, and is scraped.

use std::{path::Path, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use narthex::{SharedSecret, identity};
use tokio::time::{Instant, sleep};

use crate::{
    Args, BoxError,
    clients::alias,
    process,
    processes::{Child, get, nats_server, scraper},
    snapshot::{Observed, Scraper, Snapshot},
    sockets::Role,
};

/// Processes that the clients are spread over.
const PROCESSES: usize = 2;
/// How long the group is watched without clients.
const IDLE: Duration = Duration::from_secs(60);
/// Scrapes in flight at each scraper.
const AT_ONCE: usize = 2;
/// After which a group counts as lost.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn measure(args: &Args, scrapers: usize) -> Result<(), BoxError> {
    let directory = tempfile::Builder::new().prefix("narthex-bench-").tempdir()?;
    let path = directory.path();
    let secret = SharedSecret::generate();
    identity::create_secret(&path.join("secret"), &secret)?;
    let (nats, url, monitor) = nats_server(&args.nats_server, path).await?;
    let group = start(args, scrapers, path, &url).await?;
    let waiting: Vec<process::Child> = Vec::new();
    let mut observed = Observed::new(&group, &nats, monitor, waiting.iter().map(process::Child::id));
    let started = observed.snapshot().await?;
    sleep(IDLE).await;
    let idle = observed.snapshot().await?;

    let clients = clients(args, &group, &secret)?;
    let mut observed = Observed::new(&group, &nats, monitor, clients.iter().map(process::Child::id));
    clients.iter().try_for_each(|child| child.ready::<1>().map(drop))?;
    let all_links = (args.clients * scrapers.min(2) + scrapers * (scrapers - 1)) as f64;
    let count = (args.clients * args.aliases) as f64;
    until(&group, |all| {
        let sum = |of: fn(&Scraper) -> f64| all.iter().map(of).sum::<f64>();
        sum(|one| one.links) >= all_links
            && sum(|one| one.claims) >= count * scrapers.min(2) as f64
            && all.iter().all(|one| one.aliases == count)
    })
    .await?;
    let registered = observed.snapshot().await?;

    sleep(args.lease * args.leases).await;
    let renewed = observed.snapshot().await?;

    let mut scrapes = vec![renewed];
    for number in 0..args.scraped {
        let aliases = (0..args.clients).map(|client| alias(client, number));
        let targets = aliases.flat_map(|alias| group.iter().map(move |scraper| (scraper.http, alias.clone())));
        let scraping = stream::iter(targets).map(|(http, alias)| async move {
            match get(http, &format!("/scrape/{alias}/metrics")).await? {
                (200, body) if body.len() == args.body => Ok(()),
                (status, body) => Err::<_, BoxError>(format!("{alias}: {status} {body:?}").into()),
            }
        });
        scraping.buffer_unordered(AT_ONCE * scrapers).try_collect::<Vec<()>>().await?;
        sleep(Duration::from_secs(1)).await; // acknowledgements
        scrapes.push(observed.snapshot().await?);
    }
    println!("## {scrapers} scrapers, {} clients of {} aliases", args.clients, args.aliases);
    raw("idle", &started, &idle);
    raw("registered", &idle, &registered);
    raw("renewed", &registered, &scrapes[0]);
    for pair in scrapes.windows(2) {
        raw("scraped", &pair[0], &pair[1]);
    }
    Ok(())
}

fn raw(what: &str, before: &Snapshot, after: &Snapshot) {
    let traffic = after.traffic.since(&before.traffic);
    println!("{what}: {:?}", after.at - before.at);
    println!("  nats: {:?} -> {:?}", before.nats, after.nats);
    for (one, other) in [
        (Role::Scraper, Role::Nats),
        (Role::Nats, Role::Scraper),
        (Role::Scraper, Role::Scraper),
        (Role::Scraper, Role::Clients),
        (Role::Clients, Role::Scraper),
    ] {
        println!("  {one:?} -> {other:?}: {:?}", traffic.from_to(one, other));
    }
    for (before, after) in before.scrapers.iter().zip(&after.scrapers) {
        println!(
            "  links {} members {} claims {} forwards {} cpu {:?} memory {}",
            after.links,
            after.members,
            after.claims - before.claims,
            after.forwards - before.forwards,
            after.cpu - before.cpu,
            after.memory_kib
        );
    }
}

async fn start(args: &Args, scrapers: usize, path: &Path, url: &str) -> Result<Vec<Child>, BoxError> {
    let flags = [
        format!("--store={url}"),
        format!("--lease={}", humantime::format_duration(args.lease)),
        "--log-level=warn".to_owned(),
        "--max-connections-per-private-ip=16000".to_owned(), // all clients have one address
    ];
    let mut group = Vec::new();
    for number in 0..scrapers {
        group.push(scraper(path, &format!("scraper-{number}"), &flags.each_ref().map(String::as_str)).await?);
    }
    until(&group, |all| all.iter().all(|one| one.members == (scrapers - 1) as f64)).await?;
    Ok(group)
}

fn clients(args: &Args, group: &[Child], secret: &SharedSecret) -> Result<Vec<process::Child>, BoxError> {
    let scrapers = group.iter().map(|scraper| Ok(scraper.peer()?.to_string())).collect::<Result<Vec<_>, BoxError>>()?;
    let secret = secret.expose_text();
    let part = args.clients.div_ceil(PROCESSES);
    let parts = (0..args.clients).step_by(part).map(|first| (first, part.min(args.clients - first)));
    let started = parts.map(|(first, count)| {
        let numbers = [first, count, args.aliases, args.body].map(|number| number.to_string());
        let words = ["clients", &secret].into_iter().chain(numbers.iter().map(String::as_str));
        process::Child::start(&words.chain(scrapers.iter().map(String::as_str)).collect::<Vec<_>>())
    });
    started.collect()
}

/// Waits until it holds for what the scrapers say.
async fn until(group: &[Child], holds: impl Fn(&[Scraper]) -> bool) -> Result<(), BoxError> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let looks = stream::iter(group).then(Scraper::look);
        if holds(&looks.try_collect::<Vec<_>>().await?) {
            return Ok(());
        }
        sleep(Duration::from_millis(200)).await;
    }
    Err(format!("not all were there after {PATIENCE:?}").into())
}
