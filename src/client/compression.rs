//! Compression on the link, for sources that do not compress.
//!
//! An exposition is compressed only if the scrape accepts gzip, the source did not encode it already, none of
//! its headers forbids that, and it is long enough to be worth the work. Everything else passes byte for byte.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use flate2::write::GzEncoder;
use futures::{StreamExt, stream};
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, VARY},
};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::{Body, Frame, SizeHint};

use super::source::{BoxError, Exposition, ExpositionBody};
use crate::http::expected_len;

/// The fastest level: higher ones take several times as long for a fifth to a quarter less.
const DEFAULT_LEVEL: u8 = 1;
/// Most bytes of a body of unknown length that are read before the first is sent.
const MAX_READ_AHEAD: usize = 1024 * 1024;
/// Most bytes compressed at once: an executor's turn must stay short.
const PIECE: usize = 64 * 1024;
/// Fewest compressed bytes that are worth a frame.
const FRAME: usize = 8 * 1024;

/// Whether expositions that their source did not compress are compressed on the link. Default: [`Off`](Self::Off).
///
/// Gzip sends a quarter to a fifth of the bytes of usual metrics, for CPU time of the client. On a fast link that gains
/// nothing; on a slow or metered one much. The numbers are in `docs/performance.md`.
///
/// ```
/// use narthex::client::Compression;
///
/// let smaller = Compression::gzip().min_size(10_000).level(6);
/// assert_ne!(smaller, Compression::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Expositions pass as they are.
    #[default]
    Off,
    /// Expositions are compressed as they stream if the scrape accepts gzip, as Prometheus's do.
    #[non_exhaustive]
    Gzip {
        /// The shortest exposition worth it, in bytes; at most 1 MiB is waited for.
        min_size: usize,
        /// 1 (fastest) to 9 (smallest).
        level: u8,
    },
}

impl Compression {
    /// The shortest exposition that [`gzip`](Self::gzip) compresses: a shorter one fits into a packet or two anyway.
    pub const DEFAULT_MIN_SIZE: usize = 2048;

    /// Gzip from 2048 bytes on, at level 1: higher ones take several times as long for a fifth to a quarter less.
    pub fn gzip() -> Self {
        Self::Gzip { min_size: Self::DEFAULT_MIN_SIZE, level: DEFAULT_LEVEL }
    }

    /// Gzip from another length on. Changes nothing if it is off.
    pub fn min_size(self, bytes: usize) -> Self {
        match self {
            Self::Off => self,
            Self::Gzip { level, .. } => Self::Gzip { min_size: bytes, level },
        }
    }

    /// Gzip at another level, 1 to 9. Changes nothing if it is off.
    pub fn level(self, level: u8) -> Self {
        match self {
            Self::Off => self,
            Self::Gzip { min_size, .. } => Self::Gzip { min_size, level },
        }
    }

    /// Makes an exposition ready for the link. A body of unknown length is read until it is long enough.
    pub(super) async fn apply(self, accepted: bool, mut exposition: Exposition) -> (HeaderMap, LinkBody) {
        let Self::Gzip { min_size, level } = self else { return exposition.pass() };
        if !accepted || !may_be_encoded(&exposition.headers) {
            return exposition.pass();
        }
        let min_size = min_size.min(MAX_READ_AHEAD);
        let len = match expected_len(&exposition.headers, &exposition.body) {
            Some(len) => len,
            None => {
                let (body, read) = read_ahead(exposition.body, min_size).await;
                exposition.body = body;
                read as u64
            }
        };
        if len < min_size as u64 || len == 0 {
            return exposition.pass();
        }
        let mut headers = exposition.headers;
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
        (headers, LinkBody::Gzip(Box::new(Gzipped::new(exposition.body, level))))
    }
}

impl Exposition {
    fn pass(self) -> (HeaderMap, LinkBody) {
        (self.headers, LinkBody::AsItIs(self.body))
    }
}

/// True if the scrape takes gzip (RFC 9110, section 12.5.3).
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (mut gzip, mut any) = (None, false);
    for coding in values.flat_map(|value| value.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix(['q', 'Q']).and_then(|q| q.strip_prefix('='));
        let weight = weight.map_or(Ok(1.0), |q| q.trim().parse::<f32>());
        let wanted = weight.is_ok_and(|weight| weight > 0.0);
        match name.trim() {
            "*" => any = wanted,
            name if name.eq_ignore_ascii_case("gzip") => gzip = Some(wanted),
            _ => {}
        }
    }
    gzip.unwrap_or(any)
}

