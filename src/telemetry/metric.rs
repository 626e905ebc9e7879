//! Parts that the metrics of every role are made of.

use std::{
    marker::PhantomData,
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::label_value::LabelValue;

/// From a scrape over a good link (a few milliseconds) to Prometheus's longest usual timeout.
pub(crate) const SCRAPE_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A counter per label value.
#[derive(Debug)]
pub(crate) struct Counters<V> {
    counters: Vec<Counter>,
    values: PhantomData<fn(V)>,
}

impl<V: LabelValue> Counters<V> {
    pub(crate) fn new(registry: &mut Registry, name: &str, help: &str, label: &'static str) -> Self {
        let family = Family::<Label, Counter>::default();
        let counters = V::ALL.iter().map(|value| family.get_or_create_owned(&[(label, value.as_str())])).collect();
        registry.register(name, help, family);
        Self { counters, values: PhantomData }
    }

    pub(crate) fn add(&self, value: V) {
        self.counters[value.index()].inc();
    }
}

/// Metrics of what others count: each shows one number of a state `S`.
#[cfg(any(feature = "scraper", feature = "node"))]
#[derive(Debug)]
pub(crate) struct Readings<S> {
    gauges: Vec<(Gauge, Read<S>)>,
    counters: Vec<(Counter, Read<S>)>,
}

#[cfg(any(feature = "scraper", feature = "node"))]
type Read<S> = fn(&S) -> u64;

#[cfg(any(feature = "scraper", feature = "node"))]
impl<S> Readings<S> {
    pub(crate) fn new() -> Self {
        Self { gauges: Vec::new(), counters: Vec::new() }
    }

    pub(crate) fn gauge(&mut self, registry: &mut Registry, name: &str, help: &str, read: Read<S>) {
        self.gauges.push((gauge(registry, name, help), read));
    }

    pub(crate) fn counter(&mut self, registry: &mut Registry, name: &str, help: &str, read: Read<S>) {
        self.counters.push((counter(registry, name, help), read));
    }

    /// Gauges of one name, by the value of `label`.
    #[cfg(feature = "scraper")]
    pub(crate) fn gauges(
        &mut self,
        registry: &mut Registry,
        (name, help, label): (&str, &str, &'static str),
        reads: &[(&'static str, Read<S>)],
    ) {
        let family = Family::<Label, Gauge>::default();
        self.gauges.extend(reads.iter().map(|(value, read)| (family.get_or_create_owned(&[(label, *value)]), *read)));
        registry.register(name, help, family);
    }

    /// Counters of one name, by the value of `label`.
    pub(crate) fn counters(
        &mut self,
        registry: &mut Registry,
        (name, help, label): (&str, &str, &'static str),
        reads: &[(&'static str, Read<S>)],
    ) {
        let family = Family::<Label, Counter>::default();
        self.counters.extend(reads.iter().map(|(value, read)| (family.get_or_create_owned(&[(label, *value)]), *read)));
        registry.register(name, help, family);
    }

    /// Of two concurrent requests one may hold an older state; a counter never goes back.
    pub(crate) fn show(&self, state: &S) {
        for (gauge, read) in &self.gauges {
            gauge.set(i64::try_from(read(state)).unwrap_or(i64::MAX));
        }
        for (counter, read) in &self.counters {
            counter.inner().fetch_max(read(state), std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// One label.
pub(crate) type Label = [(&'static str, &'static str); 1];

pub(crate) fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

pub(crate) fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// A counter of bytes; its name ends in `_bytes_total`.
pub(crate) fn bytes(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register_with_unit(name, help, Unit::Bytes, counter.clone());
    counter
}

/// A constant gauge of an instant; its name ends in `_seconds`.
pub(crate) fn unix_time(registry: &mut Registry, name: &str, help: &str, at: SystemTime) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    registry.register_with_unit(name, help, Unit::Seconds, gauge);
}
