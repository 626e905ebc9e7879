//! What the metrics of both roles are made of.

use std::{
    marker::PhantomData,
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::word::Word;

/// A counter per word.
#[derive(Debug)]
pub(super) struct Counters<W> {
    counters: Vec<Counter>,
    words: PhantomData<fn(W)>,
}

impl<W: Word> Counters<W> {
    pub(super) fn new(registry: &mut Registry, name: &str, help: &str, label: &'static str) -> Self {
        let family = Family::<Label, Counter>::default();
        let counters = W::ALL.iter().map(|word| family.get_or_create_owned(&[(label, word.word())])).collect();
        registry.register(name, help, family);
        Self { counters, words: PhantomData }
    }

    pub(super) fn add(&self, word: W) {
        self.counters[word.index()].inc();
    }
}

/// One label.
pub(super) type Label = [(&'static str, &'static str); 1];

pub(super) fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

pub(super) fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// A counter of bytes; its name ends in `_bytes_total`.
pub(super) fn bytes(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register_with_unit(name, help, Unit::Bytes, counter.clone());
    counter
}

/// A constant gauge of an instant; its name ends in `_seconds`.
pub(super) fn unix_time(registry: &mut Registry, name: &str, help: &str, at: SystemTime) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    registry.register_with_unit(name, help, Unit::Seconds, gauge);
}

/// A constant gauge with this build's version.
pub(super) fn build_info(registry: &mut Registry) {
    let build = Family::<Label, Gauge>::default();
    build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
    registry.register("build_info", "Always 1, labelled with the version", build);
}

/// From a scrape over a good link (a few milliseconds) to Prometheus's longest usual timeout.
pub(super) const SCRAPE_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