/// A validator or a range is about these very bytes, and `no-transform` is a request to leave them alone.
fn may_be_encoded(headers: &HeaderMap) -> bool {
    let mut cache = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    !cache.any(|value| value.to_ascii_lowercase().contains("no-transform"))
        && ![CONTENT_ENCODING, CONTENT_RANGE, ETAG].iter().any(|header| headers.contains_key(header))
}

/// A body as it goes over the link.
pub(super) enum LinkBody {
    /// The source's own.
    AsItIs(ExpositionBody),
    /// Compressed on its way.
    Gzip(Box<Gzipped>),
}

impl LinkBody {
    /// How many bytes of the source went into the `sent` bytes of this body.
    pub(super) fn uncompressed(&self, sent: u64) -> u64 {
        match self {
            Self::AsItIs(_) => sent,
            Self::Gzip(body) => body.uncompressed,
        }
    }
}

impl Body for LinkBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::AsItIs(body) => Pin::new(body).poll_frame(cx),
            Self::Gzip(body) => body.poll_data(cx).map(|data| data.map(|data| data.map(Frame::data))),
        }
    }

    /// The end of a compressed body is known only once the encoder is finished.
    fn is_end_stream(&self) -> bool {
        match self {
            Self::AsItIs(body) => body.is_end_stream(),
            Self::Gzip(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::AsItIs(body) => body.size_hint(),
            Self::Gzip(_) => SizeHint::default(),
        }
    }
}

/// Compresses a body as it streams; holds a deflate window and one piece of the body.
pub(super) struct Gzipped {
    body: ExpositionBody,
    /// None after the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
    waiting: Bytes,
    uncompressed: u64,
}

impl Gzipped {
    fn new(body: ExpositionBody, level: u8) -> Self {
        let level = flate2::Compression::new(u32::from(level.clamp(1, 9)));
        let encoder = Some(GzEncoder::new(Vec::new(), level));
        Self { body, encoder, waiting: Bytes::new(), uncompressed: 0 }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        while let Some(encoder) = &mut self.encoder {
            if !self.waiting.is_empty() {
                let piece = self.waiting.split_to(self.waiting.len().min(PIECE));
                self.uncompressed += piece.len() as u64;
                match compress(encoder, &piece) {
                    Ok(out) if out.is_empty() => {}
                    out => return Poll::Ready(Some(out.map_err(Into::into))),
                }
                continue;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                // Trailers belong to one connection.
                Some(Ok(frame)) => self.waiting = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let last = self.encoder.take().map_or(Ok(Vec::new()), GzEncoder::finish);
                    return Poll::Ready(Some(last.map(Bytes::from).map_err(Into::into)));
                }
            }
        }
        Poll::Ready(None)
    }
}

/// Gives what has come out once it is worth a frame.
fn compress(encoder: &mut GzEncoder<Vec<u8>>, piece: &[u8]) -> io::Result<Bytes> {
    encoder.write_all(piece)?;
    let out = encoder.get_mut();
    Ok(if out.len() < FRAME { Bytes::new() } else { std::mem::take(out).into() })
}

