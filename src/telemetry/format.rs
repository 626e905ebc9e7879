//! The formats of own metrics.

use http::{HeaderMap, header::ACCEPT};
use prometheus_client::{encoding::text, registry::Registry};

use super::classic::classic;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpositionFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's text format 0.0.4, which every reader knows.
    Text,
}

impl ExpositionFormat {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The format for a request: OpenMetrics if the request accepts that, else the text format.
    pub(crate) fn asked_for(headers: &HeaderMap) -> Self {
        let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
        match accepted.any(|accept| accept.contains("application/openmetrics-text")) {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    pub(crate) fn encode(self, registry: &Registry) -> String {
        let mut exposition = String::with_capacity(8 * 1024);
        text::encode(&mut exposition, registry).expect("writing to a String does not fail");
        match self {
            Self::OpenMetrics => exposition,
            Self::Text => classic(&exposition),
        }
    }
}
