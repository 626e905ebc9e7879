//! The limit on open files: each link over TCP takes one, and each HTTP connection.

use crate::{http::HttpLimits, network::NetworkLimits};

/// Files besides connections: the listening sockets, the table, the runtime, links that this process dials, HTTP
/// connections that wait for a place or are for probes, and some room.
const OTHERS: u64 = 512;
/// The part of all open files that HTTP connections may take in any case: peers over QUIC take none.
const HTTP_PART: u64 = 4;

/// Raises the soft limit to the hard one, as far as the system permits, and gives the limit that holds now.
///
/// The usual soft limit of 1024 would stop a scraper at a thousand peers. The limit is low only for programs that use
/// `select`.
pub(super) fn raise_limit() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "could not raise the limit on open files");
        rlimit::Resource::NOFILE.get_soft().unwrap_or_default()
    })
}

/// Says so if all the permitted connections need more than `open_files`, and lowers the HTTP side's to what is left.
pub(super) fn fit(open_files: u64, peers: &NetworkLimits, http: &mut HttpLimits) {
    let Some(fitting) = fitting(open_files, peers.connections.into(), http.connections as u64) else { return };
    tracing::warn!(
        open_files,
        needed = peers.connections as u64 + http.connections as u64 + OTHERS,
        max_connections = peers.connections,
        max_http_connections = http.connections,
        http_connections_now = fitting,
        "the limit on open files is lower than the connections permitted: raise it (LimitNOFILE= of systemd, ulimit -n), \
         or lower --max-connections or --max-http-connections"
    );
    http.connections = usize::try_from(fitting).unwrap_or(usize::MAX);
    http.connections_per_ip = http.connections_per_ip.min(http.connections);
}

/// How many HTTP connections fit beside those of peers; none if all of them do.
fn fitting(open_files: u64, peers: u64, http: u64) -> Option<u64> {
    let left = open_files.saturating_sub(peers.saturating_add(OTHERS));
    (left < http).then(|| left.max(open_files / HTTP_PART).clamp(1, http))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_connections_that_do_not_fit_are_fewer_and_never_none() {
        assert_eq!(fitting(1 << 20, 16_384, 10_240), None);
        assert_eq!(fitting(16_384 + 10_240 + OTHERS, 16_384, 10_240), None);
        assert_eq!(fitting(26_000, 16_384, 10_240), Some(26_000 - 16_384 - OTHERS));
        assert_eq!(fitting(20_000, 16_384, 10_240), Some(5000));
        assert_eq!(fitting(1024, 16_384, 10_240), Some(256));
        assert_eq!(fitting(1024, 16_384, 100), Some(100));
        assert_eq!(fitting(0, 16_384, 10_240), Some(1));
    }
}
