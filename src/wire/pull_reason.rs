//! Why a pull has no exposition, as its client tells the scraper: a word of a closed set, in a header of the answer.
//!
//! The word says where to look, and holds nothing of the client's own: no URL, no host, no text of an exporter.

#[cfg(feature = "scraper")]
use std::borrow::Cow;
use std::fmt;

#[cfg(feature = "scraper")]
use http::HeaderMap;
use http::{HeaderName, HeaderValue, StatusCode};

/// The header of an answer with a [`PullReason`]. Peers that do not know the header ignore it.
pub(crate) const REASON_HEADER: HeaderName = HeaderName::from_static("narthex-reason");

/// The class of a source's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PullReason {
    /// Nothing listens at the exporter's address.
    Refused,
    /// No packet reaches the exporter's host.
    Unreachable,
    /// The name of the exporter's host has no address.
    Dns,
    /// No TLS with the exporter.
    Tls,
    /// The source did not answer in time.
    Timeout,
    /// The exporter answered with this status.
    Status(StatusCode),
    /// The answer is a page, or something else that is no exposition.
    NotMetrics,
    /// The exposition is longer than the client hands over.
    TooLarge,
    /// Anything else.
    Other,
}

impl PullReason {
    /// What has happened, in words.
    #[cfg(feature = "scraper")]
    pub(crate) fn words(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Refused => "nothing listens at the exporter's address",
            Self::Unreachable => "the exporter's host cannot be reached",
            Self::Dns => "the name of the exporter's host has no address",
            Self::Tls => "no TLS with the exporter",
            Self::Timeout => "the exporter did not answer in time",
            Self::Status(status) => return Cow::Owned(format!("the exporter answered {status}")),
            Self::NotMetrics => "the exporter's answer is no metrics",
            Self::TooLarge => "the exposition is longer than the client hands over",
            Self::Other => "the source failed",
        })
    }

    /// The reason in an answer's headers. A word that is none of ours is [`Other`](Self::Other).
    #[cfg(feature = "scraper")]
    pub(crate) fn of(answer: &HeaderMap) -> Option<Self> {
        let said = answer.get(REASON_HEADER)?;
        Some(said.to_str().ok().and_then(Self::parse).unwrap_or(Self::Other))
    }

    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("a word, and digits")
    }
}

impl fmt::Display for PullReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Status(status) => return write!(f, "status={}", status.as_u16()),
            Self::NotMetrics => "not-metrics",
            Self::TooLarge => "too-large",
            Self::Other => "other",
        })
    }
}

#[cfg(feature = "scraper")]
impl PullReason {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "refused" => Self::Refused,
            "unreachable" => Self::Unreachable,
            "dns" => Self::Dns,
            "tls" => Self::Tls,
            "timeout" => Self::Timeout,
            "not-metrics" => Self::NotMetrics,
            "too-large" => Self::TooLarge,
            "other" => Self::Other,
            _ => {
                let digits = text.strip_prefix("status=")?;
                Self::Status(StatusCode::from_bytes(digits.as_bytes()).ok()?)
            }
        })
    }
}

#[cfg(all(test, feature = "scraper"))]
mod tests {
    use super::*;

    fn of(said: &[u8]) -> Option<PullReason> {
        PullReason::of(&HeaderMap::from_iter([(REASON_HEADER, HeaderValue::from_bytes(said).expect("a header"))]))
    }

    #[test]
    fn each_reason_crosses_as_its_word() {
        use PullReason::{Dns, NotMetrics, Other, Refused, Status, Timeout, Tls, TooLarge, Unreachable};
        let status = Status(StatusCode::UNAUTHORIZED);
        for reason in [Refused, Unreachable, Dns, Tls, Timeout, status, NotMetrics, TooLarge, Other] {
            assert_eq!(of(reason.header().as_bytes()), Some(reason));
        }
        assert_eq!(status.to_string(), "status=401");
        assert_eq!(PullReason::of(&HeaderMap::new()), None, "a client of before says nothing");
    }

    #[test]
    fn what_a_stranger_says_beside_the_set_is_other() {
        let long = [b'x'; 5000];
        let texts: [&[u8]; 8] =
            [b"", b"Refused", b"status=", b"status=99", b"status=1000", b"status=5\xff3", b"refused\t", &long];
        for said in texts {
            assert_eq!(of(said), Some(PullReason::Other), "{said:?}");
        }
    }
}
