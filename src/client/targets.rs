//! The set of targets that a client serves, which can be replaced while the client runs.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{BuildError, TargetBuilder, outage::Outage, source::Source};
use crate::wire::{
    Alias, Claim, InstanceId, Register, RegisterFrom, RegisterRequest, Target,
    codec::{self, CodecError},
};

/// Most targets of a client, its own among them: what a scraper takes by default.
pub(crate) const MAX_TARGETS: usize = 5000;

pub(super) struct ServedTarget {
    pub(super) target: Target,
    pub(super) source: Arc<dyn Source>,
    /// Cancelled when the alias leaves the set.
    pub(super) removed: CancellationToken,
    pub(super) outage: Arc<Outage>,
}

impl ServedTarget {
    pub(super) fn new(target: Target, source: Arc<dyn Source>) -> Self {
        Self { target, source, removed: CancellationToken::new(), outage: Arc::default() }
    }
}

/// Targets by alias, as they were at one moment.
pub(super) type TargetSet = Arc<BTreeMap<Alias, Arc<ServedTarget>>>;

/// The targets of a running client. Registrations wait for their change, pulls read them.
pub(super) struct Targets {
    set: watch::Sender<TargetSet>,
    /// The client's own target, which is in every set.
    own: Option<TargetBuilder>,
    hostname: String,
}

impl Targets {
    /// The client's `own` target and these, of that host.
    pub(super) fn new(
        hostname: String,
        own: Option<TargetBuilder>,
        targets: Vec<TargetBuilder>,
    ) -> Result<Self, BuildError> {
        let first = Self { set: watch::Sender::default(), own, hostname };
        first.replace(targets)?;
        Ok(first)
    }

    pub(super) fn len(&self) -> usize {
        self.set.borrow().len()
    }

    pub(super) fn find(&self, alias: &str) -> Option<Arc<ServedTarget>> {
        self.set.borrow().get(alias).cloned()
    }

    /// Watches the current set, and each later one that must be registered.
    pub(super) fn subscribe(&self) -> watch::Receiver<TargetSet> {
        self.set.subscribe()
    }

    /// Has every scraper told the current set again.
    pub(super) fn register_again(&self) {
        self.set.send_modify(|_| {});
    }

    pub(super) fn registration(&self, set: &BTreeMap<Alias, Arc<ServedTarget>>) -> Register {
        let claims = set.values().map(|served| Claim::from(&served.target)).collect();
        Register { hostname: self.hostname.clone(), claims }
    }

    /// Replaces the current set, unless a target of the new one is not fit. Pulls of aliases that are in both go on, and a
    /// target without a source keeps the one that its alias has.
    pub(super) fn replace(&self, targets: Vec<TargetBuilder>) -> Result<(), BuildError> {
        let mut outcome = Ok(());
        self.set.send_if_modified(|current| match self.checked(targets, current) {
            Ok(next) => {
                let listed_as_before = next.len() == current.len()
                    && next.values().zip(current.values()).all(|(next, current)| next.target == current.target);
                for (alias, gone) in current.iter().filter(|(alias, _)| !next.contains_key(*alias)) {
                    tracing::info!(%alias, "target removed");
                    gone.removed.cancel();
                }
                *current = Arc::new(next);
                !listed_as_before
            }
            Err(error) => {
                outcome = Err(error);
                false
            }
        });
        outcome
    }

