//! A list of the whole table on its way to one reader.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body as AnyBody, response::Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};

use super::readers::Reading;
use crate::http::{BodyCut, Worth};

/// Bytes that are put together before they are handed on; a chunk is longer by less than one group.
pub(super) const CHUNK: usize = 64 << 10;
/// How long an answer may take: Prometheus itself waits no longer than its refresh interval, by default 60 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The answer that consists of these chunks, `len` bytes in all. Keeps them until the reader has them all, is gone, has
/// taken too long, or must make room.
pub(super) fn answer(
    chunks: impl Iterator<Item = Bytes> + Send + 'static,
    len: u64,
    content_type: &'static str,
    reading: Reading,
) -> Response {
    let (cut, until) = (reading.cut().clone(), Instant::now() + ANSWER_LIMIT);
    let worth = Worth { until, given_up: cut.clone() };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        // The body of a reader that was too slow ends with an error.
        let _ = time::timeout_at(until, cut.run_until_cancelled(send(chunks, sender, &reading))).await;
        drop(reading);
    });
    let mut response = Response::new(AnyBody::new(ListBody { chunks: receiver, left: len }));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.extensions_mut().insert(worth);
    response
}

async fn send(chunks: impl Iterator<Item = Bytes>, to: mpsc::Sender<Bytes>, reading: &Reading) {
    for chunk in chunks {
        if to.send(chunk).await.is_err() {
            return;
        }
        reading.moved();
    }
}

struct ListBody {
    chunks: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Body for ListBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        Poll::Ready(match ready!(self.chunks.poll_recv(cx)) {
            Some(chunk) => {
                self.left -= chunk.len() as u64;
                Some(Ok(Frame::data(chunk)))
            }
            None => (self.left > 0).then_some(Err(BodyCut)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
