//! Where only HTTP(S) gets out: links by WebSocket, and through the proxy of the environment.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{
    SOON,
    connect_proxy::{ConnectProxy, Manner},
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, narthex, text},
    ports::{free_port, loopback},
    process::Process,
    tls::{Authority, in_front_of},
};

/// A scraper that takes WebSocket links too, and an exporter.
struct Rig {
    fleet: Fleet,
    scraper: Scraper,
    websocket: SocketAddr,
    exporter: Exporter,
}

impl Rig {
    fn new() -> Self {
        let (fleet, websocket) = (Fleet::new(), loopback(free_port()));
        let scraper = fleet.scraper(&["--listen-ws", &websocket.to_string()]);
        let exporter = Exporter::start([("/metrics", Reply::text("got_out 1\n"))]);
        Self { fleet, scraper, websocket, exporter }
    }

    /// An agent that knows one dial address of the scraper, and registers its own name as an alias.
    fn agent(&self, name: &str, address: &str, env: &[(&str, &str)]) -> Process {
        let scraper = format!("{}@{address}", self.scraper.key);
        let target = format!("{name}={}", self.exporter.url("/metrics"));
        self.fleet.agent_with(name, &self.fleet.secret_file(), env, &["--scraper", &scraper, "--target", &target])
    }

    fn p2p(&self) -> SocketAddr {
        let hint = self.scraper.peer().hint.expect("it has one");
        loopback(hint.host_port().port)
    }

    #[track_caller]
    fn wait_scraped_over(&self, alias: &str, transport: &str) {
        assert_eq!(self.scraper.wait_scraped(alias), "got_out 1\n");
        let answer = self.scraper.get(&format!("/api/v1/aliases/{alias}"));
        let view: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(view["link"]["transport"], transport, "{view}");
    }
}

#[test]
fn a_client_with_nothing_but_a_websocket_is_scraped() {
    let rig = Rig::new();
    let _plain = rig.agent("plain", &format!("ws://{}", rig.websocket), &[]);
    let _path = rig.agent("path", &format!("ws://localhost:{}/any/path", rig.websocket.port()), &[]);
    rig.wait_scraped_over("plain", "ws");
    rig.wait_scraped_over("path", "ws");
}

#[test]
fn a_websocket_is_announced_as_it_was_given_and_found_by_key() {
    let (fleet, websocket) = (Fleet::new(), loopback(free_port()));
    let node = fleet.node();
    let (bootstrap, external) = (node.peer.to_string(), format!("ws://{websocket}/narthex"));
    let listen = websocket.to_string();
    let scraper = fleet.scraper(&["--listen-ws", &listen, "--external", &external, "--bootstrap", &bootstrap]);
    let exporter = Exporter::start([("/metrics", Reply::text("got_out 1\n"))]);
    let rig = Rig { fleet, scraper, websocket, exporter };
    let (key, target) = (rig.scraper.key.to_string(), format!("web={}", rig.exporter.url("/metrics")));
    let _agent = rig.fleet.agent("web", &["--scraper", &key, "--bootstrap", &bootstrap, "--target", &target]);
    rig.wait_scraped_over("web", "ws");
}

#[test]
fn a_proxy_that_alone_knows_the_name_carries_tcp_websocket_and_tls() {
    let rig = Rig::new();
    let ca = Authority::new(rig.fleet.path(), "ca");
    let runtime = Runtime::new().expect("a runtime");
    let tls = runtime.block_on(in_front_of(rig.websocket, &ca.certify("scraper.test"), None));
    let addresses = [("scraper.test:19961", rig.p2p()), ("scraper.test:80", rig.websocket), ("scraper.test:443", tls)];
    let proxy = ConnectProxy::start(Manner::Open, &addresses);
    let (url, ca_file) = (format!("http://{}", proxy.address), text(&ca.file()));
    let env = [("HTTPS_PROXY", url.as_str()), ("SSL_CERT_FILE", &ca_file)];

    let _tcp = rig.agent("tcp", "scraper.test:19961", &env);
    let _ws = rig.agent("ws", "ws://scraper.test", &env);
    let _wss = rig.agent("wss", "wss://scraper.test/narthex", &env);
    rig.wait_scraped_over("tcp", "tcp");
    rig.wait_scraped_over("ws", "ws");
    rig.wait_scraped_over("wss", "ws");
    let asked = proxy.asked();
    assert!(addresses.iter().all(|(address, _)| asked.iter().any(|asked| asked == address)), "{asked:?}");
}

#[test]
fn a_certificate_without_a_trusted_issuer_ends_the_link() {
    let rig = Rig::new();
    let ca = Authority::new(rig.fleet.path(), "ca");
    let runtime = Runtime::new().expect("a runtime");
    let tls = runtime.block_on(in_front_of(rig.websocket, &ca.certify("localhost"), None));
    let ca_file = text(&ca.file());
    let wrong_name = rig.agent("name", &format!("wss://{tls}"), &[("SSL_CERT_FILE", &ca_file)]);
    wrong_name.wait_log(&["no link", "certificate not valid for name"]);
    let untrusted = rig.agent("untrusted", &format!("wss://localhost:{}", tls.port()), &[]);
    untrusted.wait_log(&["no link", &format!("wss://localhost:{}", tls.port()), "certificate"]);
}

