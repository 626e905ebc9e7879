//! `narthex doctor` in healthy set-ups and in broken ones: the check that fails, its text, its advice.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::{self, Permissions},
    io::{self, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
};

use narthex::identity::{self, KeyPair, PeerAddr};
use serde::Deserialize;

use crate::support::{
    SOON,
    connect_proxy::{ConnectProxy, Manner},
    eventually, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, narthex, text},
    http,
    lab::{Kind, Lab},
    nats::Nats,
    ports::{free_port, loopback},
    process::{Process, Run},
};

/// The timeout of a check: milliseconds become seconds on a busy machine.
const PATIENT: &str = "30s";

/// One check as `--json` prints it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    check: String,
    status: String,
    detail: String,
    advice: Option<String>,
}

/// Runs the doctor with these flags.
#[track_caller]
fn doctor(flags: &[&str]) -> Run {
    Run::of(narthex("doctor").env("NARTHEX_TIMEOUT", PATIENT).args(flags))
}

impl Run {
    /// The line of a check.
    #[track_caller]
    fn line(&self, check: &str) -> &str {
        let of_check = |line: &&str| line[9.min(line.len())..].starts_with(&format!("{check}: "));
        let line = self.stdout.lines().find(of_check);
        line.unwrap_or_else(|| panic!("no check {check:?} in:\n{}{}", self.stdout, self.stderr))
    }

    #[track_caller]
    fn has(&self, status: &str, check: &str, parts: &[&str]) {
        let line = self.line(check);
        assert!(line.starts_with(status), "not {status}: {line}");
        for part in parts {
            assert!(line.contains(part), "no {part:?} in: {line}");
        }
    }

    /// Asserts that this check failed with all of `parts` in its text, and that the exit code is a failure.
    #[track_caller]
    fn fails(&self, check: &str, parts: &[&str]) {
        self.has("failed", check, parts);
        assert!(self.line(check).contains(". What to do: "), "no advice: {}", self.line(check));
        assert_eq!(self.code, Some(1), "{}", self.stderr);
        assert!(self.stderr.contains("checks failed"), "{}", self.stderr);
    }

    /// Asserts that this check warns with all of `parts` in its text.
    #[track_caller]
    fn warns(&self, check: &str, parts: &[&str]) {
        self.has("warning", check, parts);
        assert!(self.line(check).contains(". What to do: "), "no advice: {}", self.line(check));
    }

    /// The checks of `--json`, by name.
    fn json(&self) -> BTreeMap<String, Check> {
        let checks: Vec<Check> = serde_json::from_str(&self.stdout).expect("JSON");
        checks.into_iter().map(|check| (check.check.clone(), check)).collect()
    }

    /// Asserts that all checks are ok.
    #[track_caller]
    fn all_ok(&self) {
        // When a node dials back is its own affair.
        let fine = |line: &&str| line.starts_with("ok ") || line.starts_with("skipped  reachable unasked");
        let odd: Vec<&str> = self.stdout.lines().filter(|line| !fine(line)).collect();
        assert_eq!(odd, Vec::<&str>::new(), "{}", self.stderr);
        assert_eq!(self.code, Some(0), "{}", self.stderr);
    }
}

/// What a client gives the doctor: the flags of an agent.
fn beside_exporter(fleet: &Fleet, scraper: impl Display, more: &[&str]) -> Run {
    with_secret(&fleet.secret_file(), scraper, more)
}

fn with_secret(secret_file: &Path, scraper: impl Display, more: &[&str]) -> Run {
    doctor(&[&["--scraper", &scraper.to_string(), "--secret-file", &text(secret_file)], more].concat())
}

/// What a scraper's owner gives it.
fn beside_prometheus(fleet: &Fleet, http: &str, listen: &str, more: &[&str]) -> Run {
    let (key, secret) = (text(&fleet.path().join("scraper.key")), text(&fleet.secret_file()));
    let data = text(&fleet.path().join("scraper-data"));
    let own = ["--key", &key, "--secret-file", &secret, "--data-dir", &data, "--http", http, "--listen", listen];
    doctor(&[&own, more].concat())
}

fn of_scraper(fleet: &Fleet, scraper: &Scraper, more: &[&str]) -> Run {
    beside_prometheus(fleet, &scraper.http.to_string(), &dial_address(&scraper.peer()), more)
}

fn dial_address(peer: &PeerAddr) -> String {
    peer.hint.as_ref().expect("an address").to_string()
}

