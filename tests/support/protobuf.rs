//! A native histogram as `io.prometheus.client.MetricFamily`, delimited, written by hand.
//!
//! Field numbers are those of client_model's `metrics.proto`. Small on purpose: what the tests need of it is a body that
//! holds every kind of byte and that Prometheus itself takes for a native histogram.

/// A histogram `name` with `counts` observations in the buckets 0, 1, .. of schema 0 (powers of two).
pub(crate) fn native_histogram(name: &str, counts: &[u64]) -> Vec<u8> {
    let total: u64 = counts.iter().sum();
    // BucketSpan { offset: 0, length }
    let span = [field_varint(1, zigzag(0)), field_varint(2, counts.len() as u64)].concat();
    let mut before = 0;
    let deltas = counts.iter().flat_map(|&count| {
        let delta = count as i64 - before;
        before = count as i64;
        varint(zigzag(delta))
    });
    let histogram = [
        field_varint(1, total),
        field_double(2, 42.5),
        field_varint(5, zigzag(0)),
        field_double(6, 1e-128),
        field_varint(7, 0),
        field_bytes(12, &span),
        field_bytes(13, &deltas.collect::<Vec<u8>>()),
    ]
    .concat();
    let family = [
        field_bytes(1, name.as_bytes()),
        field_bytes(2, b"made by hand"),
        field_varint(3, 4), // HISTOGRAM
        field_bytes(4, &field_bytes(7, &histogram)),
    ]
    .concat();
    [varint(family.len() as u64), family].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn field_varint(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn field_double(number: u64, value: f64) -> Vec<u8> {
    [varint(number << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

fn field_bytes(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}
