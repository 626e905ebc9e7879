//! Answers what other members ask: HTTP/1.1 on the streams that they open.
//!
//! Everything is answered from our own links. A forwarded pull is never forwarded again, and never waits for a link, so that a
//! member without one says so at once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Group;
use crate::{
    http::{BodyEnd, BodyObserver, LimitedBody, PullRequest, expected_len, remove_hop_by_hop, serve_streams},
    identity::PublicKey,
    network::InboundStream,
    scraper::{
        config::ScrapeConfig,
        pull::{PullBody, PullError},
        puller::Puller,
        shares::{Share, Shares},
    },
    telemetry::{Chain, Limit},
    wire::{
        Alias, REASON_HEADER,
        group::{self, FAILURE_HEADER, ForwardFailure, HOLDER_HEADER, PRESENCE_PATH, PULL_PATH},
        scrape_timeout,
    },
};

/// How much sooner than the member that asks a pull ends here, at most: the answer that says so still comes in time.
const MARGIN: Duration = Duration::from_millis(250);

/// How much members may ask for at once, and how long.
pub(in crate::scraper) struct AnswerLimits {
    /// The pulls for all members, shared out among them. Those of one are as many as the streams that it may open.
    pulls: Arc<Shares<PublicKey, Alias>>,
    timeout_default: Duration,
    timeout_max: Duration,
}

impl AnswerLimits {
    pub(in crate::scraper) fn new(config: &ScrapeConfig) -> Self {
        Self {
            pulls: Shares::new(config.max_concurrent, usize::MAX),
            timeout_default: config.timeout_default,
            timeout_max: config.timeout_max,
        }
    }
}

/// What an answer needs.
struct Answering {
    group: Group,
    puller: Puller,
    limits: AnswerLimits,
}

/// Answers streams until `stop` fires, then lets the pulls in flight end. The firewall has let none but those of members through.
pub(in crate::scraper) async fn serve(
    group: Group,
    puller: Puller,
    limits: AnswerLimits,
    streams: mpsc::Receiver<InboundStream>,
    stop: CancellationToken,
) {
    let answering = Arc::new(Answering { group, puller, limits });
    let open = |InboundStream { peer, stream }| {
        let answering = Arc::clone(&answering);
        let answer = move |request| {
            let answering = Arc::clone(&answering);
            async move { answering.answer(peer, request).await }
        };
        (peer, stream, answer)
    };
    serve_streams(streams, stop, open).await;
}

impl Answering {
    async fn answer(&self, member: PublicKey, request: Request<Incoming>) -> Response<PullBody> {
        // A stream may be older than the end of its membership.
        if !self.group.0.admitted.contains(&member) {
            return text(StatusCode::FORBIDDEN, "members of the group alone are answered here");
        }
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
        }
        let path = request.uri().path();
        if let Some(alias) = path.strip_prefix(PULL_PATH) {
            let Ok(alias) = alias.parse::<Alias>() else { return text(StatusCode::BAD_REQUEST, "no alias") };
            return self.pull(member, alias, request).await;
        }
        if path.starts_with(PRESENCE_PATH) {
            let Ok(holders) = group::asked_holders(path) else { return text(StatusCode::BAD_REQUEST, "no keys") };
            let links = holders.iter().map(|holder| self.group.link_of(holder));
            return text(StatusCode::OK, &group::presence_text(links));
        }
        text(StatusCode::NOT_FOUND, "nothing is answered here")
    }

    async fn pull(&self, member: PublicKey, alias: Alias, request: Request<Incoming>) -> Response<PullBody> {
        let (head, _) = request.into_parts();
        let mut headers = head.headers;
        remove_hop_by_hop(&mut headers);
        let holder = headers.remove(HOLDER_HEADER).and_then(|holder| holder.to_str().ok()?.parse::<PublicKey>().ok());
        let (Some(holder), Ok(limit)) = (holder, scrape_timeout(&headers)) else {
            return text(StatusCode::BAD_REQUEST, "the holder's key and a timeout are needed");
        };
        if !self.puller.is_linked(&holder) {
            return failure(ForwardFailure::Unlinked, "this scraper has no link to the holder");
        }
        let share = self.limits.pulls.ask(member, alias.clone());
        if share.as_ref().map_or(true, Share::has_displaced) {
            self.group.0.network.refusals().count(Limit::Scrapes, format_args!("alias {alias}"));
        }
        let busy = || failure(ForwardFailure::Busy, "too many scrapes are under way");
        let Ok(share) = share else { return busy() };

        let limit = limit.unwrap_or(self.limits.timeout_default).min(self.limits.timeout_max);
        let deadline = Instant::now() + limit - MARGIN.min(limit / 20);
        let query = head.uri.query().map(str::to_owned);
        let pulling = self.puller.pull_linked(&alias, holder, PullRequest::new(headers, query, deadline));
        let Some(pulled) = share.evicted().run_until_cancelled(pulling).await else { return busy() };
        match pulled {
            Ok(pulled) => {
                let (mut head, body) = pulled.into_parts();
                remove_hop_by_hop(&mut head.headers);
                let (expected, evicted) = (expected_len(&head.headers, &body), share.evicted().clone());
                // The member that asks counts the bytes.
                let body = LimitedBody::new(body, u64::MAX, expected, Passing { _share: share });
                let body = body.cut_by(evicted.cancelled_owned().boxed());
                let mut response = Response::new(PullBody::new(body));
                *response.headers_mut() = head.headers;
                response
            }
            Err(error) => failed(&error),
        }
    }
}

/// The share of an exposition that is passed on.
struct Passing {
    _share: Share<PublicKey, Alias>,
}

impl BodyObserver<PullBody> for Passing {
    type Cut = ();

    fn ended(self, _: &PullBody, _: u64, _: BodyEnd<()>) {}
}

fn failed(error: &PullError) -> Response<PullBody> {
    match error {
        PullError::NotConnected { .. } => failure(ForwardFailure::Unlinked, &Chain(error).to_string()),
        PullError::Broken { source, .. } => failure(ForwardFailure::Broken, &Chain(&**source).to_string()),
        PullError::Refused { status, reason, message, .. } => {
            let mut response = failure(ForwardFailure::Refused(status.as_u16()), message);
            response.headers_mut().extend(reason.map(|reason| (REASON_HEADER, reason.header())));
            response
        }
        PullError::Busy { .. } => failure(ForwardFailure::Busy, &error.to_string()),
        PullError::Deadline { .. } => failure(ForwardFailure::Late, &error.to_string()),
    }
}

fn failure(failure: ForwardFailure, why: &str) -> Response<PullBody> {
    let status = match failure {
        ForwardFailure::Unlinked | ForwardFailure::Broken | ForwardFailure::Refused(_) => StatusCode::BAD_GATEWAY,
        ForwardFailure::Busy => StatusCode::SERVICE_UNAVAILABLE,
        ForwardFailure::Late => StatusCode::GATEWAY_TIMEOUT,
    };
    let mut response = text(status, why);
    let said = HeaderValue::try_from(failure.to_string()).expect("a word and a number");
    response.headers_mut().insert(FAILURE_HEADER, said);
    response
}

fn text(status: StatusCode, text: &str) -> Response<PullBody> {
    let body = Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {});
    let mut response = Response::new(PullBody::new(body));
    *response.status_mut() = status;
    response
}