/// A configuration file of an agent of this scraper, with `more` lines.
fn agent_file(fleet: &Fleet, scraper: &Scraper, more: &str) -> String {
    let config = fleet.path().join("agent.toml");
    let secret_file = text(&fleet.secret_file());
    let lines = format!("scraper = \"{}\"\nsecret-file = \"{secret_file}\"\n{more}", scraper.peer());
    fs::write(&config, lines).expect("writes");
    text(&config)
}

fn new_key(fleet: &Fleet, name: &str) -> (PathBuf, KeyPair) {
    let (path, key) = (fleet.path().join(name), KeyPair::generate());
    identity::create_key(&path, &key).expect("the key is written");
    (path, key)
}

fn nobody(port: u16) -> PeerAddr {
    PeerAddr::at(KeyPair::generate().public(), "127.0.0.1", port)
}

/// As a check of a node is named.
fn node(peer: &PeerAddr, check: &str) -> String {
    format!("node {:.8}.. {check}", peer.key.to_string())
}

/// A scraper that has announced itself at the node.
fn announced(fleet: &Fleet, bootstrap: &str) -> Scraper {
    let scraper = fleet.scraper(&["--bootstrap", bootstrap, "--log-level", "debug"]);
    eventually("the scraper is announced", SOON, || scraper.process.log_line(&["announced our addresses"]));
    scraper
}

#[test]
fn a_healthy_set_up_is_all_ok_on_both_sides_and_goes_on() {
    let fleet = Fleet::new();
    let relay = fleet.relay();
    let bootstrap = relay.peer.to_string();
    let scraper = announced(&fleet, &bootstrap);
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let target = format!("host-1={}", exporter.url("/metrics"));
    let (key_file, key) = new_key(&fleet, "agent.key");
    let common = ["--bootstrap", &bootstrap, "--target", &target, "--key", &text(&key_file)];
    let _agent = fleet.agent("agent", &[&["--scraper", &scraper.key.to_string()], &common[..]].concat());
    scraper.wait_scraped("host-1");
    eventually("a relay is reserved", SOON, || (scraper.count(&["narthex_relays"]) > 0.0).then_some(()));
    eventually("its circuit is announced", SOON, || {
        let log = scraper.process.log();
        log.lines().any(|line| line.contains("announced our") && line.contains("p2p-circuit")).then_some(())
    });

    // A key alone, a key with an address, and the agent's file.
    let visit = beside_exporter(&fleet, scraper.key, &common);
    visit.all_ok();
    visit.has("ok", "targets", &["1 to register"]);
    visit.has("ok", "exporter host-1", &["4 bytes"]);
    visit.has("ok", &node(&relay.peer, "role"), &["answers look-ups, and relays"]);
    visit.has("ok", "NAT", &["TCP over IPv4: ", "UDP over IPv4: "]);
    visit.has("ok", "look-up", &["announced", "through relays"]);
    visit.has("ok", "link", &[]);
    visit.has("ok", "alias host-1", &["held by this very key, which is linked"]);
    visit.has("ok", "clock", &["that of the scraper"]);
    let lines = format!(
        "key = \"{}\"\nservice = \"s\"\n[[target]]\nalias = \"host-1\"\nurl = \"{}\"\n",
        text(&key_file),
        exporter.url("/metrics"),
    );
    let visit = doctor(&["--config", &agent_file(&fleet, &scraper, &lines)]);
    for check in ["key file", "exporter host-1", "scraper TCP", "scraper UDP", "link", "secret", "alias host-1"] {
        visit.has("ok", check, &[]);
    }
    assert_eq!(visit.code, Some(0), "{}", visit.stdout);

    let visit = of_scraper(&fleet, &scraper, &["--bootstrap", &bootstrap, "--alias", "host-1"]);
    visit.all_ok();
    visit.has("ok", "data directory", &["in use"]);
    visit.has("ok", "secret", &["both sides have proved it"]);
    visit.has("ok", "clock", &["that of the scraper"]);
    visit.has("ok", "relays", &["can be reached through 1"]);
    visit.has("ok", "aliases", &["1 in the table", "0 without a link"]);
    visit.has("ok", "pull host-1", &["4 bytes"]);

    // Nobody has lost anything by it.
    let held = scraper.wait_listed("host-1");
    assert_eq!(held.label("__meta_narthex_public_key"), key.public().to_string());
    assert_eq!(scraper.listed().expect("the list").len(), 1);
    assert_eq!(scraper.wait_scraped("host-1"), "m 1\n");
}

