//! The Dynamic Target Registration Server: `/register`, `/unregister`, `/list`.

use std::{
    collections::BTreeMap,
    env, fs,
    io::BufReader,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, text},
    http::{self, Answer},
    peers::Monitor,
    ports::{free_port, loopback},
};

const TOKEN: &str = "s3cret token";

/// A server under test. Each test has kinds of its own, so that one server serves them all.
struct Server {
    at: SocketAddr,
    token: String,
    kind: String,
    /// Ours, unless the suite is pointed elsewhere.
    ours: Option<(Fleet, Scraper)>,
}

impl Server {
    fn start(flags: &[&str]) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let kind = format!("kind-{}", since.as_nanos());
        if let Ok(at) = env::var("NARTHEX_REGISTRATION_SERVER") {
            let token = env::var("NARTHEX_REGISTRATION_SERVER_TOKEN").unwrap_or_default();
            return Self { at: at.parse().expect("HOST:PORT"), token, kind, ours: None };
        }
        let fleet = Fleet::new();
        let token_file = fleet.path().join("registration.token");
        fs::write(&token_file, format!("{TOKEN}\n")).expect("written");
        fs::set_permissions(&token_file, fs::Permissions::from_mode(0o600)).expect("set");
        let at = loopback(free_port());
        let (listen, token_file) = (at.to_string(), text(&token_file));
        let api = ["--registration-api", &listen, "--registration-token-file", &token_file];
        let scraper = fleet.scraper(&[&api, flags].concat());
        Self { at, token: TOKEN.to_owned(), kind, ours: Some((fleet, scraper)) }
    }

    /// The one thing that only ours can be asked.
    fn scraper(&mut self) -> Option<&mut Scraper> {
        self.ours.as_mut().map(|(_, scraper)| scraper)
    }

    fn ask(&self, method: &str, path: &str) -> Answer {
        http::request(method, self.at, path, &[("Authorization", &self.token)]).expect("answers")
    }

    fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.post_as("application/x-www-form-urlencoded", path, &encode(form))
    }

    fn post_as(&self, kind: &str, path: &str, body: &str) -> Answer {
        let headers = [("Authorization", self.token.as_str()), ("Content-Type", kind)];
        http::request_with("POST", self.at, path, &headers, body.as_bytes()).expect("answers")
    }

    fn register(&self, key: &str, data: &str) {
        let answer = self.post("/register", &[("kind", &self.kind), ("key", key), ("data", data)]);
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{key}");
    }

    fn list(&self) -> BTreeMap<String, String> {
        let answer = self.ask("GET", &format!("/list?kind={}", self.kind));
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).expect("an object of strings")
    }

    fn keys(&self) -> Vec<String> {
        self.list().into_keys().collect()
    }
}

fn encode(form: &[(&str, &str)]) -> String {
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    form.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&")
}

#[test]
fn what_is_registered_is_listed_until_it_is_unregistered() {
    let server = Server::start(&[]);
    let odd = "{\"a\": \"<&>\u{e9}\\n\"}";
    server.register("b:1", odd);
    server.register("a/ü", "not JSON");
    let answer = server.ask("GET", &format!("/list?kind={}", server.kind));
    let (a, b) = (serde_json::json!("not JSON"), serde_json::json!(odd));
    let listed: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(listed, serde_json::json!({"a/ü": a, "b:1": b}));
    let (first, second) = (answer.text().find("a/ü"), answer.text().find("b:1"));
    assert!(first.is_some() && first < second, "keys are sorted");

    server.register("b:1", "later");
    assert_eq!(server.list()["b:1"], "later", "the last registration of a key counts");
    for _ in 0..2 {
        let answer = server.post("/unregister", &[("kind", &server.kind), ("key", "b:1")]);
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "also of what is not there");
    }
    assert_eq!(server.keys(), ["a/ü"]);
    server.post("/unregister", &[("kind", &server.kind), ("key", "a/ü")]);
    assert!(server.list().is_empty());
}

#[test]
fn any_method_does_and_the_body_wins_over_the_query() {
    let server = Server::start(&[]);
    let kind = &server.kind;
    for (method, key) in [("GET", "get"), ("PUT", "put"), ("DELETE", "delete"), ("POST", "post")] {
        let answer = server.ask(method, &format!("/register?kind={kind}&key={key}&data=x+y"));
        assert_eq!(answer.status, 200, "{method}: {}", answer.text());
    }
    assert_eq!(server.keys(), ["delete", "get", "post", "put"]);
    assert_eq!(server.list()["get"], "x y");
    assert_eq!(server.ask("DELETE", &format!("/list?kind={kind}")).status, 200);
    server.post("/register?key=query", &[("kind", kind), ("key", "body"), ("data", "1")]);
    assert_eq!(server.list()["body"], "1");
    assert_eq!(server.ask("GET", &format!("/unregister?kind={kind}&key=get")).status, 200);
    assert_eq!(server.keys(), ["body", "delete", "post", "put"]);
}

