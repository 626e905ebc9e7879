//! Shared set-up: processes of narthex and of its real peers, an exporter that misbehaves on demand, and a plain HTTP
//! client that hides nothing.
//!
//! Everything runs on 127.0.0.1, or in network namespaces of its own ([`lab`]), in directories that go away with the
//! test, and dies with its handle. Waiting is [`eventually`]: on a condition, with a deadline that a healthy run does
//! not come near.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::{
    fs::{self, File},
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub(crate) mod cable;
pub(crate) mod connect_proxy;
pub(crate) mod crowd;
pub(crate) mod dht_peer;
pub(crate) mod disk;
pub(crate) mod exporter;
pub(crate) mod fleet;
pub(crate) mod honest;
pub(crate) mod http;
pub(crate) mod lab;
pub(crate) mod linked;
pub(crate) mod nats;
pub(crate) mod netns;
pub(crate) mod peers;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod protobuf;
pub(crate) mod random;
pub(crate) mod stranger;
pub(crate) mod tls;

/// How long something that usually takes milliseconds may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// How long Prometheus may take to notice: it hands discoveries on every 5 s, and then waits for the scrape's turn.
pub(crate) const PROMETHEUS_NOTICES: Duration = Duration::from_secs(40);

/// Asks until `probe` finds something, and panics with `what` when `within` has passed.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// As [`eventually`], for a condition without a value.
#[track_caller]
pub(crate) fn eventually_true(what: &str, within: Duration, mut probe: impl FnMut() -> bool) {
    eventually(what, within, || probe().then_some(()));
}

/// Replaces a file by a rename, as writers of target files should.
pub(crate) fn replace_file(path: &Path, content: &str) {
    let next = path.with_file_name(".next");
    fs::write(&next, content).expect("writes");
    fs::rename(next, path).expect("renames");
}

/// Bytes that no compression shrinks, the same on every run.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut random = random::Random(0);
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

/// A log file of a process.
fn append_to(path: &Path) -> File {
    File::options().create(true).append(true).open(path).expect("a log file opens")
}