#[test]
fn json_is_one_document_and_nothing_else() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let visit = with_secret(&fleet.wrong_secret_file(), scraper.peer(), &["--alias", "a", "--json"]);
    let of = visit.json();
    assert_eq!((of["link"].status.as_str(), &of["link"].advice), ("ok", &None));
    assert_eq!(of["secret"].status, "failed");
    assert!(of["secret"].detail.contains("unknown secret"), "{:?}", of["secret"]);
    assert!(of["secret"].advice.as_ref().is_some_and(|advice| advice.contains("--secret-file")));
    assert_eq!(of["alias a"].status, "skipped");
    assert_eq!(visit.code, Some(1));
}

#[test]
fn a_target_that_is_not_fit_is_a_failed_check() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let target = "[[target]]\nalias = \"a\"\nurl = \"http://h\"\nca_file = \"ca.pem\"\n";
    let visit = doctor(&["--config", &agent_file(&fleet, &scraper, target), "--json"]);
    let of = visit.json();
    assert_eq!(of["targets"].status, "failed");
    assert!(of["targets"].detail.contains("ca_file needs an https:// URL"), "{:?}", of["targets"]);
    assert_eq!(of["secret"].status, "ok", "the rest is looked at");
    assert_eq!(visit.code, Some(1));
}

#[test]
fn targets_of_directories_and_the_agents_own_alias_are_looked_at() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let dir = fleet.path().join("targets");
    fs::create_dir(&dir).expect("makes");
    let good = format!("[[target]]\nalias = \"found\"\nurl = \"{}\"\n", exporter.url("/metrics"));
    fs::write(dir.join("good.toml"), good).expect("writes");
    let lines = format!("targets-dir = {dir:?}\nself-alias = \"itself\"\n");
    let visit = doctor(&["--config", &agent_file(&fleet, &scraper, &lines)]);
    for check in ["targets", "exporter found", "alias found", "alias itself"] {
        visit.has("ok", check, &[]);
    }
    assert_eq!(visit.code, Some(0), "{}", visit.stdout);

    fs::write(dir.join("broken.toml"), "[[target").expect("writes");
    let flags = ["--targets-dir", &text(&dir), "--self-alias", "itself"];
    let visit = beside_exporter(&fleet, scraper.peer(), &flags);
    visit.fails("targets", &["broken.toml", "none of its targets is registered"]);
    visit.has("ok", "exporter found", &["4 bytes"]);
    visit.has("ok", "alias itself", &[]);
}

#[test]
fn every_flag_of_an_agent_and_of_a_scraper_is_taken() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let dir = text(fleet.path());
    let agents = [
        &["--service", "node", "--label", "region=eu", "--hostname", "h", "--targets-dir", &dir][..],
        &["--targets-refresh", "1s", "--self-alias", "itself", "--max-body", "1MiB"],
        &["--compression", "gzip", "--compression-min-size", "9"],
    ];
    let visit = beside_exporter(&fleet, scraper.peer(), &agents.concat());
    assert_eq!(visit.code, Some(0), "{}{}", visit.stdout, visit.stderr);

    let file_sd = text(&fleet.path().join("list.json"));
    let scrapers = [
        &["--advertise", "h:1", "--file-sd", &file_sd, "--external", "h:1", "--listen-ws", "127.0.0.1:1", "--mdns"][..],
        &["--lease", "1m", "--retention", "1h", "--alias-policy", "pinned", "--start-grace", "1s"],
        &["--pull-timeout", "1s", "--max-body", "1MiB", "--max-aliases", "9", "--max-aliases-per-peer", "9"],
        &[
            "--max-alias-bytes",
            "1KiB",
            "--max-peer-bytes",
            "9KiB",
            "--max-table-bytes",
            "9MiB",
            "--max-sd-readers",
            "9",
        ],
        &["--max-registration-rate", "9", "--handshake-timeout", "1s", "--max-connections", "9"],
        &["--max-connections-per-ip", "9", "--max-connections-per-peer", "9"],
    ];
    let visit = of_scraper(&fleet, &scraper, &scrapers.concat());
    assert_eq!(visit.code, Some(0), "{}{}", visit.stdout, visit.stderr);

    let visit = beside_exporter(&fleet, scraper.peer(), &["--label", "nonsense"]);
    assert!(visit.code == Some(2) && visit.stderr.contains("expected NAME=VALUE"), "{}", visit.stderr);
}

