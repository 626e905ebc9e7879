//! Scrapes of aliases whose holder is linked to another member.
//!
//! A scrape takes our own link where there is one. Where there is none the members are asked, one after the other: first the
//! one that last had a link to the holder. One without a link says so at once, and the next is asked. One that says nothing may
//! be waiting for a slow holder, or be dead: it is asked a second question, and if that is not answered either, the next one is
//! asked beside it.

use std::{
    collections::HashMap,
    future,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Either},
    stream::FuturesUnordered,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio::time::{self, Instant};

use super::Group;
use crate::{
    http::PullRequest,
    identity::PublicKey,
    scraper::{
        outcome::ForwardOutcome,
        pull::{Pull, PullBody, PullError},
        puller::Puller,
        stream_place::StreamPlace,
    },
    telemetry::{Limit, remote_message},
    wire::{
        Alias, PullReason,
        group::{FAILURE_HEADER, ForwardFailure, HOLDER_HEADER, PULL_PATH},
        set_scrape_timeout,
    },
};

/// A member that has said nothing for so long is asked whether it is there, and has as long to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Holders whose last member is remembered: all of a full table, as each scrape of another one would ask a third of the members.
/// Some 17 MB.
const MAX_REMEMBERED: usize = 131_072;

/// Pulls over our own links, and through the members of the group.
pub(in crate::scraper) struct GroupPuller {
    own: Puller,
    group: Group,
}

/// What a member says to a forward.
enum Answer {
    /// It has a link to the holder: this is what came over it.
    Pulled(Result<Response<PullBody>, PullError>),
    Unlinked,
    /// It cannot be asked, or does not understand.
    Nothing,
}

impl GroupPuller {
    pub(in crate::scraper) fn new(own: Puller, group: Group) -> Self {
        Self { own, group }
    }
}

impl Pull for GroupPuller {
    fn pull<'a>(
        &'a self,
        alias: &'a Alias,
        peer: PublicKey,
        request: PullRequest,
    ) -> BoxFuture<'a, Result<Response<PullBody>, PullError>> {
        if self.group.is_alone() || self.own.is_linked(&peer) {
            return self.own.pull(alias, peer, request);
        }
        async move {
            match self.group.forward(alias, peer, &request).await {
                Some(pulled) => pulled,
                // Our own link may come back within the grace for that.
                None => self.own.pull(alias, peer, request).await,
            }
        }
        .boxed()
    }
}

impl Group {
    /// Pulls through a member that has a link to the holder; none if nobody has.
    async fn forward(
        &self,
        alias: &Alias,
        holder: PublicKey,
        request: &PullRequest,
    ) -> Option<Result<Response<PullBody>, PullError>> {
        let began = Instant::now();
        let forwarded = time::timeout_at(request.deadline, self.ask_in_turn(alias, holder, request)).await;
        let limit = request.deadline - began;
        let late = || Some(Err(PullError::Deadline { alias: alias.clone(), peer: holder, limit }));
        let pulled = forwarded.unwrap_or_else(|_| late());
        self.0.metrics.forward(match &pulled {
            None => ForwardOutcome::NotLinked,
            Some(Ok(_)) => ForwardOutcome::Ok,
            Some(Err(PullError::Deadline { .. })) => ForwardOutcome::Deadline,
            Some(Err(PullError::Busy { .. })) => ForwardOutcome::Busy,
            Some(Err(_)) => ForwardOutcome::Failed,
        });
        pulled
    }

    async fn ask_in_turn(
        &self,
        alias: &Alias,
        holder: PublicKey,
        request: &PullRequest,
    ) -> Option<Result<Response<PullBody>, PullError>> {
        let mut turns = self.turns(&holder).into_iter();
        let mut asked = FuturesUnordered::new();
        loop {
            let last = turns.next();
            asked
                .extend(last.map(|member| async move { (member, self.ask_for(member, alias, holder, request).await) }));
            let silent = match last {
                Some(member) if turns.len() > 0 => Either::Left(self.silent(member, holder)),
                _ => Either::Right(future::pending()),
            };
            tokio::select! {
                answer = asked.next() => match answer? {
                    (member, Answer::Pulled(pulled)) => {
                        self.remember(holder, member);
                        return Some(pulled);
                    }
                    (member, Answer::Unlinked) => self.forget(&holder, &member),
                    (_, Answer::Nothing) => {}
                },
                () = silent => {}
            }
        }
    }

