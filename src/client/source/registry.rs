//! Registries of the two Prometheus client crates.

use std::sync::Arc;

use super::{Exposition, IntoSource, Source, Text};

/// OpenMetrics text, the one format that `prometheus-client` writes.
impl IntoSource for Arc<prometheus_client::registry::Registry> {
    fn into_source(self) -> Arc<dyn Source> {
        let write = move || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &self)?;
            Ok(text)
        };
        Text::new(Exposition::OPEN_METRICS, write).into_source()
    }
}

/// The text format of the `prometheus` crate; also what `opentelemetry-prometheus` writes to.
#[cfg(feature = "prometheus")]
impl IntoSource for prometheus::Registry {
    fn into_source(self) -> Arc<dyn Source> {
        let write = move || Ok(prometheus::TextEncoder::new().encode_to_string(&self.gather())?);
        Text::new(Exposition::TEXT, write).into_source()
    }
}