#[test]
fn bad_usage_names_the_side_that_is_meant() {
    let scraper = &nobody(1).to_string();
    for (flags, part) in [
        (&["--scraper", scraper][..], "--secret-file FILE is needed"),
        (&["--data-dir", "/none"], "beside the scraper its --data-dir, or --key FILE"),
        (&["--data-dir", "/none", "--secret-file", "s"], "give --ticket-file FILE, or --scraper PEER"),
        (&["--secret-file", "s", "--key", "k", "--target", "a=http://h"], "--scraper"),
    ] {
        let visit = doctor(flags);
        assert_eq!((visit.code, visit.stdout.as_str()), (Some(2), ""), "{flags:?}");
        assert!(visit.stderr.contains(part), "{}", visit.stderr);
    }
}

/// Before: the doctor wanted a key and a secret file, which such a scraper has none of.
#[test]
fn a_scraper_whose_clients_have_tickets_is_checked_by_its_data_directory() {
    let fleet = Fleet::new();
    let (data, http, port) = (text(&fleet.path().join("data")), loopback(free_port()).to_string(), free_port());
    let own = ["--data-dir", &data, "--http", &http, "--listen", &loopback(port).to_string()];
    let scraper = Process::spawn("scraper", fleet.path(), narthex("scraper").args(own));
    scraper.wait_log(&["scraper runs"]);
    let visit = doctor(&own);
    visit.has("ok", "key file", &["scraper.key"]);
    visit.has("ok", "healthy", &[&http]);
    visit.has("ok", &format!("port 127.0.0.1:{port} TCP"), &["the right key"]);
    visit.has("skipped", "secret", &["narthex ticket list"]);
    assert_eq!(visit.code, Some(0), "{}", visit.stdout);
}

#[test]
fn an_unfit_secret_file_is_found() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let peer = scraper.peer().to_string();
    let visit = |file: &Path| with_secret(file, &peer, &[]);

    let missing = fleet.path().join("missing.secret");
    let found = visit(&missing);
    found.fails("secret file", &["there is no file", "narthex secret --out", "copy the scraper's"]);
    found.has("ok", "link", &["direct"]);
    found.has("skipped", "secret", &[]);

    let open = fleet.wrong_secret_file();
    fs::set_permissions(&open, Permissions::from_mode(0o644)).expect("chmod");
    visit(&open).fails("secret file", &["may be read by others (mode 0644)", &format!("chmod 600 {}", text(&open))]);

    let (key_file, _) = new_key(&fleet, "other.key");
    visit(&key_file)
        .fails("secret file", &["holds a private key, not a shared secret", "narthex secret writes secrets"]);
}

#[test]
fn a_secret_that_is_not_the_scrapers_is_found() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let visit = with_secret(&fleet.wrong_secret_file(), scraper.peer(), &["--alias", "a"]);
    visit.has("ok", "link", &["direct"]);
    visit.fails("secret", &["unknown secret", "copy the scraper's --secret-file here"]);
    visit.has("skipped", "alias a", &[]);
}

#[test]
fn a_secret_that_the_running_scraper_does_not_know_is_found_beside_it() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let wrong = text(&fleet.wrong_secret_file());
    let visit = of_scraper(&fleet, &scraper, &["--secret-file", &wrong]);
    visit.has("ok", &format!("secret {}", text(&fleet.secret_file())), &["both sides have proved it"]);
    visit.fails(&format!("secret {wrong}"), &["unknown secret", "was started with another --secret-file"]);
}

#[test]
fn a_store_that_a_scraper_could_not_use_is_found_and_nothing_is_made_in_it() {
    let fleet = Fleet::new();
    let config = fleet.path().join("nats.conf");
    let rights = r#"authorization { users = [
        { user: all, password: s3cret },
        { user: some, password: s3cret, permissions: { publish: "x", subscribe: "_INBOX.>" } },
    ] }"#;
    fs::write(&config, rights).expect("writes");
    let Some(mut nats) = Nats::start_with(fleet.path(), &["-c", &text(&config)]) else { return };
    let scraper = fleet.scraper(&[]);
    let store = |user: &str, bucket: &str| format!("nats://{user}{}/{bucket}", nats.at);
    let visit = |store: &str| of_scraper(&fleet, &scraper, &["--store", store]);

    for _ in 0..2 {
        visit(&store("all:s3cret@", "t")).has("ok", "store", &["no such bucket yet"]);
    }
    let refused = visit(&store("all:wr0ng@", "t"));
    refused.fails("store", &["authorization violation", "docs/group.md"]);
    assert!(!refused.stdout.contains("wr0ng"), "{}", refused.stdout);
    visit(&store("some:s3cret@", "t")).fails("store", &["Permissions Violation", "$JS.API.STREAM.INFO.KV_t"]);
    visit(&store("all:s3cret@", "no.bucket")).fails("store", &["letters, digits"]);
    let url = store("all:s3cret@", "t");
    let _member = fleet.scraper_named("member", &["--store", &url]);
    visit(&url).has("ok", "store", &["has the bucket, with 1 keys"]);
    nats.kill();
    visit(&url).fails("store", &["refused", "is nats-server there"]);
}

