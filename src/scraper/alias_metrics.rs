//! How each alias is linked, `narthex_alias_*`: an alert can distinguish a dead exporter from a lost agent.
//!
//! Each alias has its series, as in `up`, bounded by the table's limit. These metrics have a page of their own: no label
//! of [`ScraperMetrics`](super::metrics::ScraperMetrics) is a peer's choice.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::Registry,
};

use crate::{network::LinkPath, registry::Lease, telemetry::ExpositionFormat};

/// The exposition of these leases, each behind the path to its holder.
pub(super) fn alias_metrics(links: Vec<(Option<LinkPath>, Arc<Lease>)>, format: ExpositionFormat) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(AliasLinks(links)));
    format.encode(&registry)
}

#[derive(Debug)]
struct AliasLinks(Vec<(Option<LinkPath>, Arc<Lease>)>);

impl AliasLinks {
    fn family(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: fn(Option<LinkPath>) -> bool,
    ) -> fmt::Result {
        let gauge = |path| ConstGauge::new(i64::from(value(path)));
        let mut family = encoder.encode_descriptor(name, help, None, gauge(None).metric_type())?;
        for (path, lease) in &self.0 {
            gauge(*path).encode(family.encode_family(&[("alias", lease.alias.as_str())])?)?;
        }
        Ok(())
    }
}

impl Collector for AliasLinks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        self.family(e, "narthex_alias_link_up", "1 while the peer that holds the alias is linked.", |path| {
            path.is_some()
        })?;
        self.family(e, "narthex_alias_link_relayed", "1 while that link goes through a relay.", |path| {
            path == Some(LinkPath::Relayed)
        })
    }
}
