//! Register exchanges over real links on loopback.

use tokio::sync::watch;

use super::*;
use crate::{
    access::{PeerRules, Secrets},
    identity::{HostPort, PeerAddr, SharedSecret},
    network::{Acceptor, Admitted, Firewall, NetworkConfig, NetworkRole},
    registry::{Member, RegistryConfig, SledStore},
    scraper::config::RegistrationLimits,
    wire::{AliasOutcome, AliasRefusal, Claim, FAREWELL_PROTOCOL, FarewellAnswer, Probe, farewell},
};

/// Longest wait for what must come.
const SOON: Duration = Duration::from_secs(20);

/// A scraper without its HTTP side. Ends on drop.
struct Lab {
    at: PeerAddr,
    secret: SharedSecret,
    network: Network,
    members: watch::Sender<Arc<[Member]>>,
    _tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

/// A peer that is linked to the scraper, and asks by hand.
struct Peer {
    key: KeyPair,
    network: Network,
    _tasks: JoinSet<()>,
}

impl Lab {
    async fn start(limits: RegistrationLimits) -> Self {
        let (key, secret) = (KeyPair::generate(), SharedSecret::generate());
        let (sender, streams) = mpsc::channel(64);
        let (farewell_sender, farewells) = mpsc::channel(64);
        let acceptors = [(REGISTER_PROTOCOL, sender), (FAREWELL_PROTOCOL, farewell_sender)]
            .map(|(protocol, inbox)| Acceptor { protocol, firewall: Firewall::Anyone, inbox });
        let config =
            NetworkConfig { listen: vec![HostPort::new("127.0.0.1", 0)], ..NetworkConfig::new(NetworkRole::Scraper) };
        let (network, task) = Network::start(&key, config, acceptors.into()).await.expect("starts");
        let registry = Registry::new(RegistryConfig::default(), Arc::clone(network.refusals()));
        let metrics = Arc::new(ScraperMetrics::new(network.refusals()));
        let dir = tempfile::tempdir().expect("temporary directory");
        let secrets = Secrets::open(vec![secret.clone().into()], dir.path()).expect("opens");
        let policy = Policy::new(secrets, PeerRules::default());
        let grace = RegistryConfig::default().takeover_grace;
        let group = Group::new(key.public(), network.clone(), Admitted::default(), grace, Arc::clone(&metrics));
        let members = watch::Sender::default();
        let registrar = Registrar::new(key.clone(), policy, registry.clone(), group, network.clone(), limits, metrics);
        let registrar = registrar.naming(Some(members.subscribe()));

        let store = Box::new(SledStore::open(dir.path().join("aliases")).expect("opens"));
        let (mut tasks, stop, mut loaded) = (JoinSet::new(), CancellationToken::new(), registry.changes());
        tasks.spawn(task.run(stop.clone()));
        tasks.spawn(registrar.run(streams, farewells, stop.clone()));
        tasks.spawn(async move { drop(registry.run(store, stop).await) });
        loaded.wait_for(|generation| *generation > 0).await.expect("loads");
        network.links().know([]);
        let listening = network.listening()[0];
        let at = PeerAddr::at(key.public(), listening.ip().to_string(), listening.port());
        Self { at, secret, network, members, _tasks: tasks, _dir: dir }
    }

    async fn peer(&self, key: KeyPair) -> Peer {
        let config = NetworkConfig::new(NetworkRole::Client);
        let (network, task) = Network::start(&key, config, Vec::new()).await.expect("starts");
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(CancellationToken::new()));
        network.links().keep(self.at.key);
        network.connect(&self.at).await.expect("connects");
        Peer { key, network, _tasks: tasks }
    }

    fn counted(&self, limit: Limit) -> u64 {
        self.network.refusals().counted(limit)
    }

    /// Whether the peer's links stay while idle, and whether they make room for others.
    fn keeps(&self, peer: &Peer) -> (bool, bool) {
        let (links, key) = (self.network.links(), peer.key.public());
        (links.is_kept(&key), links.makes_room(&key))
    }
}

impl Peer {
    /// Proves the secret, and asks nothing.
    async fn begin(&self, lab: &Lab, secret: &SharedSecret) -> Result<Channel<LinkStream>, ChannelError> {
        let stream = self.network.open(&lab.at.key, REGISTER_PROTOCOL).await.expect("opens");
        let connected = channel::connect(stream, &self.key, &lab.at.key, secret, REGISTER_PROTOCOL);
        time::timeout(SOON, connected).await.expect("is answered")
    }