    /// Checks each target and the set as a whole.
    fn checked(
        &self,
        targets: Vec<TargetBuilder>,
        current: &BTreeMap<Alias, Arc<ServedTarget>>,
    ) -> Result<BTreeMap<Alias, Arc<ServedTarget>>, BuildError> {
        let mut set = BTreeMap::new();
        let count = targets.len() + usize::from(self.own.is_some());
        for builder in self.own.iter().cloned().chain(targets) {
            let (target, source) = builder.check()?;
            let before = current.get(&target.alias);
            let source = source
                .or_else(|| Some(Arc::clone(&before?.source)))
                .ok_or_else(|| BuildError::NoMetrics(target.alias.clone()))?;
            let mut served = ServedTarget::new(target, source);
            if let Some(before) = before {
                (served.removed, served.outage) = (before.removed.clone(), Arc::clone(&before.outage));
            }
            let alias = served.target.alias.clone();
            if let Some(twice) = set.insert(alias, Arc::new(served)) {
                return Err(BuildError::Duplicate(twice.target.alias.clone()));
            }
        }
        if count > MAX_TARGETS {
            return Err(BuildError::TooMany { count });
        }
        match codec::encode(&RegisterRequest::from(RegisterFrom {
            register: self.registration(&set),
            instance: InstanceId([0; 16]),
            kept: true,
        })) {
            Err(CodecError::TooLong { len }) => Err(BuildError::TooLong { len }),
            _ => Ok(set),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(alias: &str) -> TargetBuilder {
        TargetBuilder::new(alias)
    }

    fn with_metrics(alias: &str) -> TargetBuilder {
        target(alias).metrics(|| Ok::<_, std::fmt::Error>(String::new()))
    }

    fn targets(builders: Vec<TargetBuilder>) -> Targets {
        Targets::new("host".into(), None, builders).expect("fit")
    }

    #[test]
    fn a_target_that_stays_keeps_its_source_and_its_pulls() {
        let targets = targets(vec![with_metrics("stays"), with_metrics("goes")]);
        let (stays, goes) = (targets.find("stays").expect("there"), targets.find("goes").expect("there"));
        targets.replace(vec![target("stays").label("region", "eu"), with_metrics("comes")]).expect("fit");
        let stayed = targets.find("stays").expect("there");
        assert!(Arc::ptr_eq(&stayed.source, &stays.source));
        assert_eq!(stayed.target.labels.value("region"), Some("eu"));
        assert!(!stays.removed.is_cancelled() && goes.removed.is_cancelled());
        assert!(targets.find("goes").is_none() && targets.find("comes").is_some());
        targets.replace(vec![]).expect("fit");
        assert!(stays.removed.is_cancelled(), "the one token of an alias ends every pull of it");
    }

    #[test]
    fn the_clients_own_target_stays_whatever_comes_and_goes() {
        let own = with_metrics("own");
        let targets = Targets::new("host".into(), Some(own), vec![]).expect("fit");
        targets.replace(vec![with_metrics("a")]).expect("fit");
        targets.replace(vec![]).expect("fit");
        assert!(!targets.find("own").expect("there").removed.is_cancelled());
        assert!(matches!(targets.replace(vec![with_metrics("own")]), Err(BuildError::Duplicate(_))));
    }

    #[test]
    fn only_what_a_scraper_would_see_wakes_the_registrations() {
        let targets = targets(vec![with_metrics("a")]);
        let mut changes = targets.subscribe();
        targets.replace(vec![with_metrics("a")]).expect("fit");
        assert!(!changes.has_changed().expect("open"), "another source is nothing to register");
        targets.replace(vec![target("a").service("web")]).expect("fit");
        assert!(changes.has_changed().expect("open"));
        assert_eq!(changes.borrow_and_update()["a"].target.service, "web");
    }

    #[test]
    fn a_set_that_no_registration_can_hold_is_refused() {
        let targets = targets(vec![with_metrics("a")]);
        let wide = |alias: &str| {
            (0..32).fold(with_metrics(alias), |target, n| target.label(format!("l{n}"), "x".repeat(1024)))
        };
        let set = |count: usize| (0..count).map(|n| wide(&format!("w{n}"))).collect();
        targets.replace(set(30)).expect("fit");
        let Err(BuildError::TooLong { len }) = targets.replace(set(32)) else { panic!("refused") };
        assert!(len > codec::MAX_MESSAGE_LEN && len < codec::MAX_MESSAGE_LEN + 64 * 1024, "{len}");
        assert!(targets.find("w29").is_some() && targets.find("w30").is_none(), "nothing has changed");
    }

    #[test]
    fn a_set_with_one_unfit_target_changes_nothing() {
        let targets = targets(vec![with_metrics("a")]);
        let changes = targets.subscribe();
        let many = (0..=MAX_TARGETS).map(|n| with_metrics(&format!("a{n}"))).collect();
        assert!(matches!(targets.replace(many), Err(BuildError::TooMany { count }) if count == MAX_TARGETS + 1));
        for unfit in [target("no-metrics"), with_metrics("b b"), with_metrics("b").label("job", "x"), target("a")] {
            targets.replace(vec![target("a"), unfit]).expect_err("unfit");
        }
        assert!(!changes.has_changed().expect("open") && targets.find("b").is_none());
        assert!(!targets.find("a").expect("there").removed.is_cancelled());
    }
}
