//! One group: it starts, is registered with, is renewed, and is scraped.

use std::{path::Path, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use narthex::{SharedSecret, identity};
use tokio::time::{Instant, sleep};

use crate::{
    Args, BoxError,
    clients::alias,
    model::{self, Group},
    process,
    processes::{Child, get, nats_server, request, scraper},
    report::Report,
    snapshot::{Observed, Scraper, Snapshot},
    sockets::{Role, Volume},
};

/// Processes that the clients are spread over.
const PROCESSES: usize = 4;
/// How long the group is watched without clients.
const IDLE: Duration = Duration::from_secs(60);
/// Scrapes in flight at each scraper.
const AT_ONCE: usize = 2;
/// After which a group counts as lost.
const PATIENCE: Duration = Duration::from_secs(1200);
/// As Prometheus asks.
const HEADERS: &str = "Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\nAccept-Encoding: gzip\r\nUser-Agent: Prometheus/2.42.0\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n";

/// What was counted at the end of each step.
struct Steps {
    started: Snapshot,
    idle: Snapshot,
    registered: Snapshot,
    renewed: Snapshot,
    /// Of the first alias of each client, of the second, ..
    scraped: Vec<Snapshot>,
    /// Bytes of the list.
    list: f64,
}

pub(crate) async fn measure(args: &Args, scrapers: usize) -> Result<Report, BoxError> {
    let directory = tempfile::Builder::new().prefix("narthex-bench-").tempdir()?;
    let path = directory.path();
    let secret = SharedSecret::generate();
    identity::create_secret(&path.join("secret"), &secret)?;
    let nats = if args.own_table { None } else { Some(nats_server(&args.nats_server, path).await?) };
    let scraper_flags = flags(args, nats.as_ref().map(|(_, url, _)| url.as_str()));
    let group = start(scrapers, path, &scraper_flags).await?;
    let nats = nats.as_ref().map(|(nats, _, monitor)| (nats, *monitor));
    let mut observed = Observed::new(&group, nats);
    let started = observed.snapshot().await?;
    sleep(IDLE).await;
    let idle = observed.snapshot().await?;

    let began = Instant::now();
    let clients = clients(args, &group, &secret)?;
    observed.clients(clients.iter().map(process::Child::id));
    clients.iter().try_for_each(|child| child.ready::<1>().map(drop))?;
    let linked = scrapers.min(2);
    let all_links = (args.clients * linked + scrapers * (scrapers - 1)) as f64;
    let count = (args.clients * args.aliases) as f64;
    until(&group, |all| {
        let sum = |of: fn(&Scraper) -> f64| all.iter().map(of).sum::<f64>();
        sum(|one| one.links) >= all_links
            && sum(|one| one.claims) >= count * linked as f64
            && all.iter().all(|one| one.aliases == count)
    })
    .await?;
    let registered = observed.snapshot().await?;
    eprintln!("{scrapers} scrapers: {count} aliases of {} clients in {:.0?}", args.clients, began.elapsed());

    sleep(args.watch).await;
    let renewed = observed.snapshot().await?;
    let mut scraped = Vec::new();
    for number in 0..args.scraped {
        scrape(args, &group, number).await?;
        sleep(Duration::from_secs(1)).await; // acknowledgements
        scraped.push(observed.snapshot().await?);
    }
    let list = get(group.first().ok_or("no scraper")?.http, "/sd").await?.1.len() as f64;
    let over_tcp = registered.traffic.sent(Role::Clients, Role::Scraper).sockets;
    if over_tcp != (args.clients * linked) as f64 {
        eprintln!("{over_tcp} TCP connections were seen of {} links", args.clients * linked);
    }
    let costs: Vec<String> = renewed
        .scrapers
        .iter()
        .map(|one| format!("{:.0} links {:.0} MiB", one.links, one.memory_kib / 1024.0))
        .collect();
    eprintln!("{}", costs.join(", "));
    Ok(Steps { started, idle, registered, renewed, scraped, list }.report(args, scrapers))
}

impl Steps {
    fn report(&self, args: &Args, scrapers: usize) -> Report {
        let mut report = Report { scrapers, rows: Vec::new() };
        let [n, clients, aliases] = [scrapers, args.clients, args.aliases].map(|number| number as f64);
        let group = Group { scrapers: n, clients, aliases, lease_s: args.lease.as_secs_f64() };
        let mut row = |what, measured, model| report.row(what, measured, model);
        let is_shared = !args.own_table;

        let idle = Delta::of(&self.started, &self.idle);
        let minutes = idle.seconds / 60.0 * n;
        if is_shared {
            row(
                "NATS without clients: questions a scraper and minute",
                idle.messages_to / minutes,
                model::IDLE_QUESTIONS_A_MINUTE,
            );
            row(
                "NATS without clients: bytes a scraper and minute",
                (idle.to.bytes + idle.from.bytes) / minutes,
                model::IDLE_BYTES_A_MINUTE,
            );
        }

        let step = Delta::of(&self.idle, &self.registered).beyond(&idle);
        let (links, all) = (clients * group.linked(), group.all_aliases());
        let exchanges = step.claims / aliases;
        if is_shared {
            row("registration: messages to NATS an alias", step.messages_to / all, 1.0);
            row("registration: messages from NATS an alias", step.messages_from / all, n + 1.0);
            row("registration: bytes to NATS an alias", step.to.bytes / all, model::WRITE_TO_NATS);
            row("registration: bytes from NATS an alias", step.from.bytes / all, group.bytes_from_nats_a_write());
        }
        let further = (exchanges - links) * group.renewal_bytes();
        row("registration: bytes of the link", (step.clients.bytes - further) / links, group.link_bytes());
        row("registration: segments of the link", step.clients.messages / exchanges, model::LINK_SEGMENTS);
        let most = self.registered.scrapers.iter().map(|one| one.links).fold(0.0, f64::max);
        row("links of the scraper with most", most, group.links_each());

        let step = Delta::of(&self.registered, &self.renewed).beyond(&idle);
        let (leases, exchanges) = (step.seconds / group.lease_s, step.claims / aliases);
        if exchanges == 0.0 {
            let each = step.clients.bytes / links / (step.seconds / 60.0);
            row("link without renewals: bytes a minute", each, model::IDLE_LINK_BYTES_A_MINUTE);
            return report;
        }
        row("renewals a link and lease", exchanges / links / leases, model::RENEWALS_A_LEASE);
        let writes = step.messages_to; // none without NATS
        if is_shared {
            row("writes to NATS an alias and lease", writes / all / leases, group.writes_a_lease());
            row("renewal: bytes to NATS a write", step.to.bytes / writes, model::WRITE_TO_NATS);
            row("renewal: bytes from NATS a write", step.from.bytes / writes, group.bytes_from_nats_a_write());
        }
        let idle_links = model::IDLE_LINK_BYTES_A_MINUTE * links * step.seconds / 60.0;
        let renewal = (step.clients.bytes - idle_links) / exchanges;
        row("renewal: bytes of the link", renewal, group.renewal_bytes());
        let cpu_ms = model::RENEWAL_CPU_MS * exchanges + model::HEARD_CPU_MS * writes * n;
        row("renewal: CPU of the scrapers, ms (optimized)", step.cpu_ms / exchanges, cpu_ms / exchanges);

        let grown = self.renewed.sum(|one| one.memory_kib) - self.idle.sum(|one| one.memory_kib);
        row("memory of a scraper beyond an empty one, MiB", grown / n / 1024.0, group.memory_mib(is_shared));
        row("list: bytes an alias", self.list / all, model::LIST_BYTES);

        let body = args.body as f64;
        let before = [&self.renewed].into_iter().chain(&self.scraped);
        for (number, (before, after)) in before.zip(&self.scraped).enumerate() {
            let step = Delta::of(before, after);
            let (scrapes, background) = (clients * n, renewal * step.claims / aliases);
            let forwards = step.forwards;
            if number == 0 && scrapers > 2 {
                let asked = body + model::FORWARD + model::UNLINKED * (group.asked() - 1.0);
                row(
                    "scrape, forwarded, first of a client: bytes between scrapers",
                    step.members.bytes / forwards,
                    asked,
                );
            }
            if number + 1 == self.scraped.len() {
                row("scrape: bytes of the link", (step.clients.bytes - background) / scrapes, body + model::PULL);
                let renewing = step.claims / aliases * cpu_ms / exchanges;
                let each = (step.cpu_ms - renewing) / (scrapes + forwards);
                row("scrape: CPU of each scraper that it passes, ms (optimized)", each, model::SCRAPE_CPU_MS);
                if scrapers > 2 {
                    row("scrape: part that is forwarded", forwards / scrapes, group.forwarded());
                    row(
                        "scrape, forwarded: bytes between scrapers",
                        step.members.bytes / forwards,
                        body + model::FORWARD,
                    );
                }
            }
        }
        report
    }
}

/// What was counted in one step, all scrapers together.
struct Delta {
    seconds: f64,
    messages_to: f64,
    messages_from: f64,
    to: Volume,
    from: Volume,
    clients: Volume,
    members: Volume,
    claims: f64,
    forwards: f64,
    cpu_ms: f64,
}

impl Delta {
    fn of(before: &Snapshot, after: &Snapshot) -> Self {
        let traffic = after.traffic.since(&before.traffic);
        let counted = |of: fn(&Scraper) -> f64| after.sum(of) - before.sum(of);
        let messages =
            |of: fn(&crate::processes::Counters) -> u64| of(&after.nats).saturating_sub(of(&before.nats)) as f64;
        Self {
            seconds: (after.at - before.at).as_secs_f64(),
            messages_to: messages(|nats| nats.messages),
            messages_from: messages(|nats| nats.messages_out),
            to: traffic.sent(Role::Scraper, Role::Nats),
            from: traffic.sent(Role::Nats, Role::Scraper),
            clients: traffic.between(Role::Clients, Role::Scraper),
            members: traffic.sent(Role::Scraper, Role::Scraper),
            claims: counted(|one| one.claims),
            forwards: counted(|one| one.forwards),
            cpu_ms: counted(|one| one.cpu.as_secs_f64() * 1000.0),
        }
    }

    /// Without what NATS carries anyway.
    fn beyond(mut self, idle: &Self) -> Self {
        let quiet = self.seconds / idle.seconds;
        self.messages_to -= idle.messages_to * quiet;
        self.messages_from -= idle.messages_from * quiet;
        self.to.bytes -= idle.to.bytes * quiet;
        self.from.bytes -= idle.from.bytes * quiet;
        self
    }
}

/// Scrapes one alias of each client through every scraper.
async fn scrape(args: &Args, group: &[Child], number: usize) -> Result<(), BoxError> {
    let aliases = (0..args.clients).map(|client| alias(client, number));
    let targets = aliases.flat_map(|alias| group.iter().map(move |scraper| (scraper.http, alias.clone())));
    let scraping = stream::iter(targets).map(|(http, alias)| async move {
        match request(http, &format!("/scrape/{alias}/metrics"), HEADERS).await? {
            (200, body) if body.len() == args.body => Ok(()),
            (status, body) => Err::<_, BoxError>(format!("{alias}: {status} {body:?}").into()),
        }
    });
    scraping.buffer_unordered(AT_ONCE * group.len()).try_collect().await
}

fn flags(args: &Args, store: Option<&str>) -> Vec<String> {
    let own = [
        format!("--lease={}", humantime::format_duration(args.lease)),
        "--log-level=warn".to_owned(),
        "--max-connections-per-private-ip=16000".to_owned(), // all clients have one address
    ];
    own.into_iter().chain(store.map(|url| format!("--store={url}"))).collect()
}

async fn start(scrapers: usize, path: &Path, flags: &[String]) -> Result<Vec<Child>, BoxError> {
    let mut group = Vec::new();
    for number in 0..scrapers {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        group.push(scraper(path, &format!("scraper-{number}"), &flags).await?);
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
