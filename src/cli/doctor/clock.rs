//! This host's clock, against whatever tells the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{lookup::whole_seconds, report::Check};
use crate::network::Whereabouts;

/// Who told which time.
pub(super) struct Told {
    pub(super) by: &'static str,
    pub(super) at: SystemTime,
    /// When it was told, by our clock.
    pub(super) heard: SystemTime,
}

/// Against the scraper's own clock, or else against the announcement that we found: one from the future is a wrong clock, and any
/// other `proves` what it does.
pub(super) fn check(told: Option<Told>, found: Option<&Whereabouts>, proves: &str) -> Check {
    let name = "clock";
    let now = SystemTime::now();
    let shown = humantime::format_rfc3339_seconds(now.max(UNIX_EPOCH));
    let advice = "set the clock of this host, or of the other, right (NTP)";
    if now < UNIX_EPOCH + OLDEST {
        return Check::failed(name, format!("{shown} cannot be: this host's clock is wrong"), advice);
    }
    if let Some(Told { by, at, heard }) = told {
        let (apart, word) = match heard.duration_since(at) {
            Ok(ahead) => (ahead, "ahead of"),
            Err(behind) => (behind.duration(), "behind"),
        };
        return if apart > TOLERANCE {
            Check::failed(name, format!("this host is {} {word} {by} ({shown} here)", whole_seconds(apart)), advice)
        } else {
            Check::ok(name, format!("within {} s of that of {by}", apart.as_secs() + 1))
        };
    }
    match found {
        Some(found) if found.announced_at > now + TOLERANCE => {
            let by = whole_seconds(found.announced_at.duration_since(now).unwrap_or_default());
            Check::failed(
                name,
                format!("the scraper's announcement is {by} ahead of this host's clock ({shown})"),
                advice,
            )
        }
        Some(_) => Check::ok(name, format!("{shown}; {proves}")),
        None => Check::skipped(name, format!("{shown}; there was nothing to compare it with")),
    }
}

/// 2024-01-01: nothing of narthex is older.
const OLDEST: Duration = Duration::from_secs(1_704_067_200);
/// Leases and announcements are good for minutes.
const TOLERANCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_far_from_the_scrapers_is_wrong() {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        for (at, fine) in [(now, true), (now - hour, false), (now + hour, false)] {
            let told = Told { by: "the scraper", at, heard: now };
            assert_eq!(check(Some(told), None, "").is_ok(), fine);
            let found = Whereabouts { announced_at: at, public: 1, private: 0, relayed: 0 };
            assert_eq!(check(None, Some(&found), "").is_ok(), at <= now, "an old announcement proves nothing");
        }
        assert!(!check(None, None, "").is_ok(), "nothing was checked");
    }
}