#[test]
fn another_key_at_the_scrapers_address_is_named() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let expected = nobody(0).key;
    let peer = format!("{expected}@{}", dial_address(&scraper.peer()));
    let visit = beside_exporter(&fleet, &peer, &[]);
    let found = format!("expected {expected}, found {}", scraper.key);
    let advice = format!("give {} with --scraper", scraper.key);
    visit.fails("scraper TCP", &["answered with another key", &found, &advice]);
    visit.fails("scraper UDP", &[&found]);
    visit.fails("link", &[&found, &advice]);
}

#[test]
fn a_bootstrap_node_that_is_down_is_found() {
    let fleet = Fleet::new();
    let down = nobody(free_port());
    let visit = beside_exporter(&fleet, nobody(0).key, &["--bootstrap", &down.to_string(), "--alias", "a"]);
    let nothing = format!("nothing listens at {}", dial_address(&down));
    visit.fails(&node(&down, "TCP"), &[&nothing, "start the narthex node there, or mend the address in --bootstrap"]);
    visit.fails(&node(&down, "UDP"), &["no QUIC answer"]);
    visit.has("skipped", "look-up", &["no bootstrap node answers"]);
    let advice =
        "mend the way to a node, of which none answers, or give the scraper's address: --scraper KEY@HOST:PORT";
    visit.fails("link", &["cannot be reached", advice]);
}

#[test]
fn an_address_that_the_agent_remembers_is_used_as_it_uses_it() {
    let fleet = Fleet::new();
    let mut node = fleet.node();
    let bootstrap = node.peer.to_string();
    let scraper = announced(&fleet, &bootstrap);
    let by_key = scraper.key.to_string();
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let target = format!("host-1={}", exporter.url("/metrics"));
    let _agent = fleet.agent("agent", &["--scraper", &by_key, "--bootstrap", &bootstrap, "--target", &target]);
    let data_dir = fleet.path().join("agent-data");
    let remembered = || fs::read_to_string(data_dir.join("addresses")).ok().filter(|text| text.contains(&by_key));
    let before = eventually("the scraper's address is remembered", SOON, remembered);
    node.process.kill();
    let tcp = self::node(&node.peer, "TCP");

    let flags = ["--bootstrap", &bootstrap, "--data-dir", &text(&data_dir), "--alias", "a"];
    let visit = beside_exporter(&fleet, &by_key, &flags);
    visit.fails(&tcp, &["nothing listens"]);
    visit.has("skipped", "look-up", &["no bootstrap node answers"]);
    for check in ["link", "secret", "alias a"] {
        visit.has("ok", check, &[]);
    }
    assert_eq!(remembered(), Some(before), "the file is the agent's");
}

#[test]
fn something_else_at_the_address_of_a_node_is_found() {
    let fleet = Fleet::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let wrong = nobody(listener.local_addr().expect("bound").port());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // It waits for the other to end, which is then not the end that a node at a limit makes.
            thread::spawn(move || {
                let _ = stream.write_all(&[b'x'; 512]);
                let _ = io::copy(&mut stream, &mut io::sink());
            });
        }
    });
    let visit = beside_exporter(&fleet, nobody(0).key, &["--bootstrap", &wrong.to_string()]);
    visit.fails(
        &node(&wrong, "TCP"),
        &["something listens at", "does not answer as a narthex peer", "see what has that port"],
    );
    visit.has("skipped", &node(&wrong, "role"), &[]);

    // It may also be a node that has no room.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let closing = nobody(listener.local_addr().expect("bound").port());
    thread::spawn(move || listener.incoming().for_each(drop));
    let visit = beside_exporter(&fleet, nobody(0).key, &["--bootstrap", &closing.to_string()]);
    visit.fails(
        &node(&closing, "TCP"),
        &["takes connections and ends them", "a node at a limit", "see what has that port"],
    );
}

