//! A body on its way through, counted and limited.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, header::CONTENT_LENGTH};
use hyper::body::{Body, Frame, SizeHint};

use super::BoxError;

/// How a body ended.
#[derive(Debug)]
pub(crate) enum BodyEnd<C> {
    Whole,
    TooLong,
    /// The body ended before its `Content-Length`.
    TooShort,
    /// The sender failed.
    Failed(BoxError),
    Cut(C),
    /// The reader went away.
    Abandoned,
}

/// Receives the end of a [`LimitedBody`].
pub(crate) trait BodyObserver<B> {
    /// The output of the future that can cut the body.
    type Cut;

    /// How many bytes count against the limit once `passed` bytes were passed on.
    fn counted(&self, _body: &B, passed: u64) -> u64 {
        passed
    }

    /// Receives the end, exactly once, with the bytes that were passed on.
    fn ended(self, body: &B, passed: u64, end: BodyEnd<Self::Cut>);
}

/// Passes the frames of another body on as they come, without trailers, which belong to one connection.
///
/// A body that is too long, too short, cut or broken ends with an error, never cleanly: hyper then closes the connection,
/// which the reader sees.
pub(crate) struct LimitedBody<B: Body<Data = Bytes>, O: BodyObserver<B>> {
    body: B,
    limit: u64,
    expected: Option<u64>,
    passed: u64,
    cut: Option<BoxFuture<'static, O::Cut>>,
    /// None once the end was reported.
    observer: Option<O>,
}

/// The error with which a [`LimitedBody`] ends. The observer has the reason.
#[derive(Debug, thiserror::Error)]
#[error("the body was cut")]
pub(crate) struct BodyCut;

/// The length of a body that has one before its end.
pub(crate) fn expected_len(headers: &HeaderMap, body: &impl Body) -> Option<u64> {
    let header = headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
    header.or_else(|| body.size_hint().exact())
}

impl<B: Body<Data = Bytes>, O: BodyObserver<B>> LimitedBody<B, O> {
    /// Limits `body` to `limit` bytes; `expected` is its [length](expected_len), if known.
    pub(crate) fn new(body: B, limit: u64, expected: Option<u64>, observer: O) -> Self {
        Self { body, limit, expected, passed: 0, cut: None, observer: Some(observer) }
    }

    /// Ends the body early once `cut` resolves.
    pub(crate) fn cut_by(mut self, cut: BoxFuture<'static, O::Cut>) -> Self {
        self.cut = Some(cut);
        self
    }

    fn report(&mut self, end: BodyEnd<O::Cut>) {
        if let Some(observer) = self.observer.take() {
            observer.ended(&self.body, self.passed, end);
        }
    }
}

impl<B, O> Body for LimitedBody<B, O>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    O: BodyObserver<B> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            let Some(observer) = &this.observer else { return Poll::Ready(None) };
            let end = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let passed = this.passed + data.len() as u64;
                    if observer.counted(&this.body, passed) <= this.limit {
                        this.passed = passed;
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    BodyEnd::TooLong
                }
                Poll::Ready(Some(Err(error))) => BodyEnd::Failed(error.into()),
                Poll::Ready(None) if this.expected.is_some_and(|expected| this.passed < expected) => BodyEnd::TooShort,
                Poll::Ready(None) => BodyEnd::Whole,
                Poll::Pending => match &mut this.cut {
                    Some(cut) => BodyEnd::Cut(ready!(cut.as_mut().poll(cx))),
                    None => return Poll::Pending,
                },
            };
            let whole = matches!(end, BodyEnd::Whole);
            this.report(end);
            return Poll::Ready((!whole).then(|| Err(BodyCut.into())));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.observer.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body<Data = Bytes>, O: BodyObserver<B>> Drop for LimitedBody<B, O> {
    /// hyper drops a body whose length it knows without polling for the end.
    fn drop(&mut self) {
        let end = match self.expected {
            Some(expected) if self.passed == expected => BodyEnd::Whole,
            Some(_) if self.body.is_end_stream() => BodyEnd::TooShort,
            None if self.body.is_end_stream() => BodyEnd::Whole,
            _ => BodyEnd::Abandoned,
        };
        self.report(end);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::{FutureExt, StreamExt, future, stream};
    use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};

    use super::*;

    type Ends = Arc<Mutex<Vec<(u64, String)>>>;

    /// Keeps every end reported.
    struct Recorder(Ends);

    impl<B> BodyObserver<B> for Recorder {
        type Cut = &'static str;

        fn ended(self, _: &B, passed: u64, end: BodyEnd<&'static str>) {
            self.0.lock().unwrap().push((passed, format!("{end:?}")));
        }
    }

    type Part = Result<Frame<Bytes>, BoxError>;

    fn data(text: &'static str) -> Part {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    /// Whether the parts, and no more than 8 bytes, arrived whole; and the ends reported.
    async fn read(parts: Vec<Part>, hangs: bool, expected: Option<u64>) -> (bool, Vec<(u64, String)>) {
        let ends = Ends::default();
        let rest = if hangs { stream::pending().boxed() } else { stream::empty().boxed() };
        let body: UnsyncBoxBody<Bytes, BoxError> =
            BodyExt::boxed_unsync(StreamBody::new(stream::iter(parts).chain(rest)));
        let body = LimitedBody::new(body, 8, expected, Recorder(Arc::clone(&ends)));
        let whole = body.cut_by(future::ready("deadline").boxed()).collect().await.is_ok();
        let ends = ends.lock().unwrap().clone();
        (whole, ends)
    }

    fn one(passed: u64, end: &str) -> Vec<(u64, String)> {
        vec![(passed, end.to_owned())]
    }

    #[tokio::test]
    async fn a_body_ends_cleanly_only_if_it_is_whole_and_its_end_is_reported_once() {
        let trailers = Ok(Frame::trailers(HeaderMap::new()));
        assert_eq!(read(vec![data("1234"), trailers, data("5678")], false, None).await, (true, one(8, "Whole")));
        assert_eq!(read(vec![data("1234")], false, Some(4)).await, (true, one(4, "Whole")));
        assert_eq!(read(vec![data("1234"), data("56789")], false, None).await, (false, one(4, "TooLong")));
        assert_eq!(read(vec![data("1234")], false, Some(5)).await, (false, one(4, "TooShort")));
        assert_eq!(read(vec![data("1"), Err("lost".into())], false, None).await, (false, one(1, "Failed(\"lost\")")));
        assert_eq!(read(vec![data("1")], true, None).await, (false, one(1, "Cut(\"deadline\")")));
    }

    #[test]
    fn a_body_dropped_at_its_known_length_is_whole_and_before_is_abandoned() {
        let dropped = |len: usize, frames: usize, expected| {
            let ends = Ends::default();
            let mut body = LimitedBody::new(Full::from(vec![0; len]), 8, expected, Recorder(Arc::clone(&ends)));
            for _ in 0..frames {
                let frame: Option<Option<Result<_, _>>> = body.frame().now_or_never();
                frame.flatten().expect("a frame").expect("data");
            }
            drop(body);
            ends.lock().unwrap().clone()
        };
        assert_eq!(dropped(4, 1, Some(4)), one(4, "Whole"));
        assert_eq!(dropped(4, 1, None), one(4, "Whole"));
        assert_eq!(dropped(4, 0, Some(4)), one(0, "Abandoned"));
        assert_eq!(dropped(4, 1, Some(6)), one(4, "TooShort"));
        assert_eq!(dropped(0, 0, None), one(0, "Whole"));
    }
}