#[test]
fn a_proxy_that_refuses_is_named_without_its_password() {
    let rig = Rig::new();
    let addresses = [("scraper.test:19961", rig.p2p())];
    let refusing = ConnectProxy::start(Manner::Refuses("502 Bad Gateway"), &addresses);
    // "Aladdin:opensesame", as in RFC 7617.
    let wanting = ConnectProxy::start(Manner::Wants("Basic QWxhZGRpbjpvcGVuc2VzYW1l"), &addresses);
    let refuses_basic = "407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM";
    let other_scheme = ConnectProxy::start(Manner::Refuses(refuses_basic), &addresses);
    let gone = loopback(free_port());
    let at = |login: &str, address: SocketAddr| format!("http://{login}{address}");
    let answered =
        format!("the proxy http://{} answered 502 Bad Gateway to CONNECT scraper.test:19961", refusing.address);
    for (name, proxy, reason) in [
        ("refused", at("Aladdin:hunter2@", refusing.address), answered.as_str()),
        ("anonymous", at("", wanting.address), "wants a user and a password"),
        ("wrong", at("Aladdin:hunter2@", wanting.address), "refuses the user and the password"),
        ("scheme", at("Aladdin:hunter2@", other_scheme.address), "wants negotiate or ntlm"),
        ("gone", at("", gone), "cannot be reached: connection refused"),
        ("socks", format!("socks5://Aladdin:hunter2@{gone}"), "must begin with http://"),
    ] {
        let agent = rig.agent(name, "scraper.test:19961", &[("HTTPS_PROXY", &proxy)]);
        let line = agent.wait_log(&["no link", reason]);
        assert!(!agent.log().contains("hunter2") && !line.contains("Aladdin"), "{line}");
    }
    let _right =
        rig.agent("right", "scraper.test:19961", &[("https_proxy", &at("Aladdin:opensesame@", wanting.address))]);
    rig.wait_scraped_over("right", "tcp");
}

#[test]
fn a_tunnel_is_open_whatever_success_the_proxy_calls_it() {
    let rig = Rig::new();
    let proxy = ConnectProxy::start(Manner::OpenWith("HTTP/1.1 201 Created"), &[("scraper.test:19961", rig.p2p())]);
    let _agent = rig.agent("created", "scraper.test:19961", &[("HTTPS_PROXY", &format!("http://{}", proxy.address))]);
    rig.wait_scraped_over("created", "tcp");
}

#[test]
fn what_no_proxy_names_and_what_is_private_is_reached_directly() {
    let rig = Rig::new();
    let proxy = ConnectProxy::start(Manner::Refuses("403 Forbidden"), &[]);
    let url = format!("http://{}", proxy.address);
    // A name that every resolver knows without asking anybody, and that is no address to us.
    let named = format!("127.1:{}", rig.p2p().port());
    let _excepted = rig.agent("excepted", &named, &[("ALL_PROXY", &url), ("NO_PROXY", "example.org,127.1")]);
    let _private = rig.agent("private", &rig.p2p().to_string(), &[("ALL_PROXY", &url)]);
    let _websocket = rig.agent("websocket", &format!("ws://{}", rig.websocket), &[("ALL_PROXY", &url)]);
    for alias in ["excepted", "private", "websocket"] {
        assert_eq!(rig.scraper.wait_scraped(alias), "got_out 1\n");
    }
    assert!(proxy.asked().is_empty(), "{:?}", proxy.asked());

    let sent = rig.agent("sent", &named, &[("ALL_PROXY", &url)]);
    sent.wait_log(&["no link", &format!("answered 403 Forbidden to CONNECT {named}")]);
}

#[test]
fn the_doctor_goes_the_same_way_and_names_where_it_ends() {
    let rig = Rig::new();
    let proxy = ConnectProxy::start(Manner::Refuses("502 Bad Gateway"), &[]);
    let visit = |address: &str| {
        let mut doctor = narthex("doctor");
        doctor.args(["--scraper", &format!("{}@{address}", rig.scraper.key), "--timeout", "30s"]);
        doctor.args(["--secret-file", &text(&rig.fleet.secret_file())]);
        let output = doctor.env("HTTPS_PROXY", format!("http://{}", proxy.address)).output().expect("runs");
        (output.status.success(), String::from_utf8(output.stdout).expect("text"))
    };
    let (healthy, stdout) = visit(&format!("ws://{}", rig.websocket));
    assert!(healthy && stdout.contains("scraper WebSocket: ws://127.0.0.1"), "{stdout}");
    assert!(stdout.contains("answers with the right key\n"), "{stdout}");
    for (address, check) in [("scraper.test:19961", "scraper TCP: "), ("wss://scraper.test", "scraper WebSocket: ")] {
        let (healthy, stdout) = visit(address);
        let line = stdout.lines().find(|line| line.contains(check)).unwrap_or_else(|| panic!("{stdout}"));
        assert!(!healthy && line.starts_with("failed") && line.contains("answered 502 Bad Gateway"), "{line}");
    }
}

#[test]
fn a_port_for_websockets_is_shared_with_nobody() {
    let rig = Rig::new();
    let (fleet, taken) = (Fleet::new(), rig.websocket.to_string());
    let mut command = narthex("node");
    command.args(["--data-dir", &text(&fleet.path().join("node-data")), "--listen-ws", &taken]);
    command.args(["--listen", &loopback(free_port()).to_string()]);
    let mut second = Process::spawn("second", fleet.path(), &mut command);
    assert!(!second.wait(SOON).success());
    second.wait_log(&["cannot listen for WebSocket links on", &taken]);
}
