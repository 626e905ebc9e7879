//! The public node: what it shows over HTTP, and when it refuses to be a relay.

use std::net::SocketAddr;

use narthex::KeyPair;

use crate::support::{
    SOON, eventually, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, narthex, text},
    http::{self, Answer},
    ports::{free_port, loopback},
    process::Process,
};

fn ask(node: SocketAddr, path: &str) -> Answer {
    http::get(node, path, &[]).unwrap_or_else(|error| panic!("GET {path} at the node: {error}"))
}

/// The value of one of the node's samples, by name and labels.
fn sample(node: SocketAddr, name: &str) -> f64 {
    let exposition = ask(node, "/metrics").text();
    let mut values = exposition.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.next().unwrap_or_else(|| panic!("no {name} in\n{exposition}")).parse().expect("a number")
}

/// A relay with `more` flags that listens on loopback; it may refuse to.
fn relay(fleet: &Fleet, more: &[&str]) -> Process {
    let mut command = narthex("node");
    command.args(["--relay", "--listen", &loopback(free_port()).to_string()]);
    command.args(["--data-dir", &text(&fleet.path().join("relay-data"))]).args(more);
    Process::spawn("relay", fleet.path(), &mut command)
}

/// The one line that a command ended with. A warning may come before: of a machine that lets it open few files.
fn refusal(mut process: Process, code: i32) -> String {
    assert_eq!(process.wait(SOON).code(), Some(code), "{}", process.log());
    let log = process.log();
    let lines: Vec<&str> = log.lines().filter(|line| !line.contains("open_files=")).collect();
    let [line] = lines[..] else { panic!("not one line: {log}") };
    assert!(line.starts_with("error: "), "{log}");
    line.to_owned()
}