#[test]
fn what_is_missing_or_in_another_form_is_400() {
    let server = Server::start(&[]);
    let kind = &server.kind;
    let whole = [("kind", kind.as_str()), ("key", "k"), ("data", "d")];
    for left_out in 0..whole.len() {
        let mut form = whole.to_vec();
        form.remove(left_out);
        assert_eq!(server.post("/register", &form).status, 400, "{form:?}");
        let mut empty = whole.to_vec();
        empty[left_out].1 = "";
        assert_eq!(server.post("/register", &empty).status, 400, "{empty:?}");
    }
    assert_eq!(server.post("/unregister", &[("kind", kind)]).status, 400);
    assert_eq!(server.ask("GET", "/list").status, 400);
    assert_eq!(server.post("/list", &[("kind", kind)]).status, 400, "the kind of a list stands in the query");
    let json = format!(r#"{{"kind":"{kind}","key":"k","data":"d"}}"#);
    assert_eq!(server.post_as("application/json", "/register", &json).status, 400);
    server.register("k", "d");
    assert_eq!(server.keys(), ["k"]);
}

#[test]
fn without_the_whole_token_everything_is_401_with_an_empty_body() {
    let server = Server::start(&[]);
    let wrong = ["", "x", &server.token[1..], &format!("{}x", server.token), &format!("Bearer {}", server.token)];
    let paths = ["/register?kind=k&key=k&data=d", "/unregister?kind=k&key=k", "/list?kind=k", "/list"];
    for path in paths {
        for token in wrong {
            let answer = http::get(server.at, path, &[("Authorization", token)]).expect("answers");
            assert_eq!((answer.status, answer.text().as_str()), (401, ""), "{path} with {token:?}");
            assert_eq!(answer.header("WWW-Authenticate"), None);
        }
        assert_eq!(http::get(server.at, path, &[]).expect("answers").status, 401, "{path}");
    }
    assert_eq!(server.ask("GET", "/other").status, 404);
}

/// Each of these ended the original, its connection, or was answered as an error of the server.
#[test]
fn what_the_original_does_wrong_is_answered() {
    let mut server = Server::start(&["--max-peer-bytes", "40000"]);
    if server.scraper().is_none() {
        return;
    }
    assert_eq!(server.list(), BTreeMap::new(), "a kind that never was");
    assert_eq!(server.post("/unregister", &[("kind", "never-was"), ("key", "k")]).status, 200);
    let long = server.post("/register", &[("kind", &server.kind), ("key", &"k".repeat(32_769)), ("data", "d")]);
    assert_eq!(long.status, 400);
    assert!(long.text().contains("key") && long.text().contains("32768"), "{}", long.text());
    let own = server.post("/register", &[("kind", "narthex/lobby"), ("key", "k"), ("data", "d")]);
    assert_eq!(own.status, 400, "a kind of ours");
    for escape in ["%", "%2", "%zz", "%ff"] {
        assert_eq!(server.ask("GET", &format!("/register?kind=k&key={escape}&data=d")).status, 400, "{escape}");
    }
    let large = server.post("/register", &[("kind", &server.kind), ("key", "k"), ("data", &"d".repeat(600_000))]);
    assert_eq!(large.status, 413);
    let budget = server.post("/register", &[("kind", &server.kind), ("key", "k"), ("data", &"d".repeat(60_000))]);
    assert_eq!(budget.status, 507);
    assert!(budget.text().contains("max_peer_bytes"), "{}", budget.text());
    let list = server.ask("GET", &format!("/list?kind={}", server.kind));
    assert_eq!((list.text().as_str(), list.header("Content-Type")), ("{}", Some("application/json")));
}

/// Before: whoever had no token filled memory with bodies, and kept all connections.
#[test]
fn no_body_is_read_of_those_without_the_token() {
    let server = Server::start(&[]);
    if server.ours.is_none() {
        return;
    }
    let form = [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", "500001")];
    for wrong in [&form[..], &[form[0], form[1], ("Authorization", "wrong")]] {
        let unfinished = http::send("POST", server.at, "/register", wrong).expect("connects");
        let answer = http::Exchange::on(BufReader::new(unfinished)).expect("answers before the body");
        assert_eq!(answer.status, 401);
    }
}

#[test]
fn a_strict_one_answers_a_kind_that_never_was_as_the_original() {
    let server = Server::start(&["--registration-strict"]);
    let path = format!("/list?kind={}", server.kind);
    assert_eq!(server.ask("GET", &path).status, 500);
    server.register("k", "d");
    server.post("/unregister", &[("kind", &server.kind), ("key", "k")]);
    let emptied = server.ask("GET", &path);
    assert_eq!((emptied.status, emptied.text().trim()), (200, "{}"));
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_what_was_unregistered_stays_away() {
    let mut server = Server::start(&[]);
    let keys: Vec<String> = (0..40).map(|n| format!("key-{n:02}")).collect();
    for key in &keys {
        server.register(key, r#"{"targets":["127.0.0.1:1"]}"#);
    }
    let (gone, kept) = keys.split_at(15);
    for key in gone {
        server.post("/unregister", &[("kind", &server.kind), ("key", key)]);
    }
    let Some(scraper) = server.scraper() else { return };
    scraper.process.kill();
    scraper.restart();
    assert_eq!(server.keys(), kept);
}

#[test]
fn a_lease_ends_unless_it_is_registered_again() {
    let mut server = Server::start(&[]);
    if server.scraper().is_none() {
        return;
    }
    let kind = server.kind.clone();
    let register = |server: &Server, key: &str, lease: &str| {
        server.post("/register", &[("kind", &kind), ("key", key), ("data", "d"), ("lease", lease)]).status
    };
    for unfit in ["x", "0s", "-1s", "1"] {
        assert_eq!(register(&server, "k", unfit), 400, "{unfit}");
    }
    assert_eq!((register(&server, "short", "2s"), register(&server, "long", "1h")), (200, 200));
    server.register("stays", "d");
    assert_eq!(server.keys(), ["long", "short", "stays"]);
    eventually_true("the short one is gone", SOON, || server.keys() == ["long", "stays"]);
    let scraper = server.scraper().expect("ours");
    assert!(scraper.count(&["narthex_beacons_expired_total"]) >= 1.0);
}

/// The job of the original's handlers, done by a real Prometheus: direct targets and aliases side by side.
#[test]
fn prometheus_scrapes_the_targets_of_beacons_by_kind() {
    let mut server = Server::start(&[]);
    let Some(scraper) = server.scraper() else { return };
    let sd = scraper.http;
    let config = |query: &str| {
        format!(
            "  - job_name: beacons\n    http_sd_configs:\n      - {{url: 'http://{sd}/sd{query}', refresh_interval: 1s}}\n"
        )
    };
    let config = config(&format!("?kind={}", server.kind));
    let (fleet, _) = server.ours.as_ref().expect("ours");
    let Some(prometheus) = Monitor::prometheus_on(fleet.path(), &config, &[]) else { return };
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n")), ("/federate", Reply::text("n 2\n"))]);
    let at = exporter.address;
    server.register("web", &format!(r#"{{"targets":["{at}"],"labels":{{"env":"prod"}}}}"#));
    let dead = loopback(free_port()).to_string();
    server.register("dead", &format!(r#"{{"targets":["{dead}"]}}"#));
    server.register("opaque", "nothing to scrape");
    server.register("bad", &format!(r#"{{"targets":["{at}"],"labels":{{"no-name":"x"}}}}"#));
    let target = prometheus.wait_health(&at.to_string(), "up");
    assert_eq!(target.labels["env"], "prod");
    prometheus.wait_health(&dead, "down");
    server.post("/unregister", &[("kind", &server.kind), ("key", "web")]);
    prometheus.wait_gone(&at.to_string());
    prometheus.wait_health(&dead, "down");

    let groups = |path: &str| -> Vec<serde_json::Value> {
        serde_json::from_slice(&http::get(sd, path, &[]).expect("answers").body).expect("a list")
    };
    assert_eq!(groups(&format!("/sd?kind={}", server.kind)).len(), 1);
    assert_eq!(groups("/sd").len(), 1);
    assert!(groups("/sd?kind=other").is_empty());
    let two = r#"[{"targets":["x:1"],"labels":{"env":"prod","service":"web"}},{"targets":["y:1"],"labels":null}]"#;
    server.register("two", two);
    for filter in ["label=env:prod", "service=web"] {
        assert_eq!(groups(&format!("/sd?{filter}"))[0]["targets"], serde_json::json!(["x:1"]), "{filter}");
        assert_eq!(groups(&format!("/sd?{filter}")).len(), 1, "{filter}");
    }
    server.register("cluster:1", r#"{"token":"t0ken"}"#);
    let with_token = groups("/sd?label=__param_token:t0ken");
    assert_eq!(with_token[0]["targets"], serde_json::json!(["cluster:1"]));
}