    async fn ask(&self, lab: &Lab, request: RegisterRequest) -> Result<RegisterReply, ChannelError> {
        let mut channel = self.begin(lab, &lab.secret).await?;
        channel.send(&request).await?;
        time::timeout(SOON, channel.receive()).await.expect("is answered")
    }

    /// Says farewell as a process of this name; none if the scraper ends the stream.
    async fn farewell(&self, lab: &Lab, instance: u8) -> Option<FarewellAnswer> {
        let said = async {
            let mut stream = self.network.open(&lab.at.key, FAREWELL_PROTOCOL).await.ok()?;
            farewell::say(&mut stream, InstanceId([instance; 16])).await.ok()?;
            farewell::answered(&mut stream).await.ok()
        };
        time::timeout(SOON, said).await.expect("ends")
    }

    /// What becomes of the alias.
    async fn register(&self, lab: &Lab, alias: &str) -> Option<AliasOutcome> {
        match self.ask(lab, RegisterRequest::Register(register(alias))).await {
            Ok(RegisterReply::Registered(registered)) => registered.outcomes.first().cloned(),
            other => panic!("{other:?}"),
        }
    }
}

fn register(alias: &str) -> Register {
    let claim = Claim { alias: alias.to_owned(), service: String::new(), labels: Vec::new(), unlisted: false };
    Register { hostname: String::new(), claims: vec![claim] }
}

/// Before: a holder with as many keys as 512 places take at four each kept all others out for as long as it liked.
#[tokio::test]
async fn a_holder_that_begins_and_stops_gives_a_place_up_for_another_holder() {
    let limits = RegistrationLimits { in_all: 4, ..RegistrationLimits::default() };
    let lab = Lab::start(limits).await;
    let (hostile, honest) = (lab.peer(KeyPair::generate()).await, lab.peer(KeyPair::generate()).await);
    for (peer, alias) in [(&hostile, "hostile"), (&honest, "honest")] {
        assert_eq!(peer.register(&lab, alias).await, Some(AliasOutcome::Granted { updated: true }));
    }
    let mut begun = Vec::new();
    for _ in 0..4 {
        begun.push(hostile.begin(&lab, &lab.secret).await.expect("has a place"));
    }
    assert_eq!(honest.register(&lab, "honest").await, Some(AliasOutcome::Granted { updated: false }));
    assert_eq!(lab.counted(Limit::Registrations), 1);
    let oldest = time::timeout(SOON, begun[0].receive::<RegisterReply>()).await.expect("ends at once");
    assert!(oldest.is_err(), "{oldest:?}");
    assert!(hostile.begin(&lab, &lab.secret).await.is_ok(), "the place is free again");
}

#[tokio::test]
async fn the_limits_of_a_holder_and_of_its_source_are_counted() {
    let limits = RegistrationLimits { per_peer: 2, per_address: 3, ..RegistrationLimits::default() };
    let lab = Lab::start(limits).await;
    let (first, second) = (lab.peer(KeyPair::generate()).await, lab.peer(KeyPair::generate()).await);
    first.register(&lab, "first").await;
    second.register(&lab, "second").await;
    let mut begun = Vec::new();
    for peer in [&first, &first, &second] {
        begun.push(peer.begin(&lab, &lab.secret).await.expect("has a place"));
    }
    assert!(first.begin(&lab, &lab.secret).await.is_err());
    assert_eq!(lab.counted(Limit::RegistrationsPerPeer), 1);
    assert!(second.begin(&lab, &lab.secret).await.is_err());
    assert_eq!((lab.counted(Limit::RegistrationsPerIp), lab.counted(Limit::Registrations)), (1, 0));
}