    /// The members to ask, in their order.
    fn turns(&self, holder: &PublicKey) -> Vec<PublicKey> {
        let last = self.answered_last().get(holder).copied();
        let others = self.0.others.load();
        let mut turns: Vec<PublicKey> =
            others.iter().map(|other| other.key).filter(|key| self.is_linked(key)).collect();
        turns.sort_by_key(|member| Some(*member) != last);
        turns
    }

    /// Returns if a member that was asked says nothing, and does not answer another question either.
    async fn silent(&self, member: PublicKey, holder: PublicKey) {
        time::sleep(PATIENCE).await;
        if let Ok(Some(_)) = time::timeout(PATIENCE, self.ask_presence(member, &[holder])).await {
            future::pending().await // it waits for the holder, as we do
        }
    }

    /// Asks one member to pull.
    async fn ask_for(&self, member: PublicKey, alias: &Alias, holder: PublicKey, asked: &PullRequest) -> Answer {
        let limit = asked.deadline.saturating_duration_since(Instant::now());
        let busy = || Answer::Pulled(Err(PullError::Busy { alias: alias.clone(), peer: holder }));
        let Some(share) = self.0.forwards.wait(member, holder).await else {
            self.0.network.refusals().count(Limit::PullsPerPeer, member);
            return busy();
        };
        if share.has_displaced() {
            self.0.network.refusals().count(Limit::PullsPerPeer, member);
        }
        let place = StreamPlace::new(share, self.0.given_up.clone());
        let evicted = place.evicted();
        let Ok(request) = forward_request(alias, &holder, asked) else { return Answer::Nothing };
        let Some(sent) = evicted.run_until_cancelled(self.ask(member, request, place)).await else { return busy() };
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%member, %error, "a member of the group did not answer");
                return Answer::Nothing;
            }
        };
        if response.status() == StatusCode::OK {
            let deadline = asked.deadline;
            let end = async move { drop(time::timeout_at(deadline, evicted.cancelled_owned()).await) };
            return Answer::Pulled(Ok(response.map(|body| PullBody::new(body.until(end).map_err(Into::into)))));
        }
        let said = response.headers().get(FAILURE_HEADER).and_then(|said| said.to_str().ok()?.parse().ok());
        let reason = PullReason::of(response.headers());
        let message = remote_message(response.into_body(), asked.deadline).await;
        let (alias, peer) = (alias.clone(), holder);
        Answer::Pulled(Err(match said {
            None => return Answer::Nothing,
            Some(ForwardFailure::Unlinked) => return Answer::Unlinked,
            Some(ForwardFailure::Broken) => PullError::Broken { alias, peer, source: message.into() },
            Some(ForwardFailure::Refused(status)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                PullError::Refused { alias, peer, status, reason, message }
            }
            Some(ForwardFailure::Busy) => PullError::Busy { alias, peer },
            Some(ForwardFailure::Late) => PullError::Deadline { alias, peer, limit },
        }))
    }

    fn answered_last(&self) -> MutexGuard<'_, HashMap<PublicKey, PublicKey>> {
        self.0.answered_last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, holder: PublicKey, member: PublicKey) {
        let mut last = self.answered_last();
        if last.len() >= MAX_REMEMBERED
            && !last.contains_key(&holder)
            && let Some(any) = last.keys().next().copied()
        {
            last.remove(&any);
        }
        last.insert(holder, member);
    }

    fn forget(&self, holder: &PublicKey, member: &PublicKey) {
        let mut last = self.answered_last();
        if last.get(holder) == Some(member) {
            last.remove(holder);
        }
    }
}

fn forward_request(
    alias: &Alias,
    holder: &PublicKey,
    asked: &PullRequest,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let query = asked.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = Request::get(format!("{PULL_PATH}{alias}{query}")).body(Empty::new())?;
    *request.headers_mut() = asked.headers.clone();
    request.headers_mut().insert(HOLDER_HEADER, holder.to_string().try_into()?);
    set_scrape_timeout(request.headers_mut(), asked.deadline.saturating_duration_since(Instant::now()));
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::MAX_REMEMBERED;
    use crate::registry::RegistryConfig;

    #[test]
    fn each_holder_of_a_full_table_is_remembered() {
        assert!(MAX_REMEMBERED >= RegistryConfig::default().max_targets);
    }
}
