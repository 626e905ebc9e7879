//! What a process costs, as the kernel counts it.

use std::{fs, time::Duration};

use crate::BoxError;

/// CPU time so far, user and system.
pub(crate) fn cpu(pid: u32) -> Result<Duration, BoxError> {
    const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ, the same on every Linux
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').ok_or("odd /proc/PID/stat")?.1;
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

/// Resident memory.
pub(crate) fn memory_kib(pid: u32) -> Result<u64, BoxError> {
    status(pid, "VmRSS:")
}

/// Most resident memory so far.
pub(crate) fn peak_memory_kib(pid: u32) -> Result<u64, BoxError> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, field: &str) -> Result<u64, BoxError> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("odd /proc/PID/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