/// Reads `len` bytes, or all there are. Returns the body, with these bytes again, and how many were read.
async fn read_ahead(mut body: ExpositionBody, len: usize) -> (ExpositionBody, usize) {
    let (mut begin, mut read) = (Vec::new(), 0);
    let rest = loop {
        if read >= len {
            break Some(body);
        }
        let Some(frame) = body.frame().await else { break None };
        read += frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Buf::remaining);
        let failed = frame.is_err();
        begin.push(frame);
        if failed {
            break None;
        }
    };
    let frames = stream::iter(begin).chain(stream::iter(rest.map(BodyStream::new)).flatten());
    (StreamBody::new(frames).boxed_unsync(), read)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http::header::CONTENT_TYPE;

    use super::*;

    const FROM_100: Compression = Compression::Gzip { min_size: 100, level: 1 };

    fn text(len: usize) -> String {
        let lines = (0..).flat_map(|n| format!("lines_total{{n=\"{n}\"}} {}\n", n * 7919 % 1000).into_bytes());
        String::from_utf8(lines.take(len).collect()).unwrap()
    }

    /// A body without a length, in such pieces.
    fn streamed(text: &str, piece: usize) -> Exposition {
        let pieces: Vec<_> =
            text.as_bytes().chunks(piece).map(|p| Ok(Frame::data(Bytes::copy_from_slice(p)))).collect();
        let mut exposition = Exposition::new(Exposition::TEXT, "");
        exposition.body = StreamBody::new(stream::iter(pieces)).boxed_unsync();
        exposition
    }

    async fn bytes(body: LinkBody) -> Vec<u8> {
        body.collect().await.unwrap().to_bytes().to_vec()
    }

    fn unzipped(bytes: &[u8]) -> String {
        let mut text = String::new();
        GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn gzip_is_accepted_by_name_or_wildcard_unless_its_weight_is_zero() {
        let accepts = |value: &'static str| {
            accepts_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        for yes in ["gzip", "deflate, GZIP;q=0.5", "*", "br , gzip", "*;q=0, gzip"] {
            assert!(accepts(yes), "{yes}");
        }
        for no in ["", "identity", "gzip;q=0", "gzip;Q=0", "gzip; q=0.0, *", "deflate", "gzip;q=nonsense", "xgzip"] {
            assert!(!accepts(no), "{no}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()), "who does not ask gets plain text");
    }

    #[tokio::test]
    async fn a_long_text_is_compressed_and_a_short_one_passes_whether_its_length_is_known_or_not() {
        for (len, compressed) in [(0, false), (1, false), (99, false), (100, true), (300_000, true)] {
            let text = text(len);
            for exposition in [Exposition::from(text.clone()), streamed(&text, 7), streamed(&text, 1_000_000)] {
                let (headers, body) = FROM_100.apply(true, exposition).await;
                assert_eq!(headers.contains_key(CONTENT_ENCODING), compressed, "{len}");
                assert_eq!(headers.contains_key(VARY), compressed, "{len}");
                assert_eq!(headers[CONTENT_TYPE], Exposition::TEXT);
                let sent = bytes(body).await;
                assert!(if compressed { unzipped(&sent) == text } else { sent == text.as_bytes() }, "{len}");
            }
        }
    }

    #[tokio::test]
    async fn what_was_not_asked_for_or_must_stay_as_it_is_passes() {
        let passes = async |compression: Compression, accepted, header: Option<(http::HeaderName, &'static str)>| {
            let mut exposition = Exposition::from(text(1000));
            exposition.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("1000"));
            let header = header.map(|(name, value)| (name, HeaderValue::from_static(value)));
            exposition.headers.extend(header);
            let before = exposition.headers.clone();
            let (headers, body) = compression.apply(accepted, exposition).await;
            headers == before && bytes(body).await == text(1000).as_bytes()
        };
        assert!(!passes(FROM_100, true, None).await);
        assert!(passes(FROM_100, false, None).await);
        assert!(passes(Compression::Off, true, None).await);
        assert!(passes(FROM_100, true, Some((CONTENT_ENCODING, "zstd"))).await);
        assert!(passes(FROM_100, true, Some((CACHE_CONTROL, "private, No-Transform"))).await);
        assert!(passes(FROM_100, true, Some((ETAG, "\"v1\""))).await);
    }

    #[tokio::test]
    async fn a_long_body_is_compressed_piece_by_piece_and_counted() {
        let text = text(1_000_000);
        let (headers, mut body) = FROM_100.apply(true, Exposition::from(text.clone())).await;
        assert!(!headers.contains_key(CONTENT_LENGTH));
        let (mut sent, mut frames) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            frames += 1;
            sent.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        assert!(frames > 3 && sent.len() < text.len() / 3, "{frames} frames, {} bytes", sent.len());
        assert_eq!((body.uncompressed(sent.len() as u64), unzipped(&sent) == text), (1_000_000, true));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_never_ends_as_whole_gzip() {
        for (before, compressed) in [(10, false), (500, true)] {
            let frames = vec![Ok(Frame::data(text(before).into())), Err::<Frame<Bytes>, BoxError>("cut".into())];
            let mut exposition = Exposition::new(Exposition::TEXT, "");
            exposition.body = StreamBody::new(stream::iter(frames)).boxed_unsync();
            let (headers, body) = FROM_100.apply(true, exposition).await;
            assert_eq!(headers.contains_key(CONTENT_ENCODING), compressed);
            assert_eq!(body.collect().await.unwrap_err().to_string(), "cut");
        }
    }
}
