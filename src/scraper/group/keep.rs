//! Keeps a link to each other member.
//!
//! A link serves both its ends, so one of two members dials: the one with the smaller key, and the other only if there is no
//! link a moment later.

use std::{collections::HashMap, time::Duration};

use tokio::{
    task::{AbortHandle, JoinSet},
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{Group, MAX_MEMBERS, Member, Members, Other};
use crate::{
    network::Redial,
    telemetry::{Chain, short_duration},
};

/// How long a member waits to be dialled before it dials itself.
const HEAD_START: Duration = Duration::from_secs(2);
/// A link that is lost sooner was refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
/// A member that comes back is found within this time.
const MOST_PAUSE: Duration = Duration::from_secs(15);
/// How often idle streams are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(15);

impl Group {
    /// Keeps the links to whoever is a member, until `stop` fires. The links of those who leave are nobody's from then on.
    pub(in crate::scraper) async fn keep(self, mut members: Members, stop: CancellationToken) {
        let (mut tasks, mut links) = (JoinSet::new(), HashMap::<Member, AbortHandle>::new());
        let mut sweep = time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let others = self.others(&members.borrow_and_update());
            self.know(&others);
            for (_, left) in links.extract_if(|member, _| !others.contains(member)) {
                left.abort();
            }
            for member in others {
                let link = || tasks.spawn(self.clone().keep_link(member.clone()));
                links.entry(member.clone()).or_insert_with(link);
            }
            let changed = loop {
                tokio::select! {
                    () = stop.cancelled() => break false,
                    Some(_) = tasks.join_next() => {}
                    _ = sweep.tick() => self.0.streams.sweep(),
                    changed = members.changed() => match changed {
                        Ok(()) => break true,
                        // Nobody tells any more who the members are: they stay.
                        Err(_) => {
                            stop.cancelled().await;
                            break false;
                        }
                    },
                }
            };
            if !changed {
                break;
            }
        }
        tasks.shutdown().await;
        self.0.streams.close().await;
        self.0.given_up.close();
        self.0.given_up.wait().await;
    }

    /// The members beside ourselves.
    fn others(&self, members: &[Member]) -> Vec<Member> {
        let mut others: Vec<Member> = Vec::new();
        for member in members {
            if member.key != self.0.own && !others.iter().any(|other| other.key == member.key) {
                others.push(member.clone());
            }
        }
        if others.len() > MAX_MEMBERS {
            tracing::warn!(members = others.len(), limit = MAX_MEMBERS, "the group is too large: some are left out");
            others.truncate(MAX_MEMBERS);
        }
        others
    }

    /// From now on these are the other members.
    pub(super) fn know(&self, others: &[Member]) {
        let known = self.0.others.load_full();
        let since = |member: &Member| known.iter().find(|other| other.key == member.key).map(|other| other.since);
        let other = |member: &Member| Other { key: member.key, since: since(member).unwrap_or_else(Instant::now) };
        let now: Vec<Other> = others.iter().map(other).collect();
        self.0.admitted.replace(now.iter().map(|other| other.key));
        let left = known.iter().filter(|old| !now.iter().any(|other| other.key == old.key));
        // Their links may end, which streams would keep open.
        left.for_each(|left| self.0.streams.forget(&left.key));
        self.0.others.store(now.into());
        self.show();
    }

    /// Links a member, and links it again. Never returns.
    async fn keep_link(self, member: Member) {
        let Member { key, addresses } = &member;
        let (network, links) = (&self.0.network, self.0.network.links());
        links.keep(*key);
        let head_start = if self.0.own < *key { Duration::ZERO } else { HEAD_START };
        let (mut redial, mut pause) = (Redial::new(MOST_PAUSE, network.host_changes()), Duration::ZERO);
        loop {
            tokio::select! {
                () = redial.pause(pause + head_start) => {}
                () = links.up(key) => {}
            }
            let dialled = redial.attempt(|| network.connect_at(*key, addresses)).await;
            // The member may have dialled meanwhile.
            let failed = dialled.err().filter(|_| !self.is_linked(key));
            if failed.is_none() {
                let since = Instant::now();
                tracing::debug!(member = %key, "linked a member of the group");
                self.show();
                links.down(key).await;
                self.0.streams.forget(key);
                self.show();
                if since.elapsed() > REFUSED_WITHIN {
                    redial.was_good();
                }
            }
            pause = redial.next_pause();
            match failed {
                Some(error) => {
                    let error = Chain(&error);
                    tracing::warn!(member = %key, %error, retry_in = short_duration(pause), "a member of the group is not reached");
                }
                None => {
                    tracing::debug!(member = %key, retry_in = short_duration(pause), "the link to a member of the group was lost")
                }
            }
        }
    }

    /// Counts the members, for the metrics.
    fn show(&self) {
        let others = self.0.others.load();
        let linked = others.iter().filter(|other| self.is_linked(&other.key)).count();
        self.0.metrics.set_members(linked, others.len() - linked);
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        identity::KeyPair,
        registry::{Registry, RegistryConfig},
        scraper::{
            group::{Member, presence::tests::group},
            needless,
        },
        telemetry::Refusals,
    };

    #[tokio::test]
    async fn members_are_kept_without_an_alias_until_they_leave() {
        let (group, registry) = (group().await, Registry::new(RegistryConfig::default(), Refusals::new().into()));
        let [member, other] = [(); 2].map(|()| KeyPair::generate().public());
        let links = group.0.network.links();
        for peer in [member, other] {
            links.keep(peer);
        }
        group.know(&[Member { key: member, addresses: Vec::new() }]);
        assert_eq!(needless(&registry, &group, links), [other].into());
        group.know(&[]);
        assert_eq!(needless(&registry, &group, links), [member, other].into());
    }
}
