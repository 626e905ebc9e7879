//! The model of docs/scale.md: what a group carries.
//!
//! Each constant was measured by this benchmark with few scrapers and clients (docs/scale.md has the commands); what it says
//! of more scrapers, clients and aliases is arithmetic, which a run checks. Bytes are those in TCP, of both directions if
//! nothing else is said.

/// To NATS for one write of an alias: key, headers, the lease with two labels and a host name.
pub(crate) const WRITE_TO_NATS: f64 = 280.0;
/// From NATS for one write: to each scraper, and the acknowledgement.
const WRITE_TO_SCRAPER: f64 = 300.0;
const ACKNOWLEDGEMENT: f64 = 72.0;
/// What each scraper asks NATS without any write, and what it is told: how far the bucket is, who the members are.
pub(crate) const IDLE_QUESTIONS_A_MINUTE: f64 = 13.0;
pub(crate) const IDLE_BYTES_A_MINUTE: f64 = 13_200.0;
/// Renewals of a link in a lease: each third of it, less up to a tenth at random.
pub(crate) const RENEWALS_A_LEASE: f64 = 3.0 / 0.95;
/// Writes of an alias in a lease: a stored lease runs for two, and the first renewal in its second half writes it again. With
/// one link that is each fourth renewal; with two, whose renewals take turns, it comes sooner (simulated).
const WRITES_A_LEASE: [f64; 2] = [0.79, 0.87];
/// A link that is made, registered over, and asked who is in the group; for each alias; for each further scraper of the group.
const LINK: f64 = 3254.0;
const LINK_ALIAS: f64 = 48.0;
const LINK_MEMBER: f64 = 40.0;
pub(crate) const LINK_SEGMENTS: f64 = 36.0;
/// A link without renewals and scrapes.
pub(crate) const IDLE_LINK_BYTES_A_MINUTE: f64 = 110.0;
/// Most members that a client is told.
const MOST_TOLD: f64 = 16.0;
/// A renewal over its link, and for each alias.
const RENEWAL: f64 = 670.0;
const RENEWAL_ALIAS: f64 = 46.0;
/// A scrape over a client's link, beyond the body, with Prometheus's headers, on a stream that is kept.
pub(crate) const PULL: f64 = 350.0;
/// A scrape forwarded between two scrapers, beyond the body.
pub(crate) const FORWARD: f64 = 510.0;
/// A question to a scraper that has no link to the client either.
pub(crate) const UNLINKED: f64 = 510.0;
/// Resident memory of a scraper for a link, and for an alias: in a table of its own, and in one in NATS.
const LINK_KIB: f64 = 55.0;
const ALIAS_KIB: [f64; 2] = [1.0, 2.8];
/// An alias in `/sd`, with two labels and a host name.
pub(crate) const LIST_BYTES: f64 = 517.0;
/// CPU of a scraper for a renewal and its share of writes, for a write that it hears of, and for a scrape, with an optimized
/// build.
pub(crate) const RENEWAL_CPU_MS: f64 = 1.55;
pub(crate) const HEARD_CPU_MS: f64 = 0.056;
pub(crate) const SCRAPE_CPU_MS: f64 = 0.5;

/// A group that the model is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) scrapers: f64,
    pub(crate) clients: f64,
    /// Of each client.
    pub(crate) aliases: f64,
    pub(crate) lease_s: f64,
}

impl Group {
    /// Scrapers that a client links.
    pub(crate) fn linked(&self) -> f64 {
        self.scrapers.min(2.0)
    }

    pub(crate) fn all_aliases(&self) -> f64 {
        self.clients * self.aliases
    }

    pub(crate) fn links_each(&self) -> f64 {
        self.clients * self.linked() / self.scrapers + self.scrapers - 1.0
    }

    pub(crate) fn link_bytes(&self) -> f64 {
        LINK + LINK_ALIAS * self.aliases + LINK_MEMBER * (self.scrapers - 1.0).min(MOST_TOLD)
    }

    pub(crate) fn renewal_bytes(&self) -> f64 {
        RENEWAL + RENEWAL_ALIAS * self.aliases
    }

    pub(crate) fn writes_a_lease(&self) -> f64 {
        if self.scrapers < 2.0 { WRITES_A_LEASE[0] } else { WRITES_A_LEASE[1] }
    }

    pub(crate) fn bytes_from_nats_a_write(&self) -> f64 {
        WRITE_TO_SCRAPER * self.scrapers + ACKNOWLEDGEMENT
    }

    /// The part of all scrapes that another scraper must be asked for.
    pub(crate) fn forwarded(&self) -> f64 {
        (self.scrapers - self.linked()) / self.scrapers
    }

    /// Scrapers that are asked until one with a link is found, where nothing is remembered: two of the others have one.
    pub(crate) fn asked(&self) -> f64 {
        self.scrapers / 3.0
    }

    pub(crate) fn memory_mib(&self, is_shared: bool) -> f64 {
        (LINK_KIB * self.links_each() + ALIAS_KIB[usize::from(is_shared)] * self.all_aliases()) / 1024.0
    }

    /// A second, of the whole group.
    fn writes(&self) -> f64 {
        self.all_aliases() * self.writes_a_lease() / self.lease_s
    }

    /// A second, at each scraper.
    fn renewals_each(&self) -> f64 {
        self.clients * self.linked() / self.scrapers * RENEWALS_A_LEASE / self.lease_s
    }
}

/// Prints what the model says of groups that no machine here carries.
pub(crate) fn print(lease_s: f64) {
    println!(
        "| aliases | clients | scrapers | links each | writes/s to NATS | KB/s to NATS | from NATS to each | renewals/s each | CPU for both, of a core | MiB each | list MB | forwarded |"
    );
    println!("|{}", "---|".repeat(12));
    for [scrapers, clients, aliases] in [[2, 10_000, 1], [2, 10_000, 10], [4, 20_000, 5], [20, 100_000, 10]] {
        let group = Group { scrapers: scrapers.into(), clients: clients.into(), aliases: aliases.into(), lease_s };
        let (writes, renewals) = (group.writes(), group.renewals_each());
        println!(
            "| {} | {clients} | {scrapers} | {:.0} | {writes:.0} | {:.0} | {:.0} | {renewals:.0} | {:.0} % | {:.0} | {:.0} | {:.0} % |",
            group.all_aliases(),
            group.links_each(),
            writes * WRITE_TO_NATS / 1000.0,
            writes * WRITE_TO_SCRAPER / 1000.0,
            (renewals * RENEWAL_CPU_MS + writes * HEARD_CPU_MS) / 10.0,
            group.memory_mib(true),
            group.all_aliases() * LIST_BYTES / 1e6,
            group.forwarded() * 100.0,
        );
    }
}
