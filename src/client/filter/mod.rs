//! Metric families kept or dropped on their way, so that unread families cost no link and no storage.
//!
//! A [`Filter`] is two regular expressions on family names; [`Filtered`] applies a filter to a source. Filters read the two
//! text formats, so the source is asked for plain text, without protobuf and gzip. A kept family passes whole and byte
//! for byte: the `HELP`, `TYPE` and `UNIT` lines and all samples.

mod exposition;
mod family;
#[cfg(all(any(fuzzing, test), feature = "cli"))]
pub(crate) mod fuzzing;
mod line;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt};
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG},
};
use hyper::body::{Body, Frame};
use regex::bytes::Regex;

use self::exposition::Families;
use super::source::{BoxError, Exposition, ExpositionBody, IntoSource, PullReason, PullRequest, Source, SourceError};

/// Most bytes filtered at once: a whole body may arrive in one piece, and the output is a copy.
const PIECE: usize = 64 * 1024;

/// Why a filter cannot be made, or cannot be applied to an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// Not a regular expression.
    #[error("{pattern} is not a regular expression: {reason}")]
    Pattern {
        /// The text given.
        pattern: String,
        /// The fault, in one line.
        reason: String,
    },
    /// The source answered in another format than the text formats that it was asked for.
    #[error("a metric filter reads text, and the source answered {0:?}: turn the filter off, or the format")]
    Format(HeaderValue),
    /// The source encoded its answer, although the request forbade that.
    #[error("a metric filter reads plain text, and the source encoded it as {0:?} unasked")]
    Encoded(HeaderValue),
    /// One line, or the comments on one family, would take too much memory.
    #[error("a line, or the metadata of one family, is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
}

/// Which metric families pass.
///
/// Both expressions match whole names, as in Prometheus's relabelling: `node_cpu` does not match `node_cpu_seconds_total`,
/// `node_cpu.*` does. A counter is found under its name with `_total` and without, an info metric under its name with
/// `_info` and without, because the two text formats differ there. The series of a histogram or summary have no names
/// of their own: `http_seconds` passes with its buckets, sum and count, or not at all.
///
/// ```
/// let filter = narthex::client::Filter::new(Some("node_(cpu|memory)_.*|up"), Some(".*_guest_.*"))?;
/// # Ok::<_, narthex::client::FilterError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Filter {
    keep: Option<Regex>,
    drop: Option<Regex>,
}

impl Filter {
    /// Families pass that match `keep` (all, without `keep`) and do not match `drop`.
    ///
    /// # Errors
    /// [`FilterError::Pattern`] for what is no regular expression of the `regex` crate.
    pub fn new(keep: Option<&str>, drop: Option<&str>) -> Result<Self, FilterError> {
        Ok(Self { keep: keep.map(whole_name).transpose()?, drop: drop.map(whole_name).transpose()? })
    }

    /// True if every family passes, as with the default filter.
    fn passes_all(&self) -> bool {
        self.keep.is_none() && self.drop.is_none()
    }

    fn passes(&self, names: &[&[u8]]) -> bool {
        let any = |regex: &Regex| names.iter().any(|name| regex.is_match(name));
        self.keep.as_ref().is_none_or(any) && !self.drop.as_ref().is_some_and(any)
    }
}

/// Two filters are equal if they are written alike.
impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        let written = |filter: &Self| [&filter.keep, &filter.drop].map(|regex| regex.as_ref().map(Regex::to_string));
        written(self) == written(other)
    }
}

impl Eq for Filter {}

fn whole_name(pattern: &str) -> Result<Regex, FilterError> {
    let failed = |error: regex::Error| {
        // A syntax error is a drawing of several lines; the last names the fault.
        let text = error.to_string();
        let reason = text.lines().last().map(|line| line.trim_start_matches("error: ").to_owned()).unwrap_or_default();
        FilterError::Pattern { pattern: pattern.to_owned(), reason }
    };
    // By itself first: `a)|(b` must not pass because of the parentheses around it.
    Regex::new(pattern).map_err(failed)?;
    Regex::new(&format!("^(?:{pattern})$")).map_err(failed)
}

/// A source behind a filter.
#[derive(Clone, Debug)]
pub(super) struct Filtered<S> {
    source: S,
    filter: Filter,
}

impl<S: Source> Filtered<S> {
    /// Applies the filter to the source.
    pub(super) fn new(source: S, filter: Filter) -> Self {
        Self { source, filter }
    }
}

impl<S: Source> Source for Filtered<S> {
    fn pull(&self, mut request: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>> {
        if self.filter.passes_all() {
            return self.source.pull(request);
        }
        ask_for_text(&mut request.headers);
        async {
            let mut exposition = self.source.pull(request).await?;
            check(&exposition.headers).map_err(|error| SourceError::failed(PullReason::NotMetrics, error))?;
            // These headers describe the unfiltered bytes.
            for header in [CONTENT_LENGTH, ETAG, ACCEPT_RANGES] {
                exposition.headers.remove(header);
            }
            let families = Families::new(self.filter.clone());
            let body = FilteredBody { body: Some(exposition.body), waiting: Bytes::new(), families };
            exposition.body = ExpositionBody::new(body);
            Ok(exposition)
        }
        .boxed()
    }
}

impl<S: Source> IntoSource for Filtered<S> {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(self)
    }
}

/// Removes from `Accept` all but text and wildcards, and asks for no encoding.
fn ask_for_text(headers: &mut HeaderMap) {
    let accepted: Vec<String> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|range| is_text(range) || range.trim_start().starts_with("*/*"))
        .map(|range| range.trim().to_owned())
        .collect();
    // An exporter may answer a wildcard alone with protobuf.
    let named = accepted.iter().any(|range| is_text(range));
    let accept = named.then(|| HeaderValue::from_str(&accepted.join(",")).ok()).flatten();
    headers.insert(ACCEPT, accept.unwrap_or(HeaderValue::from_static("text/plain;version=0.0.4")));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// True for a media type, or a range of `Accept`, that is one of the two text formats.
fn is_text(media: &str) -> bool {
    let media = media.split(';').next().unwrap_or_default().trim();
    ["text/plain", "application/openmetrics-text"].iter().any(|text| media.eq_ignore_ascii_case(text))
}

/// An answer without a content type counts as text, as in Prometheus for long.
fn check(headers: &HeaderMap) -> Result<(), FilterError> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(FilterError::Encoded(encoding.clone()));
    }
    match headers.get(CONTENT_TYPE) {
        Some(content_type) if !content_type.to_str().is_ok_and(is_text) => {
            Err(FilterError::Format(content_type.clone()))
        }
        _ => Ok(()),
    }
}

/// Filters a body as it streams; holds one line and one piece of it.
struct FilteredBody {
    /// None after the end.
    body: Option<ExpositionBody>,
    waiting: Bytes,
    families: Families,
}

impl Body for FilteredBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut passed = BytesMut::new();
        while let Some(body) = &mut this.body {
            if this.waiting.is_empty() {
                match ready!(Pin::new(body).poll_frame(cx)) {
                    Some(Ok(frame)) => this.waiting = frame.into_data().unwrap_or_default(),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {
                        this.body = None;
                        this.families.end(&mut passed);
                    }
                }
            }
            let piece = this.waiting.split_to(this.waiting.len().min(PIECE));
            if let Err(error) = this.families.take(&piece, &mut passed) {
                this.body = None;
                return Poll::Ready(Some(Err(error.into())));
            }
            if !passed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(passed.freeze()))));
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests;
