//! A body whose first frame was looked at.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};

use super::answer::Beginning;
use crate::client::{BoxError, ExpositionBody};

/// Passes on what it has looked at, and the rest as it comes.
pub(super) struct Begun {
    first: Option<Frame<Bytes>>,
    rest: ExpositionBody,
}

impl Begun {
    /// Waits for the first frame.
    ///
    /// # Errors
    /// That of the body, if it is the first thing that comes.
    pub(super) async fn new(mut body: ExpositionBody) -> Result<Self, BoxError> {
        let first = body.frame().await.transpose()?;
        Ok(Self { first, rest: body })
    }

    pub(super) fn beginning(&self) -> Beginning<'_> {
        let bytes = self.first.as_ref().and_then(Frame::data_ref).map_or(&[][..], |data| data);
        Beginning { bytes, is_all: self.rest.is_end_stream() }
    }
}

impl Body for Begun {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.remaining() as u64);
        let (rest, mut whole) = (self.rest.size_hint(), SizeHint::new());
        whole.set_lower(rest.lower() + first);
        if let Some(upper) = rest.upper() {
            whole.set_upper(upper + first);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn full(text: &'static str) -> ExpositionBody {
        Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
    }

    #[tokio::test]
    async fn nothing_of_it_is_lost_and_its_length_stays_known() {
        for (text, is_all) in [("", true), ("m 1\n", true)] {
            let begun = Begun::new(full(text)).await.expect("a body");
            assert_eq!((begun.beginning().bytes, begun.beginning().is_all), (text.as_bytes(), is_all));
            assert_eq!((begun.size_hint().exact(), begun.is_end_stream()), (Some(text.len() as u64), text.is_empty()));
            assert_eq!(begun.collect().await.expect("a body").to_bytes(), text);
        }
        let pieces = ["m 1\n", "n 2\n"].map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from(piece))));
        let begun = Begun::new(StreamBody::new(stream::iter(pieces)).boxed_unsync()).await.expect("a body");
        assert_eq!((begun.beginning().bytes, begun.beginning().is_all), (&b"m 1\n"[..], false));
        assert_eq!(begun.size_hint().exact(), None);
        assert_eq!(begun.collect().await.expect("a body").to_bytes(), "m 1\nn 2\n");
    }

    #[tokio::test]
    async fn a_body_that_fails_at_once_has_no_beginning() {
        let failed = stream::iter([Err::<Frame<Bytes>, _>(BoxError::from("broken"))]);
        assert!(Begun::new(StreamBody::new(failed).boxed_unsync()).await.is_err());
    }
}