/// Before: the probe gave the peer a place among those who hold an alias, and its link was kept.
#[tokio::test]
async fn a_peer_that_holds_no_alias_is_a_stranger_whatever_it_asks() {
    let lab = Lab::start(RegistrationLimits::default()).await;
    let (holder, asker) = (lab.peer(KeyPair::generate()).await, lab.peer(KeyPair::generate()).await);
    holder.register(&lab, "web-1").await;
    assert_eq!(lab.keeps(&holder), (true, false));

    let probe = || RegisterRequest::Probe(Probe { aliases: vec!["web-1".to_owned()] });
    assert!(matches!(asker.ask(&lab, probe()).await, Ok(RegisterReply::Probed(_))));
    assert_eq!(lab.keeps(&asker), (false, true));
    let refused = Some(AliasOutcome::Refused(AliasRefusal::Taken));
    assert_eq!(asker.register(&lab, "web-1").await, refused);
    assert_eq!(lab.keeps(&asker), (true, true), "it asks again soon");
    let begun = asker.begin(&lab, &lab.secret).await.expect("has a place");
    assert!(asker.begin(&lab, &lab.secret).await.is_err(), "a stranger has one place");
    drop(begun);
    let _both =
        [holder.begin(&lab, &lab.secret).await.expect("one"), holder.begin(&lab, &lab.secret).await.expect("two")];
}

#[tokio::test]
async fn a_holder_of_the_secret_is_told_the_other_scrapers_of_the_group_and_nobody_else_is() {
    let lab = Lab::start(RegistrationLimits::default()).await;
    let peer = lab.peer(KeyPair::generate()).await;
    let asked = async || peer.ask(&lab, RegisterRequest::Group).await.expect("is answered");
    assert_eq!(asked().await, RegisterReply::Group(vec![]), "there is no group");

    let member = |key| Member { key, addresses: vec!["192.0.2.1:1".parse().expect("an address")] };
    let others: Vec<_> = (0..20).map(|_| member(KeyPair::generate().public())).collect();
    lab.members.send_replace([&[member(lab.at.key)], &others[..]].concat().into());
    let told = |other: &Member| GroupMember { key: other.key, addresses: vec!["192.0.2.1:1".to_owned()] };
    let told = others[..16].iter().map(told).collect();
    assert_eq!(asked().await, RegisterReply::Group(told), "not itself, and no more than 16");
    assert_eq!(lab.keeps(&peer), (false, true), "a question makes nobody a holder of an alias");

    let wrong = SharedSecret::generate();
    assert!(peer.begin(&lab, &wrong).await.is_err(), "no session, and no answer");
}

/// Before: a release was a handshake with the secret, and a crowd of them ran out of time.
#[tokio::test]
async fn a_farewell_releases_the_aliases_of_its_own_key_and_no_others() {
    let lab = Lab::start(RegistrationLimits::default()).await;
    let (holder, other) = (lab.peer(KeyPair::generate()).await, lab.peer(KeyPair::generate()).await);
    let claims = ["web-1", "web-2"].map(|alias| register(alias).claims.remove(0)).into();
    let from = RegisterFrom {
        register: Register { hostname: String::new(), claims },
        instance: InstanceId([1; 16]),
        kept: false,
    };
    let registered = holder.ask(&lab, RegisterRequest::RegisterFrom(from)).await;
    assert!(matches!(registered, Ok(RegisterReply::Registered(_))), "{registered:?}");

    assert_eq!(other.farewell(&lab, 1).await, Some(FarewellAnswer::Released(0)), "a stranger has nothing to give up");
    assert_eq!(other.register(&lab, "web-3").await, Some(AliasOutcome::Granted { updated: true }));
    assert_eq!(other.farewell(&lab, 1).await, Some(FarewellAnswer::Released(1)), "its own");
    assert_eq!(lab.keeps(&holder), (true, false), "nobody else's");

    let twin = lab.peer(holder.key.clone()).await;
    assert_eq!(twin.farewell(&lab, 2).await, Some(FarewellAnswer::InUse), "another process with the key");
    assert_eq!(holder.farewell(&lab, 1).await, Some(FarewellAnswer::Released(2)));
    assert_eq!(lab.keeps(&holder), (false, true));
}

#[tokio::test]
async fn farewells_that_are_begun_and_left_keep_no_other_waiting() {
    let lab = Lab::start(RegistrationLimits::default()).await;
    let (hostile, honest) = (lab.peer(KeyPair::generate()).await, lab.peer(KeyPair::generate()).await);
    for (peer, alias) in [(&hostile, "hostile"), (&honest, "honest")] {
        assert_eq!(peer.register(&lab, alias).await, Some(AliasOutcome::Granted { updated: true }));
    }
    let mut begun = Vec::new();
    for _ in 0..32 {
        begun.push(hostile.network.open(&lab.at.key, FAREWELL_PROTOCOL).await.expect("opens"));
    }
    assert_eq!(honest.farewell(&lab, 1).await, Some(FarewellAnswer::Released(1)));
}
