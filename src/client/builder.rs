//! The builders of a client and its targets.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use super::{
    Client, Compression,
    group::Pace,
    metrics::ClientMetrics,
    source::{IntoSource, Source},
    targets::{MAX_TARGETS, Targets},
};
#[cfg(feature = "filter")]
use super::{Filter, Filtered};
use crate::{
    identity::{DialAddress, KeyPair, PeerAddr, PublicKey, SharedSecret},
    network::{self, NetworkError},
    wire::{Alias, Labels, Target, TargetError, Ticket, codec::MAX_MESSAGE_LEN},
};

/// Why a client could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An alias, label, service or host name cannot be listed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A scraper that is this client itself.
    #[error("scraper {0} is this client's own key: give the scraper's")]
    OwnKey(PublicKey),
    /// Nothing to register.
    #[error("no target: give an alias and its metrics")]
    NoTarget,
    /// A target without metrics.
    #[error("alias {0} has no metrics: give a source")]
    NoMetrics(Alias),
    /// Two targets with one alias.
    #[error("alias {0} is given twice")]
    Duplicate(Alias),
    /// More targets than a scraper takes from one peer.
    #[error("{count} targets: a scraper takes {MAX_TARGETS} from one peer")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// Names and labels that do not fit into the one message in which a client states all its targets.
    #[error(
        "a registration of {len} bytes: a scraper takes {MAX_MESSAGE_LEN}; use fewer targets, or fewer or shorter labels"
    )]
    TooLong {
        /// How long the message would be.
        len: usize,
    },
    /// The network could not start.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Collects what a [`Client`] needs. Nothing is checked before [`ClientBuilder::start`].
///
/// The simple form describes one target on the builder itself; [`ClientBuilder::target`] adds more.
///
/// ```no_run
/// # async fn service(scraper: narthex::PeerAddr, secret: narthex::SharedSecret) -> Result<(), Box<dyn std::error::Error>> {
/// use narthex::{Client, KeyPair, TargetBuilder, client::Compression};
///
/// # let [web, jobs] = [|| Ok::<_, std::fmt::Error>(String::new()); 2];
/// let client = Client::builder(scraper, secret)
///     .key(KeyPair::generate())
///     .compression(Compression::gzip())
///     .target(TargetBuilder::new("web-1").service("web").metrics(web))
///     .target(TargetBuilder::new("jobs-1").label("queue", "mail").metrics(jobs))
///     .start()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ClientBuilder {
    scrapers: Vec<PeerAddr>,
    pub(super) secret: SharedSecret,
    key: Option<KeyPair>,
    pub(super) bootstrap: Vec<PeerAddr>,
    #[cfg(feature = "mdns")]
    pub(super) mdns: bool,
    hostname: Option<String>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) max_body: u64,
    pub(super) compression: Compression,
    pub(super) release_timeout: Duration,
    /// None if no further scraper is to be learned.
    pub(super) learn_group: Option<Pace>,
    own: Option<TargetBuilder>,
    about_itself: Option<TargetBuilder>,
    targets: Vec<TargetBuilder>,
    targets_later: bool,
}

/// One target of a client.
#[derive(Clone)]
pub struct TargetBuilder {
    alias: String,
    service: String,
    labels: Vec<(String, String)>,
    listed: bool,
    source: Option<Arc<dyn Source>>,
    #[cfg(feature = "filter")]
    filter: Filter,
}

impl TargetBuilder {
    /// A target of that alias.
    pub fn new(alias: impl Into<String>) -> Self {
        Self {
            alias: alias.into(),
            service: String::new(),
            labels: Vec::new(),
            listed: true,
            source: None,
            #[cfg(feature = "filter")]
            filter: Filter::default(),
        }
    }

