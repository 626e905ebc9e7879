//! Whether holders are linked to any member: a holder that is linked elsewhere has not lost its alias.

use std::{collections::HashMap, time::Duration};

use futures::future;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use tokio::time;

use super::{Group, Other};
use crate::{
    identity::PublicKey,
    registry::Presence,
    scraper::stream_place::StreamPlace,
    wire::group::{self, HolderLink, MAX_KEYS},
};

/// Longest wait for the members. A registration waits for them.
const WAIT: Duration = Duration::from_secs(1);
/// Most bytes of an answer: a line about each key.
const MAX_ANSWER: usize = MAX_KEYS * 32;

/// What the group knows of some holders.
#[derive(Debug, Default)]
pub(in crate::scraper) enum Presences {
    /// There are no other members.
    #[default]
    Alone,
    /// The most present that they were found, by key.
    Found(HashMap<PublicKey, Presence>),
}

impl Presences {
    /// The presence of a holder, which is `here` at this scraper. One that the members were not asked about counts as linked.
    pub(in crate::scraper) fn of(&self, holder: &PublicKey, here: Presence) -> Presence {
        match self {
            Self::Alone => here,
            Self::Found(_) if here == Presence::Linked => here,
            Self::Found(found) => found.get(holder).copied().unwrap_or(Presence::Linked),
        }
    }
}

impl Group {
    /// What all members, this scraper among them, know of these holders. Those beyond the most that one question may name are
    /// left out.
    pub(in crate::scraper) async fn presence_of(&self, holders: impl IntoIterator<Item = PublicKey>) -> Presences {
        let others = self.0.others.load_full();
        if others.is_empty() {
            return Presences::Alone;
        }
        let holders: Vec<PublicKey> = holders.into_iter().take(MAX_KEYS).collect();
        let mut found: Vec<Presence> = holders.iter().map(|holder| self.link_of(holder).into()).collect();
        if !holders.is_empty() {
            let told = others.iter().map(|other| self.presence_at(other, &holders));
            for links in future::join_all(told).await {
                for (most, told) in found.iter_mut().zip(links) {
                    *most = most_present(*most, told.into());
                }
            }
        }
        Presences::Found(holders.into_iter().zip(found).collect())
    }

    /// The links that a member has to holders. A member that does not answer may have any, until it is away for so long that
    /// its holders may lose their aliases, too.
    async fn presence_at(&self, other: &Other, holders: &[PublicKey]) -> Vec<HolderLink> {
        if !self.is_linked(&other.key) {
            let lost_for = self.0.network.links().lost_for(&other.key).unwrap_or_else(|| other.since.elapsed());
            let may_be_linked = lost_for < self.0.takeover_grace;
            return if may_be_linked { vec![HolderLink::Linked; holders.len()] } else { Vec::new() };
        }
        let told = time::timeout(WAIT, self.ask_presence(other.key, holders)).await;
        told.ok().flatten().unwrap_or_else(|| vec![HolderLink::Linked; holders.len()])
    }

    /// Asks a member about holders; none without an answer that makes sense.
    pub(super) async fn ask_presence(&self, member: PublicKey, holders: &[PublicKey]) -> Option<Vec<HolderLink>> {
        let request = Request::get(group::presence_path(holders)).body(Empty::new()).ok()?;
        let share = self.0.questions.wait(member, ()).await?;
        let place = StreamPlace::new(share, self.0.given_up.clone());
        let answer = self.ask(member, request, place).await;
        let answer = answer.inspect_err(|error| tracing::debug!(%member, %error, "a member did not answer")).ok()?;
        let known = answer.status() == StatusCode::OK;
        let text = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.ok()?.to_bytes();
        let links = group::parse_presence(str::from_utf8(&text).ok()?, holders.len());
        links.ok().filter(|_| known)
    }

    /// Our own link to a holder.
    pub(super) fn link_of(&self, holder: &PublicKey) -> HolderLink {
        let links = self.0.network.links();
        match links.path(holder) {
            Some(_) => HolderLink::Linked,
            None => {
                links.lost_for(holder).map_or_else(|| HolderLink::Unseen(self.0.started.elapsed()), HolderLink::Lost)
            }
        }
    }
}

impl From<HolderLink> for Presence {
    /// Before its start a member knows nothing: the holder may have been linked to it.
    fn from(link: HolderLink) -> Self {
        match link {
            HolderLink::Linked => Self::Linked,
            HolderLink::Lost(ago) | HolderLink::Unseen(ago) => Self::Lost(ago),
        }
    }
}

fn most_present(one: Presence, other: Presence) -> Presence {
    match (one, other) {
        (Presence::Linked, _) | (_, Presence::Linked) => Presence::Linked,
        (Presence::Lost(one), Presence::Lost(other)) => Presence::Lost(one.min(other)),
        (seen, Presence::Unseen) | (Presence::Unseen, seen) => seen,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        identity::KeyPair,
        network::{Admitted, LinkPath, Network, NetworkConfig, NetworkRole},
        scraper::{group::Member, metrics::ScraperMetrics},
    };

    const GRACE: Duration = Duration::from_secs(60);

    /// A group without members, whose network does not run.
    pub(in crate::scraper::group) async fn group() -> Group {
        let (own, config) = (KeyPair::generate(), NetworkConfig::new(NetworkRole::Client));
        let (network, _) = Network::start(&own, config, Vec::new()).await.expect("starts");
        let metrics = Arc::new(ScraperMetrics::new(network.refusals()));
        Group::new(own.public(), network, Admitted::default(), GRACE, metrics)
    }

    fn key() -> PublicKey {
        KeyPair::generate().public()
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_is_not_reached_may_have_any_link_until_its_holders_could_be_taken_from() {
        let (group, member, holder) = (group().await, key(), key());
        let presence = async || group.presence_of([holder]).await.of(&holder, Presence::Unseen);
        assert_eq!(presence().await, Presence::Unseen, "alone");
        time::advance(GRACE).await;
        group.know(&[Member { key: member, addresses: Vec::new() }]);
        assert_eq!(presence().await, Presence::Linked, "nothing was heard of the member yet");
        time::advance(GRACE).await;
        assert_eq!(presence().await, Presence::Lost(2 * GRACE), "as long as we look");

        let links = group.0.network.links();
        links.keep(member);
        let link = links.add_test_link(member, LinkPath::Direct);
        assert_eq!(presence().await, Presence::Linked, "it does not answer");
        links.unlist(link, "lost");
        time::advance(GRACE / 2).await;
        assert_eq!(presence().await, Presence::Linked, "lost a moment ago");
        time::advance(GRACE / 2).await;
        assert!(matches!(presence().await, Presence::Lost(_)));
    }

    #[test]
    fn the_most_present_that_anybody_saw_counts_and_who_was_not_asked_about_is_linked() {
        let [short, long] = [1, 2].map(|seconds| Presence::Lost(Duration::from_secs(seconds)));
        for (one, other, most) in [
            (Presence::Linked, short, Presence::Linked),
            (short, long, short),
            (Presence::Unseen, long, long),
            (Presence::Unseen, Presence::Unseen, Presence::Unseen),
        ] {
            assert_eq!((most_present(one, other), most_present(other, one)), (most, most));
        }
        let (asked, other) = (key(), key());
        let found = Presences::Found(HashMap::from([(asked, long)]));
        assert_eq!(found.of(&asked, Presence::Unseen), long);
        assert_eq!(found.of(&asked, Presence::Linked), Presence::Linked, "it came back meanwhile");
        assert_eq!(found.of(&other, short), Presence::Linked);
    }
}
