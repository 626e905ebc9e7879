//! Everything that is counted, at one moment.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    BoxError,
    processes::{Child, Counters, get, nats_counters},
    sockets::{Role, Sockets, Traffic},
    usage,
};

/// The processes, and their sockets.
pub(crate) struct Observed<'a> {
    scrapers: &'a [Child],
    monitor: Option<SocketAddr>,
    sockets: Sockets,
}

/// What was counted so far.
pub(crate) struct Snapshot {
    pub(crate) at: Instant,
    pub(crate) nats: Counters,
    pub(crate) traffic: Traffic,
    pub(crate) scrapers: Vec<Scraper>,
}

/// What one scraper has counted, and what it costs.
pub(crate) struct Scraper {
    pub(crate) aliases: f64,
    pub(crate) links: f64,
    pub(crate) members: f64,
    /// Aliases in registrations that were granted, renewals among them.
    pub(crate) claims: f64,
    pub(crate) forwards: f64,
    pub(crate) cpu: Duration,
    pub(crate) memory_kib: f64,
}

impl<'a> Observed<'a> {
    /// Scrapers, and the nats-server of their table with the address of its counters.
    pub(crate) fn new(scrapers: &'a [Child], nats: Option<(&Child, SocketAddr)>) -> Self {
        let servers = scrapers.iter().chain(nats.map(|(nats, _)| nats));
        let ports: Vec<u16> = servers.map(|child| child.p2p.port()).collect();
        let roles = scrapers.iter().map(|child| (child.id(), Role::Scraper));
        let roles = roles.chain(nats.map(|(nats, _)| (nats.id(), Role::Nats))).collect();
        Self { scrapers, monitor: nats.map(|(_, monitor)| monitor), sockets: Sockets::new(&ports, roles) }
    }

    /// From now on these are processes of clients.
    pub(crate) fn clients(&mut self, processes: impl Iterator<Item = u32>) {
        processes.for_each(|pid| self.sockets.assign(pid, Role::Clients));
    }

    pub(crate) async fn snapshot(&mut self) -> Result<Snapshot, BoxError> {
        let mut scrapers = Vec::new();
        for scraper in self.scrapers {
            scrapers.push(Scraper::look(scraper).await?);
        }
        Ok(Snapshot {
            at: Instant::now(),
            nats: match self.monitor {
                Some(monitor) => nats_counters(monitor).await?,
                None => Counters::default(),
            },
            traffic: self.sockets.traffic()?,
            scrapers,
        })
    }
}

impl Snapshot {
    pub(crate) fn sum(&self, of: impl Fn(&Scraper) -> f64) -> f64 {
        self.scrapers.iter().map(of).sum()
    }
}

impl Scraper {
    pub(crate) async fn look(scraper: &Child) -> Result<Self, BoxError> {
        let samples = get(scraper.http, "/metrics").await?.1;
        let claims =
            ["updated", "renewed"].map(|outcome| format!("narthex_registrations_total{{outcome=\"{outcome}\"}}"));
        Ok(Self {
            aliases: sample(&samples, "narthex_aliases{state=\"active\"}"),
            links: sample(&samples, "narthex_links{path=\"direct\"}"),
            members: sample(&samples, "narthex_group_members{linked=\"true\"}"),
            claims: claims.iter().map(|name| sample(&samples, name)).sum(),
            forwards: sample(&samples, "narthex_group_forwards_total{outcome=\"ok\"}"),
            cpu: usage::cpu(scraper.id())?,
            memory_kib: usage::memory_kib(scraper.id())? as f64,
        })
    }
}

pub(crate) fn sample(samples: &str, name: &str) -> f64 {
    let line = samples.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
}
