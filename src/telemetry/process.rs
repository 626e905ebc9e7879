//! What the operating system says of this process, `process_*`, as Prometheus's own client libraries name it.
//!
//! Read anew for each exposition. What cannot be read is left out: outside of Linux that is everything but the start.

use std::{
    fmt, fs,
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

/// Fields of `/proc/self/stat` behind the name of the process, which may hold anything and ends with the last bracket
/// (proc(5) counts from 1, and these are fields 14, 15, 22, 23 and 24).
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const START_TICKS: usize = 19;
const VIRTUAL_BYTES: usize = 20;
const RESIDENT_PAGES: usize = 21;

/// Where the start cannot be read: the first time that somebody wanted to know.
static FIRST_ASKED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// Registers the metrics, which have no prefix of ours.
pub(crate) fn register(registry: &mut Registry) {
    LazyLock::force(&FIRST_ASKED);
    registry.register_collector(Box::new(Process));
}

#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stat = Stat::read();
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        let of = |value: fn(&Stat) -> f64| stat.as_ref().map(value);
        let (bytes, seconds) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
        gauge("process_resident_memory", "Memory of the process that is in RAM", bytes, of(|stat| stat.resident))?;
        gauge("process_virtual_memory", "Address space of the process", bytes, of(|stat| stat.virtual_memory))?;
        gauge("process_open_fds", "Open files and sockets", None, open_files())?;
        gauge("process_max_fds", "Most files and sockets that may be open", None, most_files())?;
        gauge("process_start_time", "Start of the process, in Unix time", seconds, Some(started(stat.as_ref())))?;
        let Some(stat) = stat else { return Ok(()) };
        let cpu = ConstCounter::new(stat.cpu);
        let help = "Time of all processors that the process has used, for itself and in the kernel";
        cpu.encode(encoder.encode_descriptor("process_cpu", help, seconds, cpu.metric_type())?)
    }
}

/// What `/proc/self/stat` says, in bytes and seconds.
struct Stat {
    cpu: f64,
    /// From the machine's start to that of the process.
    start: f64,
    virtual_memory: f64,
    resident: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let field = |at: usize| fields.get(at)?.parse::<f64>().ok();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Some(Self {
            cpu: (field(USER_TICKS)? + field(SYSTEM_TICKS)?) / ticks,
            start: field(START_TICKS)? / ticks,
            virtual_memory: field(VIRTUAL_BYTES)?,
            resident: field(RESIDENT_PAGES)? * rustix::param::page_size() as f64,
        })
    }
}

/// In seconds of Unix time.
fn started(stat: Option<&Stat>) -> f64 {
    let booted = || {
        let text = fs::read_to_string("/proc/stat").ok()?;
        text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()
    };
    let read = stat.and_then(|stat| Some(booted()? + stat.start));
    read.unwrap_or_else(|| FIRST_ASKED.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64())
}

/// Since Linux 6.2 the directory's size says it; before, its entries are counted.
fn open_files() -> Option<f64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        // One of the entries is the directory itself, being read.
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64),
        open => Some(open as f64),
    }
}

fn most_files() -> Option<f64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map(|most| most as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ExpositionFormat;

    #[test]
    fn a_process_says_what_the_kernel_says() {
        let mut registry = Registry::default();
        register(&mut registry);
        let text = ExpositionFormat::Text.encode(&registry);
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
        };
        assert!(value("process_resident_memory_bytes") > 1e6 && value("process_virtual_memory_bytes") > 1e6, "{text}");
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"), "{text}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let started = value("process_start_time_seconds");
        assert!(started > now - 86_400.0 && started <= now + 1.0, "{started} {now}");
        assert!(value("process_cpu_seconds_total") >= 0.0, "{text}");
    }

    #[test]
    fn a_name_with_brackets_moves_no_field() {
        let rest = "S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 9 0 1234 4096 7 0";
        let stat = Stat::parse(&format!("4 (a) b (c) {rest}")).expect("fields");
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!((stat.cpu, stat.start, stat.virtual_memory), (300.0 / ticks, 1234.0 / ticks, 4096.0));
        assert_eq!(stat.resident, 7.0 * rustix::param::page_size() as f64);
        assert!(Stat::parse("4 (a) S 1").is_none() && Stat::parse("").is_none());
    }
}
