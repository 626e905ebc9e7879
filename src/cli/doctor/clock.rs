//! This host's clock, compared with another clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{lookup::whole_seconds, report::Check};
use crate::network::Whereabouts;

/// 2024-01-01: narthex is younger, so an earlier time is wrong.
const OLDEST: Duration = Duration::from_secs(1_704_067_200);
/// A difference that harms nobody, because leases and announcements live for minutes.
const TOLERANCE: Duration = Duration::from_secs(60);

/// The time that the scraper sent.
pub(super) struct PeerTime {
    pub(super) time: SystemTime,
    /// When the answer came, by this host's clock.
    pub(super) received_at: SystemTime,
}

/// Compares with the clock of a peer, or else with the time of the found announcement. An announcement from the future
/// means a wrong clock; `proves` is what any other announcement shows.
pub(super) fn check(peer_time: Option<PeerTime>, found: Option<&Whereabouts>, proves: &str) -> Check {
    let name = "clock";
    let now = SystemTime::now();
    let formatted = humantime::format_rfc3339_seconds(now.max(UNIX_EPOCH));
    let advice = "set the clock of this host, or of the other, right (NTP)";
    if now < UNIX_EPOCH + OLDEST {
        return Check::failed(name, format!("{formatted} cannot be: this host's clock is wrong"), advice);
    }
    if let Some(PeerTime { time, received_at }) = peer_time {
        let (apart, direction) = match received_at.duration_since(time) {
            Ok(ahead) => (ahead, "ahead of"),
            Err(behind) => (behind.duration(), "behind"),
        };
        return if apart > TOLERANCE {
            Check::failed(
                name,
                format!("this host is {} {direction} the scraper ({formatted} here)", whole_seconds(apart)),
                advice,
            )
        } else {
            Check::ok(name, format!("within {} s of that of the scraper", apart.as_secs() + 1))
        };
    }
    match found {
        Some(found) if found.announced_at > now + TOLERANCE => {
            let by = whole_seconds(found.announced_at.duration_since(now).unwrap_or_default());
            Check::failed(
                name,
                format!("the scraper's announcement is {by} ahead of this host's clock ({formatted})"),
                advice,
            )
        }
        Some(_) => Check::ok(name, format!("{formatted}; {proves}")),
        None => Check::skipped(name, format!("{formatted}; there was nothing to compare it with")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_far_from_the_scrapers_is_wrong() {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        for (at, fine) in [(now, true), (now - hour, false), (now + hour, false)] {
            let peer_time = PeerTime { time: at, received_at: now };
            assert_eq!(check(Some(peer_time), None, "").is_ok(), fine);
            let found = Whereabouts { announced_at: at, public: 1, private: 0, relayed: 0 };
            assert_eq!(check(None, Some(&found), "").is_ok(), at <= now, "an old announcement proves nothing");
        }
        assert!(!check(None, None, "").is_ok(), "nothing was checked");
    }
}