    /// The kind of service, which Prometheus sees as the label `service`.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = service.into();
        self
    }

    /// A label of the target's own.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// Whether scrapers list the target, as they do by default. One that is not listed is scraped by its path, `/scrape/ALIAS/metrics`:
    /// for an exporter that probes what a scrape's query names, and has nothing to say without. Scrapers of earlier versions
    /// list it.
    pub fn listed(mut self, listed: bool) -> Self {
        self.listed = listed;
        self
    }

    /// The source of its metrics.
    pub fn metrics(mut self, source: impl IntoSource) -> Self {
        self.source = Some(source.into_source());
        self
    }

    /// Which metric families pass, of the source given with [`metrics`](Self::metrics). Default: all, untouched.
    #[cfg(feature = "filter")]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// The checked target, and its source if one was given.
    pub(super) fn check(self) -> Result<(Target, Option<Arc<dyn Source>>), BuildError> {
        let alias: Alias = self.alias.parse()?;
        Target::check_name("service", &self.service)?;
        let mut labels = Labels::default();
        for (name, value) in self.labels {
            labels.insert(name, value)?;
        }
        #[cfg(feature = "filter")]
        let source = self.source.map(|source| Filtered::new(source, self.filter).into_source());
        #[cfg(not(feature = "filter"))]
        let source = self.source;
        Ok((Target { alias, service: self.service, labels, listed: self.listed }, source))
    }
}

/// The settings that had to be checked.
pub(super) struct Checked {
    /// Each once.
    pub(super) scrapers: Vec<PeerAddr>,
    /// Their further addresses.
    pub(super) hints: Vec<(PublicKey, Vec<DialAddress>)>,
    pub(super) key: KeyPair,
    /// True if the key is the same after a restart.
    pub(super) kept: bool,
    pub(super) targets: Targets,
    pub(super) metrics: Arc<ClientMetrics>,
}

/// The alias alone: a source has no text form.
impl fmt::Debug for TargetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TargetBuilder").field(&self.alias).finish()
    }
}

impl ClientBuilder {
    /// The longest exposition that a client hands over unless [`max_body`](Self::max_body) sets another: 64 MiB.
    pub const DEFAULT_MAX_BODY: u64 = 64 << 20;

    /// The longest wait for a release unless [`release_timeout`](Self::release_timeout) sets another: a minute, within the 90 s
    /// that systemd gives a service to stop.
    pub const DEFAULT_RELEASE_TIMEOUT: Duration = Duration::from_secs(60);

    pub(super) fn new(scraper: PeerAddr, secret: SharedSecret) -> Self {
        Self {
            scrapers: vec![scraper],
            secret,
            key: None,
            bootstrap: Vec::new(),
            #[cfg(feature = "mdns")]
            mdns: false,
            hostname: None,
            data_dir: None,
            max_body: Self::DEFAULT_MAX_BODY,
            compression: Compression::default(),
            release_timeout: Self::DEFAULT_RELEASE_TIMEOUT,
            learn_group: Some(Pace::default()),
            own: None,
            about_itself: None,
            targets: Vec::new(),
            targets_later: false,
        }
    }

    pub(super) fn from_ticket(ticket: &Ticket) -> Self {
        let mut scrapers = ticket.scrapers().iter().cloned();
        let first = scrapers.next().expect("a ticket names a scraper");
        let builder = Self::new(first, ticket.secret().clone()).bootstrap(ticket.bootstrap().iter().cloned());
        scrapers.fold(builder, Self::scraper)
    }

    /// Registers with this scraper too, at the same time. One with several addresses may be given once for each.
    pub fn scraper(mut self, scraper: impl Into<PeerAddr>) -> Self {
        self.scrapers.push(scraper.into());
        self
    }

    /// The key to register with, for a client that wants the same one after a restart: its scrapers then keep its aliases
    /// for it. Two processes with one key at the same time get in each other's way, and the second one is refused. Default: a
    /// fresh key.
    pub fn key(mut self, key: KeyPair) -> Self {
        self.key = Some(key);
        self
    }

