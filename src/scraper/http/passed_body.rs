//! An exposition on its way through.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    scraper::{
        metrics::ScrapeRecord,
        outcome::ScrapeOutcome,
        pull::{PullBody, PullBodyError},
    },
    wire::Alias,
};

/// Hands a peer's body on as it comes, counts it, and limits it.
///
/// An error here makes hyper break the connection off, which Prometheus sees as `unexpected EOF`. So this body, too,
/// says nothing of its length: the peer's own `Content-Length` header does, and a body that is shorter is an error of
/// the same kind.
pub(super) struct PassedBody {
    body: PullBody,
    alias: Alias,
    /// What `Content-Length` promised.
    promised: Option<u64>,
    passed: u64,
    limit: u64,
    record: ScrapeRecord,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl PassedBody {
    pub(super) fn new(
        body: PullBody,
        alias: Alias,
        promised: Option<u64>,
        limit: u64,
        record: ScrapeRecord,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { body, alias, promised, passed: 0, limit, record, ended: false, _permit: permit }
    }

    fn end(&mut self, outcome: ScrapeOutcome) {
        self.ended = true;
        self.record.end(outcome);
    }

    fn cut(
        &mut self,
        outcome: ScrapeOutcome,
        error: PullBodyError,
    ) -> Poll<Option<Result<Frame<Bytes>, PullBodyError>>> {
        tracing::debug!(alias = %self.alias, passed = self.passed, %error, "scrape cut");
        self.end(outcome);
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for PassedBody {
    type Data = Bytes;
    type Error = PullBodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PullBodyError>>> {
        let this = &mut *self;
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // Trailers belong to one connection.
                    let Ok(data) = frame.into_data() else { continue };
                    this.passed += data.len() as u64;
                    if this.passed > this.limit {
                        let reason = format!("it is larger than the limit of {} bytes", this.limit);
                        return this.cut(ScrapeOutcome::TooLarge, PullBodyError { reason });
                    }
                    this.record.bytes(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return this.cut(ScrapeOutcome::Cut, error),
                None if this.promised.is_some_and(|promised| this.passed < promised) => {
                    let reason = "it is shorter than its Content-Length".to_owned();
                    return this.cut(ScrapeOutcome::Cut, PullBodyError { reason });
                }
                None => this.end(ScrapeOutcome::Ok),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl Drop for PassedBody {
    /// hyper does not ask for the end of a body that has kept the promise of its `Content-Length`.
    fn drop(&mut self) {
        if !self.ended && self.promised == Some(self.passed) {
            self.record.end(ScrapeOutcome::Ok);
        }
    }
}