#[test]
fn a_scraper_that_has_no_room_is_not_taken_for_something_else() {
    let Some(mut lab) = Lab::new() else { return };
    let (there, here) = (lab.site(Kind::Open), lab.site(Kind::Cone));
    let fleet = Fleet::new();
    let flags = ["--max-connections-per-ip=1", "--max-connections-per-private-ip=1"];
    let scraper = there.enter(|| fleet.scraper_on(there.public(), &flags));
    let peer = scraper.peer().to_string();
    let _agent = here.enter(|| fleet.agent("agent", &["--scraper", &peer, "--target", "host-1=http://127.0.0.1:9"]));
    there.enter(|| scraper.wait_listed("host-1"));
    let visit = here.enter(|| beside_exporter(&fleet, &peer, &[]));
    for check in ["scraper TCP", "scraper UDP"] {
        visit.has("ok", check, &[]);
    }
    let limit = "--max-connections-per-private-ip";
    visit.fails("link", &["has closed it again", "a scraper at a limit does so", limit, "\"a limit refuses work\""]);
    let logged = || scraper.process.log_line(&["a limit refuses work", "limit=max-connections-per-private-ip"]);
    eventually("the log has the refusal", SOON, logged);
}

#[test]
fn without_udp_there_is_a_warning_and_no_failure() {
    let Some(mut lab) = Lab::new() else { return };
    let (there, here) = (lab.site(Kind::Open), lab.site(Kind::UdpBlocked));
    let fleet = Fleet::new();
    let scraper = there.enter(|| fleet.scraper_on(there.public(), &[]));
    let visit = here.enter(|| beside_exporter(&fleet, scraper.peer(), &["--alias", "a"]));
    visit.warns("scraper UDP", &["no QUIC answer", "TCP is enough to work"]);
    for check in ["scraper TCP", "link", "secret", "alias a"] {
        visit.has("ok", check, &[]);
    }
    assert_eq!(visit.code, Some(0), "{}", visit.stdout);
}

#[test]
fn a_proxy_that_is_in_the_way_is_named() {
    let fleet = Fleet::new();
    let peer = format!("{}@scraper.test:1", nobody(0).key);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let wants = ConnectProxy::start(Manner::Wants("never this"), &[]);
    for (proxy, why) in [
        (wants.address, "wants a user and a password"),
        (silent.local_addr().expect("bound"), "does not answer as an HTTP proxy"),
    ] {
        let secret = text(&fleet.secret_file());
        let flags = ["--scraper", &peer, "--secret-file", &secret, "--timeout", "5s"];
        let visit = Run::of(narthex("doctor").env("HTTPS_PROXY", format!("http://{proxy}")).args(flags));
        for check in ["scraper TCP", "link"] {
            visit.fails(check, &[&proxy.to_string(), why, "see to the proxy of HTTPS_PROXY"]);
        }
    }
}

#[test]
fn a_scraper_at_the_address_of_a_node_is_found() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let peer = scraper.peer();
    let visit = beside_exporter(&fleet, &peer, &["--bootstrap", &peer.to_string()]);
    visit.fails(&node(&peer, "role"), &["it is a scraper, not a node", "give a narthex node with --bootstrap"]);
}

#[test]
fn a_scraper_that_is_not_announced_is_found() {
    let fleet = Fleet::new();
    let node = fleet.node();
    let bootstrap = node.peer.to_string();
    let visit = beside_exporter(&fleet, nobody(0).key, &["--bootstrap", &bootstrap]);
    visit.fails("look-up", &["is not announced at these nodes", "is the scraper running, with the same --bootstrap"]);
    visit.fails("link", &["not announced in the DHT"]);
}

#[test]
fn a_scraper_that_is_announced_and_dead_is_found() {
    let fleet = Fleet::new();
    let node = fleet.node();
    let bootstrap = node.peer.to_string();
    let mut scraper = announced(&fleet, &bootstrap);
    scraper.process.kill();
    let visit = beside_exporter(&fleet, scraper.key, &["--bootstrap", &bootstrap]);
    visit.has("ok", "look-up", &["announced", "ago"]);
    visit.fails("link", &["cannot be reached", "is the scraper still running?", "private addresses only"]);
}