    /// Nodes through which scrapers are found by key. Each needs its address.
    pub fn bootstrap(mut self, nodes: impl IntoIterator<Item = PeerAddr>) -> Self {
        self.bootstrap.extend(nodes);
        self
    }

    /// Whether scrapers on the same network are found by mDNS, if they use it too. Default not.
    #[cfg(feature = "mdns")]
    pub fn mdns(mut self, mdns: bool) -> Self {
        self.mdns = mdns;
        self
    }

    /// The host name to show. Default: this machine's.
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// A directory where the last good addresses, and the group of the scrapers, are remembered. Default: they are forgotten at
    /// the end.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// The longest exposition handed over, in bytes, before it is compressed. A longer one fails its pull: at once if its
    /// length is known, else in the middle. Default [`DEFAULT_MAX_BODY`](Self::DEFAULT_MAX_BODY).
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = bytes;
        self
    }

    /// Whether expositions are compressed on the link. Default: they are not.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Longest wait in [`Client::shutdown`] for a scraper to release the aliases: a whole fleet may end at once, and the scraper
    /// may restart meanwhile. A scraper that was gone before, for 15 s or more, is not waited for. What was not released
    /// lapses. Default [`DEFAULT_RELEASE_TIMEOUT`](Self::DEFAULT_RELEASE_TIMEOUT).
    pub fn release_timeout(mut self, longest: Duration) -> Self {
        self.release_timeout = longest;
        self
    }

    /// Whether the client learns of further scrapers: those that keep one table together with a given one name each other, and a
    /// client that was given one of them links another, too, so that it stays scraped when one dies. What it learned is
    /// remembered in the [`data_dir`](Self::data_dir). Default yes.
    pub fn learn_group(mut self, learn: bool) -> Self {
        self.learn_group = learn.then(Pace::default);
        self
    }

    /// As [`learn_group`](Self::learn_group), at another pace.
    #[cfg(all(test, feature = "scraper"))]
    pub(super) fn learn_at(mut self, pace: Pace) -> Self {
        self.learn_group = Some(pace);
        self
    }

    /// The alias of the one target that is described on the builder itself.
    pub fn alias(mut self, alias: impl Into<String>) -> Self {
        self.own_target().alias = alias.into();
        self
    }

    /// The service of that target.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.own_target().service = service.into();
        self
    }

    /// A label of that target.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.own_target().labels.push((name.into(), value.into()));
        self
    }

    /// The source of that target's metrics.
    pub fn metrics(mut self, source: impl IntoSource) -> Self {
        self.own_target().source = Some(source.into_source());
        self
    }

    /// Adds a target.
    pub fn target(mut self, target: TargetBuilder) -> Self {
        self.targets.push(target);
        self
    }

    /// Registers the client's own metrics, `narthex_client_*`, as one more target: links, registrations, pulls.
    /// Its service is `narthex`.
    pub fn self_alias(self, alias: impl Into<String>) -> Self {
        self.self_target(TargetBuilder::new(alias).service("narthex"))
    }

    /// As [`self_alias`](Self::self_alias), for a target with a service and labels of its own.
    pub fn self_target(mut self, target: TargetBuilder) -> Self {
        self.about_itself = Some(target);
        self
    }

    /// Allows a start without a target: [`Client::set_targets`] brings them later.
    pub fn targets_later(mut self) -> Self {
        self.targets_later = true;
        self
    }

    /// Starts the client. It is usable at once; linking and registering go on in the background, for as long as it
    /// takes, and are reported as [events](Client::events).
    ///
    /// # Errors
    /// [`BuildError`] for settings that can never work.
    pub async fn start(self) -> Result<Client, BuildError> {
        Client::start(self).await
    }

    /// The keys of the given scrapers.
    #[cfg(feature = "cli")]
    pub(crate) fn scrapers(&self) -> impl Iterator<Item = PublicKey> {
        self.scrapers.iter().map(|scraper| scraper.key)
    }

    fn own_target(&mut self) -> &mut TargetBuilder {
        self.own.get_or_insert_with(|| TargetBuilder::new(""))
    }

    /// Checks what [`start`](Self::start) checks before it starts anything.
    #[cfg(feature = "cli")]
    pub(crate) fn verify(mut self) -> Result<(), BuildError> {
        self.check().map(drop)
    }

    pub(super) fn check(&mut self) -> Result<Checked, BuildError> {
        let mut scrapers: Vec<PeerAddr> = Vec::new();
        let mut hints: Vec<(PublicKey, Vec<DialAddress>)> = Vec::new();
        for scraper in std::mem::take(&mut self.scrapers) {
            let known = scrapers.iter_mut().zip(&mut hints).find(|(known, _)| known.key == scraper.key);
            match (known, scraper.hint) {
                (None, hint) => {
                    hints.push((scraper.key, Vec::new()));
                    scrapers.push(PeerAddr { key: scraper.key, hint });
                }
                (Some((known, _)), hint @ Some(_)) if known.hint.is_none() => known.hint = hint,
                (Some((known, further)), Some(hint)) if known.hint.as_ref() != Some(&hint) => further.1.push(hint),
                (Some(_), _) => {}
            }
        }
        hints.retain(|(_, further)| !further.is_empty());
        let kept = self.key.is_some();
        let key = self.key.take().unwrap_or_else(KeyPair::generate);
        if scrapers.iter().any(|scraper| scraper.key == key.public()) {
            return Err(BuildError::OwnKey(key.public()));
        }
        network::check_bootstrap(key.public(), &self.bootstrap)?;
        let metrics = Arc::new(ClientMetrics::new(scrapers.iter().map(|scraper| scraper.key)));
        let own_target = self.about_itself.take().map(|target| target.metrics(Arc::clone(&metrics) as Arc<dyn Source>));
        let hostname = match self.hostname.take() {
            Some(hostname) => {
                Target::check_name("hostname", &hostname)?;
                hostname
            }
            None => own_hostname(),
        };
        let targets = self.own.take().into_iter().chain(self.targets.drain(..)).collect();
        let targets = Targets::new(hostname, own_target, targets)?;
        if targets.len() == 0 && !self.targets_later {
            return Err(BuildError::NoTarget);
        }
        Ok(Checked { scrapers, hints, key, kept, targets, metrics })
    }
}