#[test]
fn a_node_shows_what_it_does_for_others() {
    let fleet = Fleet::new();
    let http = loopback(free_port());
    let address = http.to_string();
    let node = fleet.node_with(&["--http", &address]);
    assert_eq!(ask(http, "/-/healthy").text(), "narthex node is healthy\n");
    assert_eq!(ask(http, "/-/ready").text(), "narthex node is ready\n");
    assert_eq!(sample(http, "narthex_dht_records"), 0.0);

    let bootstrap = node.peer.to_string();
    let scraper = fleet.scraper(&["--bootstrap", &bootstrap]);
    let exporter = Exporter::start([("/metrics", Reply::text("by_key 1\n"))]);
    let (key, target) = (scraper.key.to_string(), format!("a={}", exporter.url("/metrics")));
    let _agent = fleet.agent("agent", &["--scraper", &key, "--bootstrap", &bootstrap, "--target", &target]);
    scraper.wait_scraped("a");

    assert_eq!(sample(http, "narthex_dht_records"), 1.0);
    assert!(sample(http, "narthex_dht_records_stored_total") >= 1.0);
    assert!(sample(http, r#"narthex_dht_lookups_total{outcome="found"}"#) >= 1.0);
    eventually_true("its connections are exported", SOON, || {
        sample(http, r#"narthex_connections{transport="tcp"}"#) >= 1.0 && sample(http, "narthex_peers") >= 1.0
    });

    let openmetrics = http::get(http, "/metrics", &[("Accept", "application/openmetrics-text")]).expect("an answer");
    assert_eq!(openmetrics.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(openmetrics.text().ends_with("# EOF\n"));
    assert_eq!(ask(http, "/sd").status, 404);
    assert_eq!(http::request("POST", http, "/metrics", &[]).expect("an answer").status, 405);
}

#[test]
fn a_node_is_ready_once_one_of_its_bootstrap_nodes_is_linked() {
    let fleet = Fleet::new();
    let (http, missing) = (loopback(free_port()), loopback(free_port()));
    let first = KeyPair::generate();
    narthex::identity::create_key(&fleet.path().join("first.key"), &first).expect("the key is written");
    let address = http.to_string();
    let _node = fleet.node_with(&["--http", &address, "--bootstrap", &format!("{}@{missing}", first.public())]);
    let ready = || http::get(http, "/-/ready", &[]).ok();
    let answer = eventually("an answer", SOON, ready);
    assert_eq!((answer.status, answer.text().as_str()), (503, "none of the bootstrap nodes is linked\n"));
    assert_eq!(ask(http, "/-/healthy").status, 200);

    let mut command = narthex("node");
    command.args(["--key", &text(&fleet.path().join("first.key")), "--listen", &missing.to_string()]);
    command.args(["--data-dir", &text(&fleet.path().join("first-data"))]);
    let _first = Process::spawn("first", fleet.path(), &mut command);
    let within_two_backoffs = 3 * SOON;
    eventually_true("it is ready", within_two_backoffs, || ready().is_some_and(|answer| answer.status == 200));
}

#[test]
fn an_http_address_that_is_taken_is_refused() {
    let fleet = Fleet::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let line = refusal(relay(&fleet, &["--http", &address, "--external", "127.0.0.1:1"]), 1);
    assert!(line.contains(&format!("could not listen for HTTP on {address}: ")), "{line}");
    assert!(line.contains("; is another process using the port? --http gives another address"), "{line}");
}

#[test]
fn a_node_that_is_given_as_its_own_bootstrap_node_is_refused() {
    let fleet = Fleet::new();
    let key = KeyPair::generate();
    let file = fleet.path().join("own.key");
    narthex::identity::create_key(&file, &key).expect("the key is written");
    let own = format!("{}@127.0.0.1:1", key.public());
    let line = refusal(relay(&fleet, &["--key", &text(&file), "--bootstrap", &own, "--external", "127.0.0.1:1"]), 1);
    assert!(line.contains(&format!("bootstrap node {} is this peer's own key", key.public())), "{line}");
    assert!(line.contains("; see --bootstrap"), "{line}");
}

#[test]
fn limits_of_a_relay_without_a_relay_are_refused() {
    let fleet = Fleet::new();
    let file = |name: &str, settings: &str| {
        let path = fleet.path().join(name);
        std::fs::write(&path, settings).expect("writes");
        text(&path)
    };
    let limit = file("limit.toml", "relay-circuits = 5\n");
    let relay = file("relay.toml", "relay-circuits = 5\nrelay = true\n");
    let no_relay = file("no-relay.toml", "relay-circuits = 5\nrelay = false\n");
    let node = |args: &[&str]| {
        let mut command = narthex("node");
        command.args(["--key", "none.key"]).args(args).args(["--data-dir", &text(&fleet.path().join("data"))]);
        let output = command.output().expect("runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    for (args, code, reason) in [
        (&["--relay-circuit-duration", "1h"][..], 2, "--relay-circuit-duration is a limit of --relay"),
        (&["--config", &limit], 2, "--relay-circuits is a limit of --relay"),
        (&["--config", &no_relay], 2, "--relay-circuits is a limit of --relay"),
        (&["--config", &relay], 1, "no file none.key"),
        (&["--config", &limit, "--relay"], 1, "no file none.key"),
        (&["--relay", "--relay-circuit-bytes", "10"], 2, "must be at least 64KiB"),
    ] {
        let (ended, output) = node(args);
        assert_eq!(ended, Some(code), "{args:?}: {output}");
        assert!(output.contains(reason), "{args:?}: {output}");
    }
}

#[test]
fn a_relay_without_a_known_address_names_what_to_give() {
    let fleet = Fleet::new();
    let line = refusal(relay(&fleet, &[]), 1);
    assert!(line.contains("give --external HOST:PORT"), "{line}");
}

#[test]
fn an_external_address_that_nobody_can_use_is_refused() {
    let fleet = Fleet::new();
    for (external, code, reason) in [
        ("no-such-host.invalid:19961", 1, "external address no-such-host.invalid:19961 does not resolve"),
        ("127.0.0.1:0", 2, "nobody can be reached at port 0: give the port"),
        ("0.0.0.0:19961", 2, "0.0.0.0 is not the address of one host that others reach: give that"),
        ("[::]:19961", 2, ":: is not the address of one host"),
        ("255.255.255.255:19961", 2, "255.255.255.255 is not the address of one host"),
        ("wss://224.0.0.1", 2, "224.0.0.1 is not the address of one host"),
        ("[fe80::1]:19961", 2, "fe80::1 is not the address of one host"),
        ("node.example.org", 2, "--external"),
    ] {
        let directory = fleet.path().join(external.replace(['[', ']', ':', '/'], "_"));
        std::fs::create_dir(&directory).expect("a directory");
        let mut command = narthex("node");
        command.args(["--relay", "--external", external, "--listen", &loopback(free_port()).to_string()]);
        command.args(["--data-dir", &text(&directory.join("data"))]);
        let line = refusal(Process::spawn("relay", &directory, &mut command), code);
        assert!(line.contains(reason), "{external}: {line}");
    }
}

#[test]
fn a_scraper_is_reachable_through_a_relay_with_a_given_address() {
    let fleet = Fleet::new();
    let http = loopback(free_port());
    let address = http.to_string();
    let port = free_port();
    let at = loopback(port).to_string();
    let key = KeyPair::generate();
    narthex::identity::create_key(&fleet.path().join("node.key"), &key).expect("the key is written");
    let mut command = narthex("node");
    command.args(["--relay", "--key", &text(&fleet.path().join("node.key"))]);
    command.args(["--listen", &at, "--external", &at, "--http", &address, "--relay-reservations", "1"]);
    command.args(["--data-dir", &text(&fleet.path().join("node-data"))]);
    let _relay = Process::spawn("node", fleet.path(), &mut command);
    eventually_true("the relay listens", SOON, || http::get(http, "/-/ready", &[]).is_ok());

    let bootstrap = format!("{}@{at}", key.public());
    let first = fleet.scraper(&["--bootstrap", &bootstrap]);
    eventually_true("the scraper has a reservation", SOON, || sample(http, "narthex_relay_reservations") == 1.0);
    eventually("and knows it", SOON, || first.process.log_line(&["reachable through a relay"]));

    let other = Fleet::new();
    let second = other.scraper(&["--bootstrap", &bootstrap]);
    eventually("the second receives the reason", SOON, || {
        second.process.log_line(&["a relay does not make us reachable", "refused: too many reservations"])
    });
    assert_eq!(sample(http, "narthex_relay_reservations"), 1.0);
    eventually_true("the refusal is counted", SOON, || {
        sample(http, r#"narthex_relay_reservation_requests_total{outcome="refused"}"#) >= 1.0
    });
}