#[test]
fn an_alias_of_another_live_key_is_found_and_left_alone() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let target = format!("host-1={}", exporter.url("/metrics"));
    let (agents_file, agents) = new_key(&fleet, "agent.key");
    let peer = scraper.peer().to_string();
    let _agent = fleet.agent("agent", &["--scraper", &peer, "--target", &target, "--key", &text(&agents_file)]);
    scraper.wait_scraped("host-1");

    let (other, _) = new_key(&fleet, "other.key");
    let visit = beside_exporter(&fleet, &peer, &["--target", &target, "--key", &text(&other)]);
    let holder = format!("held by another key, {}", agents.public());
    visit.fails("alias host-1", &[&holder, "the policy is live", "stop that agent, or choose another alias"]);
    visit.has("ok", "secret", &[]);
    assert_eq!(scraper.wait_listed("host-1").label("__meta_narthex_public_key"), agents.public().to_string());
    assert_eq!(scraper.wait_scraped("host-1"), "m 1\n");
    assert_eq!(scraper.count(&["narthex_takeovers_total"]), 0.0, "nothing was claimed");

    let visit = beside_exporter(&fleet, &peer, &["--alias", "free"]);
    visit.has("ok", "alias free", &["nobody holds it"]);
    assert!(!scraper.listed().expect("the list").contains_key("free"), "it is still free");
}

#[test]
fn an_exporter_that_is_down_is_found() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let url = format!("http://{}/metrics", loopback(free_port()));
    let exporter = Exporter::start([]);
    let (down, odd) = (format!("down={url}"), format!("odd={}", exporter.url("/nothing")));
    let peer = scraper.peer().to_string();
    let visit = beside_exporter(&fleet, &peer, &["--target", &down, "--target", &odd]);
    visit.fails("exporter down", &["cannot connect to exporter", "Connection refused", &format!("curl {url}")]);
    visit.fails("exporter odd", &["answered 404"]);
    visit.has("ok", "alias down", &["nobody holds it"]);
}

/// Before: any answer with status 200 was an exporter's.
#[test]
fn a_url_that_has_something_else_than_metrics_is_found() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let whole = |kind: &'static str, body: &str| Reply::Whole {
        status: "200 OK",
        headers: vec![("Content-Type", kind)],
        body: body.into(),
    };
    let exporter = Exporter::start([
        ("/html", whole("text/html", "<!DOCTYPE html>")),
        ("/json", whole("application/json", "{\"status\": 1}")),
        ("/empty", whole("text/plain", "")),
        ("/text", whole("text/plain", "pong, all is well\n")),
        ("/health", whole("text/plain", "OK")),
        ("/comments", whole("text/plain", "# HELP m x\n# TYPE m counter\n")),
        ("/bare", Reply::Whole { status: "200 OK", headers: vec![], body: b"m 1\n".to_vec() }),
        ("/flask", whole("text/html; charset=utf-8", "# HELP m x\nm 1\n")),
        ("/open", whole("application/openmetrics-text; version=1.0.0", "m 1\n# EOF\n")),
    ]);
    let paths = ["html", "json", "empty", "text", "health", "comments", "bare", "flask", "open"];
    let targets = paths.map(|path| format!("{path}={}", exporter.url(&format!("/{path}"))));
    let flags: Vec<&str> = targets.iter().flat_map(|target| ["--target", target]).collect();
    let visit = beside_exporter(&fleet, scraper.peer(), &flags);
    visit.fails("exporter html", &["answers an HTML page", "path of the URL"]);
    visit.fails("exporter json", &["answers JSON"]);
    visit.fails("exporter empty", &["an empty body"]);
    visit.fails("exporter text", &["text that is no metrics", "pong, all is well"]);
    visit.fails("exporter health", &["text that is no metrics", "\"OK\""]);
    visit.fails("exporter comments", &["answers no sample"]);
    visit.warns("exporter bare", &["no Content-Type", "fallback_content_type"]);
    visit.warns("exporter flask", &["text/html", "fallback_scrape_protocol"]);
    visit.has("ok", "exporter open", &["10 bytes of metrics"]);
}

/// Before: a wrong port and a good link, with not a word on how it came about.
#[test]
fn a_link_by_another_address_than_the_given_one_is_told() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let _agent = fleet.agent_of(&scraper, "agent", [("host-1", "http://127.0.0.1:1")], &[]);
    let data_dir = fleet.path().join("agent-data");
    let key = scraper.key.to_string();
    let remembered = || fs::read_to_string(data_dir.join("addresses")).is_ok_and(|text| text.contains(&key));
    eventually_true("the scraper's address is remembered", SOON, remembered);
    let wrong = PeerAddr::at(scraper.key, "127.0.0.1", free_port());
    let flags = ["--data-dir", &text(&data_dir), "--alias", "a"];
    let visit = beside_exporter(&fleet, &wrong, &flags);
    visit.fails("scraper TCP", &["nothing listens"]);
    visit.has(
        "ok",
        "link",
        &[scraper.peer().hint.expect("an address").to_string().as_str(), "not the address that was given"],
    );
    let visit = beside_exporter(&fleet, scraper.peer(), &flags);
    assert!(!visit.line("link").contains("not the address"), "{}", visit.line("link"));
}