/// This machine's name, or none if it could not be listed.
fn own_hostname() -> String {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    if Target::check_name("hostname", &name).is_ok() { name } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> ClientBuilder {
        Client::builder(KeyPair::from_seed(&[1; 32]).public(), SharedSecret::generate())
    }

    fn text() -> Result<String, std::fmt::Error> {
        Ok(String::new())
    }

    #[test]
    fn settings_that_can_never_work_are_refused_before_anything_starts() {
        assert!(matches!(builder().check(), Err(BuildError::NoTarget)));
        assert!(builder().targets_later().check().is_ok());
        assert!(matches!(builder().alias("a").check(), Err(BuildError::NoMetrics(_))));
        assert!(matches!(builder().alias("a b").metrics(text).check(), Err(BuildError::Target(_))));
        assert!(matches!(builder().alias("a").label("job", "x").metrics(text).check(), Err(BuildError::Target(_))));
        let mut twice = builder().alias("a").metrics(text).target(TargetBuilder::new("a").metrics(text));
        assert!(matches!(twice.check(), Err(BuildError::Duplicate(_))));
    }

    #[test]
    fn a_scraper_given_twice_is_one_scraper() {
        let key = KeyPair::from_seed(&[1; 32]).public();
        let setup = builder().scraper(PeerAddr::at(key, "127.0.0.1", 1)).alias("a").metrics(text).check();
        assert_eq!(setup.ok().map(|setup| setup.scrapers.len()), Some(1));
    }
}
