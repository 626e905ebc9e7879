//! What the log has of a client's events.
//!
//! A client tries again without end. The log has the first failure of an outage, and a count at the end of it.

use std::{
    collections::HashMap,
    slice,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    event::{EventKind, RegisterError},
    outage::{Ended, Outage},
};
use crate::{
    identity::PublicKey,
    telemetry::{Chain, Few, LogPace, short_duration},
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
            EventKind::RegisterFailed { .. } | EventKind::Registered { .. } => {
                self.write_registration(slice::from_ref(kind));
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

    /// Writes what became of the aliases of a registration: one line for all that went the same way.
    pub(super) fn write_registration(&self, outcomes: &[EventKind]) {
        let (mut registered, mut renewed) = (Vec::new(), Vec::new());
        let (mut ended, mut failed) = (Vec::new(), Vec::<Failed<'_>>::new());
        for outcome in outcomes {
            match outcome {
                EventKind::Registered { scraper, alias, updated } => {
                    ended.extend(self.ended(*scraper, alias).into_iter().map(|outage| (scraper, alias, outage)));
                    if *updated { &mut registered } else { &mut renewed }.push((scraper, alias));
                }
                EventKind::RegisterFailed { scraper, error, retry_in } => {
                    let is_due = self.failed(*scraper, Trouble::of(error));
                    let one = Failed { scraper, error, retry_in: *retry_in, is_due, further: 0 };
                    match failed.iter_mut().find(|other| other.is_alike(&one)) {
                        Some(other) => other.further += 1,
                        None => failed.push(one),
                    }
                }
                _ => {}
            }
        }
        // They may have begun at different times.
        if let Some((scraper, ..)) = ended.first() {
            let alias = Few(ended.iter().map(|(_, alias, _)| *alias).collect());
            let failed = ended.iter().map(|(.., outage)| outage.failed).max();
            let lasted = ended.iter().map(|(.., outage)| outage.lasted).max().map(short_duration);
            tracing::info!(%scraper, %alias, failed, lasted, "registered after failures");
        }
        let aliases = |of: &[(_, &Alias)]| Few(of.iter().map(|(_, alias)| (*alias).clone()).collect());
        if let Some((scraper, _)) = registered.first() {
            tracing::info!(%scraper, alias = %aliases(&registered), "registered");
        }
        if let Some((scraper, _)) = renewed.first() {
            tracing::debug!(%scraper, alias = %aliases(&renewed), "renewed");
        }
        failed.iter().for_each(Failed::write);
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

    /// Ends the outages of the scraper and of the alias: those whose begin is in the log.
    fn ended(&self, scraper: PublicKey, alias: &Alias) -> Vec<Ended> {
        self.outages(|outages| {
            let end = |trouble| outages.get(&(scraper, trouble)).and_then(Outage::succeeded);
            end(Trouble::Link); // the log has the link that came after it
            [Trouble::Scraper, Trouble::Setting, Trouble::Alias(alias.clone())].into_iter().filter_map(end).collect()
        })
    }

    fn outages<T>(&self, with: impl FnOnce(&mut HashMap<(PublicKey, Trouble), Outage>) -> T) -> T {
        with(&mut self.outages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A failed registration, or the refusals of several aliases for the same reason.
struct Failed<'a> {
    scraper: &'a PublicKey,
    error: &'a RegisterError,
    retry_in: Duration,
    /// True if the log is to have it.
    is_due: bool,
    further: usize,
}

impl Failed<'_> {
    fn is_alike(&self, other: &Self) -> bool {
        let refusal = |of: &Self| match of.error {
            RegisterError::Alias { refusal, .. } => Some(*refusal),
            _ => None,
        };
        self.is_due == other.is_due && refusal(self).is_some() && refusal(self) == refusal(other)
    }

    fn write(&self) {
        let Self { scraper, error, .. } = self;
        // The next attempt is left out if only the operator can make it succeed.
        let retry_in = (!error.needs_operator()).then(|| short_duration(self.retry_in));
        let further = (self.further > 0).then_some(self.further);
        let error = Chain(*error);
        match self.is_due {
            true => tracing::warn!(%scraper, %error, further, retry_in, "registration failed"),
            false => tracing::debug!(%scraper, %error, further, retry_in, "registration failed"),
        }
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
    use std::{fs, sync::Arc};

    use super::*;
    use crate::{identity::KeyPair, network::LinkPath, wire::AliasRefusal};

    /// The lines that an operator sees of what is written.
    fn lines(write: impl FnOnce(&EventLog)) -> Vec<String> {
        let (file, log) = (tempfile::NamedTempFile::new().expect("a temporary file"), EventLog::default());
        let writer = Arc::new(file.reopen().expect("opens"));
        let lines = tracing_subscriber::fmt().with_ansi(false).with_target(false).without_time().with_writer(writer);
        tracing::subscriber::with_default(lines.finish(), || write(&log));
        let text = fs::read_to_string(file.path()).expect("text");
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// Level and message of the lines of these events.
    fn logged(events: impl IntoIterator<Item = EventKind>) -> Vec<String> {
        let lines = lines(|log| events.into_iter().for_each(|event| log.write(1, &event)));
        lines.iter().map(|line| line.split(" scraper=").next().unwrap_or(line).to_owned()).collect()
    }

    fn of_registrations(registrations: Vec<Vec<EventKind>>) -> Vec<String> {
        lines(|log| registrations.iter().for_each(|outcomes| log.write_registration(outcomes)))
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
        let begins = [&["WARN link lost"][..], &["WARN registration failed"; 3]].concat();
        assert_eq!(logged(all), [&begins[..], &["INFO registered after failures"]].concat());
    }

    /// Before: a line for each of 5000 targets.
    #[tokio::test(start_paused = true)]
    async fn what_became_of_many_aliases_is_a_line_for_each_way_it_went() {
        let scraper = KeyPair::generate().public();
        let alias = |n: usize| format!("t-{n}").parse::<Alias>().expect("an alias");
        let refused = |n, refusal| EventKind::RegisterFailed {
            scraper,
            error: Arc::new(RegisterError::Alias { alias: alias(n), refusal }),
            retry_in: Duration::from_secs(1),
        };
        let granted = |n, updated| EventKind::Registered { scraper, alias: alias(n), updated };
        let all = |updated| (0..4900).map(move |n| granted(n, updated));
        let full = (4900..5000).map(|n| refused(n, AliasRefusal::Full));
        let first = all(true).chain(full).chain([refused(5000, AliasRefusal::Taken)]).collect();
        let later = all(false).chain((4900..5001).map(|n| granted(n, true))).collect();
        let log = of_registrations(vec![first, later]);
        let line = |n: usize| log.get(n).map_or("", String::as_str);
        for (n, words) in [
            (0, &["INFO registered", "t-0, t-1, t-2 and 4897 more"][..]),
            (1, &["WARN registration failed", "alias t-4900 was refused: full", "further=99"]),
            (2, &["WARN registration failed", "alias t-5000 was refused: taken"]),
            (3, &["INFO registered after failures", "t-4900, t-4901, t-4902 and 98 more", "failed=1"]),
            (4, &["INFO registered", "t-4900, t-4901, t-4902 and 98 more"]),
        ] {
            assert!(words.iter().all(|word| line(n).contains(word)), "{words:?}: {log:?}");
        }
        assert_eq!(log.len(), 5, "{log:?}");
    }
}