#[test]
fn a_scraper_that_does_not_run_is_found() {
    let fleet = Fleet::new();
    new_key(&fleet, "scraper.key");
    let (http, listen) = (loopback(free_port()).to_string(), loopback(free_port()).to_string());
    let visit = beside_prometheus(&fleet, &http, &listen, &[]);
    visit.fails("healthy", &["cannot reach the scraper", "start the scraper, or give the --http HOST:PORT"]);
    visit.has("skipped", "/sd", &["no scraper answers"]);
    visit.has("skipped", "secret", &["not compared"]);
    visit.has("skipped", "clock", &["nothing to compare it with"]);
    visit.has("ok", &format!("port {listen}"), &["free"]);
    visit.has("ok", "data directory", &["makes it at its first start"]);
    assert!(!fleet.path().join("scraper-data").exists(), "it was only looked for");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = taken.local_addr().expect("bound").to_string();
    let visit = beside_prometheus(&fleet, &http, &listen, &[]);
    visit.fails(&format!("port {listen}"), &["cannot be listened on (TCP: Address already in use", "--listen"]);
}

#[test]
fn a_node_at_the_address_of_the_scrapers_http_side_is_found() {
    let fleet = Fleet::new();
    let http = loopback(free_port());
    let _node = fleet.node_with(&["--http", &http.to_string()]);
    eventually_true("it answers", SOON, || http::get(http, "/-/healthy", &[]).is_ok_and(|answer| answer.status == 200));
    new_key(&fleet, "scraper.key");
    let visit = beside_prometheus(&fleet, &http.to_string(), &loopback(free_port()).to_string(), &[]);
    visit.fails("healthy", &["is no scraper", "no narthex_table_loaded in /metrics", "give the --http HOST:PORT"]);
    visit.has("skipped", "/sd", &["no scraper answers"]);
}

#[test]
fn a_scraper_without_its_table_and_another_key_at_its_port_are_found() {
    let fleet = Fleet::new();
    let other = Fleet::new();
    let scraper = other.scraper(&[]);
    let (_, key) = new_key(&fleet, "scraper.key");
    let not_loaded =
        || Reply::Whole { status: "503 Service Unavailable", headers: vec![], body: b"not loaded yet\n".to_vec() };
    let front = Exporter::start([
        ("/-/healthy", Reply::text("healthy\n")),
        ("/metrics", Reply::text("narthex_table_loaded 0\n")),
        ("/-/ready", not_loaded()),
        ("/sd", not_loaded()),
        ("/api/v1/aliases", not_loaded()),
    ]);
    let listen = dial_address(&scraper.peer());
    let visit = beside_prometheus(&fleet, &front.address.to_string(), &listen, &[]);
    visit.has("ok", "healthy", &[]);
    for check in ["ready", "/sd", "aliases"] {
        visit.fails(check, &["not loaded yet (503)", "wait until the scraper has loaded its table"]);
    }
    let found = format!("expected {}, found {}", key.public(), scraper.key);
    visit.fails(
        &format!("port {listen} TCP"),
        &[&found, "give the --key and the --listen that the scraper was started with"],
    );

    front.answer("/sd", Reply::text("[]"));
    let visit = beside_prometheus(&fleet, &front.address.to_string(), &listen, &[]);
    visit.fails("/sd", &["which Prometheus refuses"]);
}

#[test]
fn a_scraper_that_nobody_outside_can_reach_is_warned_about() {
    let fleet = Fleet::new();
    let node = fleet.node();
    let bootstrap = node.peer.to_string();
    let scraper = announced(&fleet, &bootstrap);
    let visit = of_scraper(&fleet, &scraper, &["--bootstrap", &bootstrap]);
    visit.has("ok", "announcement", &["0 public", "0 through relays"]);
    visit.warns("announced addresses", &["only private ones", "start a narthex node with --relay"]);
    visit.warns("relays", &["there is none", "--external HOST:PORT"]);
    visit.has("skipped", "pull", &["no alias is linked"]);
    assert_eq!(visit.code, Some(0), "inside its network it works: {}", visit.stdout);
}
