//! What the log has of a client's events.
//!
//! A client tries again without end. The log has the first failure of an outage, and a count at the end of it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{
    event::{EventKind, RegisterError},
    outage::{Ended, Outage},
};
use crate::{
    identity::PublicKey,
    telemetry::{Chain, LogPace, short_duration},
    wire::Alias,
};

#[derive(Default)]
pub(super) struct EventLog {
    /// Of lines about refused strangers.
    blocks: LogPace,
    outages: Mutex<HashMap<(PublicKey, Trouble), Outage>>,
}

/// What a client lacks; each has outages of its own, so that none hides what only the operator can mend.
#[derive(PartialEq, Eq, Hash)]
enum Trouble {
    /// A link that stays.
    Link,
    /// A way to the scraper, and an answer.
    Scraper,
    /// A setting that the scraper takes.
    Setting,
    Alias(Alias),
}

impl EventLog {
    pub(super) fn write(&self, id: u64, kind: &EventKind) {
        match kind {
            EventKind::LinkUp { scraper, path } if self.is_out(*scraper) => {
                tracing::debug!(%scraper, path = path.as_str(), "linked");
            }
            EventKind::LinkUp { scraper, path } => tracing::info!(%scraper, path = path.as_str(), "linked"),
            EventKind::PathChanged { scraper, path } => tracing::info!(%scraper, path = path.as_str(), "path changed"),
            EventKind::LinkDown { scraper } => match self.failed(*scraper, Trouble::Link) {
                true => tracing::warn!(%scraper, "link lost"),
                false => tracing::debug!(%scraper, "link lost"),
            },
            EventKind::LinkFailed { scraper, error, retry_in } => {
                let error = Chain(&**error);
                match self.failed(*scraper, Trouble::Scraper) {
                    true => {
                        tracing::warn!(%scraper, %error, retry_in = short_duration(*retry_in), "no link to the scraper")
                    }
                    false => {
                        tracing::debug!(%scraper, %error, retry_in = short_duration(*retry_in), "no link to the scraper")
                    }
                }
            }
            EventKind::RegisterFailed { scraper, error, retry_in } => {
                // The next attempt is left out if only the operator can make it succeed.
                let retry_in = (!error.needs_operator()).then(|| short_duration(*retry_in));
                let (trouble, error) = (Trouble::of(error), Chain(&**error));
                match self.failed(*scraper, trouble) {
                    true => tracing::warn!(%scraper, %error, retry_in, "registration failed"),
                    false => tracing::debug!(%scraper, %error, retry_in, "registration failed"),
                }
            }
            EventKind::Registered { scraper, alias, updated } => {
                self.registered(*scraper, alias);
                match updated {
                    true => tracing::info!(%scraper, %alias, "registered"),
                    false => tracing::debug!(%scraper, %alias, "renewed"),
                }
            }
            EventKind::KeyContested { scraper } => {
                tracing::warn!(%scraper, "another process tries to register with the key of this client: was it copied?");
            }
            EventKind::ScraperLearned { scraper } => tracing::info!(%scraper, "learned a scraper of the group"),
            EventKind::ScraperLetGo { scraper } => {
                self.outages(|outages| outages.retain(|(of, _), _| of != scraper));
                tracing::info!(%scraper, "let a learned scraper go");
            }
            EventKind::Released { scraper } => tracing::info!(%scraper, "released"),
            EventKind::PullStarted { scraper, alias } => tracing::trace!(id, %scraper, %alias, "pull started"),
            EventKind::PullSucceeded { scraper, alias, bytes, took, .. } => {
                tracing::debug!(id, %scraper, %alias, bytes, took = short_duration(*took), "pull succeeded");
            }
            EventKind::PullFailed { scraper, alias, error } => {
                tracing::debug!(id, %scraper, %alias, error = %Chain(&**error), "pull failed");
            }
            EventKind::FirewallBlocked { peer } => {
                if let Some(count) = self.blocks.due() {
                    tracing::warn!(%peer, count, "firewall: refused a stranger's pull; the next such line in a minute");
                }
            }
        }
    }

    /// Counts a failure. True if the log is to have this failure.
    fn failed(&self, scraper: PublicKey, trouble: Trouble) -> bool {
        self.outages(|outages| outages.entry((scraper, trouble)).or_default().failed())
    }

