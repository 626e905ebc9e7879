//! What one scraper alone would do: a table, the time, and who is linked.

use super::{
    steps::{ALIASES, Step},
    *,
};
use crate::access::Scope;

#[derive(Debug)]
pub(super) struct Model {
    config: RegistryConfig,
    table: Table,
    now: SystemTime,
    /// A peer that is not here was not linked since the load.
    links: BTreeMap<usize, Link>,
}

#[derive(Clone, Copy, Debug)]
enum Link {
    Up,
    LostAt(SystemTime),
}

/// What a step was answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Registered(Vec<AliasOutcome>),
    /// How many aliases.
    Released(usize),
    None,
}

impl Model {
    pub(super) fn new(config: RegistryConfig, now: SystemTime) -> Self {
        Self { table: table(&config, Vec::new(), now), config, now, links: BTreeMap::new() }
    }

    pub(super) fn apply(&mut self, step: &Step) -> Answer {
        match step {
            Step::Register { peer: by, aliases, kept } => {
                let claims = Claims::check(&peer(*by), &message(aliases), &Scope::default()).expect("fit");
                let presence = presence(&self.links, self.now);
                let (outcomes, _) = self.table.register(&registrant(*by, *kept), claims, presence, self.now);
                return Answer::Registered(outcomes);
            }
            Step::Release { peer: by } => {
                return Answer::Released(self.table.release_peer(&peer(*by), self.now).events.len());
            }
            Step::Connect { peer } => drop(self.links.insert(*peer, Link::Up)),
            Step::Disconnect { peer } => {
                if let Some(link @ Link::Up) = self.links.get_mut(peer) {
                    *link = Link::LostAt(self.now);
                }
            }
            Step::Wait(wait) => {
                for span in Step::sweeps(*wait) {
                    self.now += span;
                    self.table.sweep(self.now);
                }
            }
            Step::Restart => {
                self.table = table(&self.config, self.table.leases(), self.now);
                self.links.clear();
            }
        }
        Answer::None
    }

    pub(super) fn now(&self) -> SystemTime {
        self.now
    }

    /// The same at all scrapers, as the group's members ask each other.
    pub(super) fn presence(&self) -> impl Fn(&PublicKey) -> Presence {
        presence(&self.links, self.now)
    }

    pub(super) fn leases(&self) -> Vec<Lease> {
        self.table.leases().iter().map(|lease| certain(lease)).collect()
    }

    /// Who may take each alias now.
    pub(super) fn statuses(&self) -> Vec<AliasStatus> {
        ALIASES.iter().map(|alias| self.table.status(alias, self.presence(), self.now)).collect()
    }
}

fn table(config: &RegistryConfig, leases: Vec<Arc<Lease>>, now: SystemTime) -> Table {
    Table::load(config.clone(), Contents::of(leases), BTreeSet::new(), now).0
}

fn presence(links: &BTreeMap<usize, Link>, now: SystemTime) -> impl Fn(&PublicKey) -> Presence {
    let presences = links.iter().map(|(number, link)| {
        let presence = match link {
            Link::Up => Presence::Linked,
            Link::LostAt(at) => Presence::Lost(now.duration_since(*at).expect("time passes")),
        };
        (peer(*number), presence)
    });
    let presences: Vec<_> = presences.collect();
    move |of| presences.iter().find(|(peer, _)| peer == of).map_or(Presence::Unseen, |(_, presence)| *presence)
}

pub(super) fn registrant(number: usize, kept: bool) -> Registrant {
    Registrant { kept: Some(kept), ..super::registrant(number) }
}

/// The lease without the time of its last renewal, which other scrapers may not have heard of.
pub(super) fn certain(lease: &Lease) -> Lease {
    let former = lease.former.as_deref().map(|former| Arc::new(certain(former)));
    Lease { renewed_at: lease.registered_at, former, ..lease.clone() }
}