    fn is_out(&self, scraper: PublicKey) -> bool {
        let troubles = [Trouble::Scraper, Trouble::Setting];
        self.outages(|outages| {
            troubles.into_iter().any(|trouble| outages.get(&(scraper, trouble)).is_some_and(Outage::is_under_way))
        })
    }

    /// Ends the outages of the scraper and of the alias, and writes what the log is to have of them.
    fn registered(&self, scraper: PublicKey, alias: &Alias) {
        self.outages(|outages| outages.get(&(scraper, Trouble::Link)).and_then(Outage::succeeded));
        for trouble in [Trouble::Scraper, Trouble::Setting, Trouble::Alias(alias.clone())] {
            let ended = self.outages(|outages| outages.get(&(scraper, trouble)).and_then(Outage::succeeded));
            if let Some(Ended { failed, lasted }) = ended {
                tracing::info!(%scraper, %alias, failed, lasted = short_duration(lasted), "registered after failures");
            }
        }
    }

    fn outages<T>(&self, with: impl FnOnce(&mut HashMap<(PublicKey, Trouble), Outage>) -> T) -> T {
        with(&mut self.outages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Trouble {
    fn of(error: &RegisterError) -> Self {
        match error {
            RegisterError::Alias { alias, .. } => Self::Alias(alias.clone()),
            RegisterError::KeyInUse => Self::Setting,
            error if error.needs_operator() => Self::Setting,
            _ => Self::Scraper,
        }
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use std::{fs, sync::Arc, time::Duration};

    use super::*;
    use crate::{identity::KeyPair, network::LinkPath, wire::AliasRefusal};

    /// The lines that an operator sees of these events: level and message.
    fn logged(events: impl IntoIterator<Item = EventKind>) -> Vec<String> {
        let (file, log) = (tempfile::NamedTempFile::new().expect("a temporary file"), EventLog::default());
        let writer = Arc::new(file.reopen().expect("opens"));
        let lines = tracing_subscriber::fmt().with_ansi(false).with_target(false).without_time().with_writer(writer);
        tracing::subscriber::with_default(lines.finish(), || events.into_iter().for_each(|event| log.write(1, &event)));
        let text = fs::read_to_string(file.path()).expect("text");
        text.lines().map(|line| line.split(" scraper=").next().unwrap_or(line).trim().to_owned()).collect()
    }

    fn events(scraper: PublicKey) -> (impl Fn(RegisterError) -> EventKind, impl Fn(bool) -> EventKind, Alias) {
        let alias: Alias = "web-1".parse().expect("an alias");
        let failed = move |error| EventKind::RegisterFailed {
            scraper,
            error: Arc::new(error),
            retry_in: Duration::from_secs(1),
        };
        let of = alias.clone();
        let registered = move |updated| EventKind::Registered { scraper, alias: of.clone(), updated };
        (failed, registered, alias)
    }

    /// Before: three lines for each attempt.
    #[tokio::test(start_paused = true)]
    async fn a_client_for_which_there_is_no_room_logs_the_begin_and_the_end() {
        let scraper = KeyPair::generate().public();
        let (failed, registered, _) = events(scraper);
        let linked = || EventKind::LinkUp { scraper, path: LinkPath::Direct };
        let refused = || [linked(), failed(RegisterError::Unavailable), EventKind::LinkDown { scraper }];
        let all = (0..50).flat_map(|_| refused()).chain([linked(), registered(true), registered(false)]);
        let begin = ["INFO linked", "WARN registration failed", "WARN link lost"];
        assert_eq!(logged(all), [&begin[..], &["INFO registered after failures", "INFO registered"]].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_the_operator_can_mend_is_logged_in_an_outage_too() {
        let scraper = KeyPair::generate().public();
        let (failed, registered, alias) = events(scraper);
        let refusal = || RegisterError::Alias { alias: alias.clone(), refusal: AliasRefusal::Taken };
        let errors =
            [RegisterError::Unavailable, RegisterError::KeyInUse, RegisterError::Malformed, refusal(), refusal()];
        let all = [EventKind::LinkDown { scraper }].into_iter().chain(errors.map(failed)).chain([registered(false)]);
        let ends = ["INFO registered after failures"; 3];
        let begins = [&["WARN link lost"][..], &["WARN registration failed"; 3]].concat();
        assert_eq!(logged(all), [begins, ends.to_vec()].concat());
    }
}
