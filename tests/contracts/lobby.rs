//! Lobby: `/v1/discoveries`, `/v1/resolve`, `/v1/prometheus/{name}`, `/v1/labels`, and what hosts say to each other.

use std::{
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, text},
    http::{self, Answer},
    peers::Monitor,
    ports::{free_port, loopback},
    process::Process,
};

/// A host with the API. Another server, such as the original, has whatever labels its hosts have besides.
pub(crate) struct Host {
    pub(crate) at: SocketAddr,
    name: String,
    /// Its labels' files, and the runtime file.
    labels: PathBuf,
    pub(crate) process: Option<Process>,
}

/// The group of a scraper of ours.
pub(crate) struct Group {
    pub(crate) fleet: Fleet,
    pub(crate) scraper: Scraper,
}

impl Group {
    fn new(flags: &[&str]) -> Self {
        let fleet = Fleet::new();
        let scraper = fleet.scraper(flags);
        Self { fleet, scraper }
    }

    pub(crate) fn host(&self, name: &str, variables: &[(&str, &str)]) -> Host {
        self.start(name, name, loopback(free_port()), variables)
    }

    /// An agent with its key under this name, and with lobbyd's variables.
    fn start(&self, agent: &str, name: &str, at: SocketAddr, variables: &[(&str, &str)]) -> Host {
        let labels = self.fleet.path().join(format!("{agent}-labels"));
        let (port, directory) = (at.port().to_string(), text(&labels));
        let own = [
            ("HOST", "127.0.0.1"),
            ("PORT", &port),
            ("HOSTNAME", name),
            ("LABELS_PATH", &directory),
            ("LABELS", ""),
            ("TOKEN", ""),
            ("TTL", ""),
            ("REGISTER", ""),
            ("DISABLE_API", ""),
            ("NODE_EXPORTER_PORT", ""),
            ("RUNTIME_LABELS_FILENAME", ""),
            ("CALLBACK", ""),
            ("CALLBACK_COOLDOWN", ""),
            ("NARTHEX_LOBBY_NATS", ""),
        ];
        let flags = [
            "--lobby".to_owned(),
            format!("--scraper={}", self.scraper.peer()),
            format!("--target={agent}=http://127.0.0.1:9/"),
        ];
        let flags = flags.each_ref().map(String::as_str);
        let process = self.fleet.agent_with(agent, &self.fleet.secret_file(), &[&own, variables].concat(), &flags);
        Host { at, name: name.to_owned(), labels, process: Some(process) }
    }
}

impl Host {
    /// Whatever answers at this address.
    pub(crate) fn at(at: SocketAddr, name: &str) -> Self {
        Self { at, name: name.to_owned(), labels: PathBuf::new(), process: None }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut answer = None;
        eventually_true("the API answers", SOON, || {
            answer = http::request_with(method, self.at, path, &[], body.as_bytes()).ok();
            answer.is_some()
        });
        answer.expect("answered")
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json; charset=UTF-8"), "{path}");
        assert!(answer.text().ends_with('\n'), "{path}");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// The labels of a host as this one sees them.
    pub(crate) fn sees(&self, host: &str) -> Option<Vec<String>> {
        let answer = self.ask("GET", "/v1/discoveries", "");
        let all: Value = serde_json::from_slice(&answer.body).ok()?;
        let found = all.as_array()?.iter().find(|one| one["hostname"] == host)?;
        serde_json::from_value(found["labels"].clone()).ok()
    }

    #[track_caller]
    pub(crate) fn wait_sees(&self, host: &str, labels: &[&str]) {
        eventually_true(&format!("{} sees {host} with {labels:?}", self.name), SOON, || {
            self.sees(host).is_some_and(|seen| seen == labels)
        });
    }

    #[track_caller]
    pub(crate) fn wait_misses(&self, host: &str) {
        eventually_true(&format!("{} misses {host}", self.name), SOON, || self.sees(host).is_none());
    }
}

/// The server that the suite is pointed at, or one of ours.
fn server(variables: &[(&str, &str)]) -> (Host, Option<Group>) {
    if let Ok(at) = env::var("NARTHEX_LOBBYD") {
        let at = at.parse().expect("HOST:PORT");
        let mut host = Host::at(at, "");
        host.name = host.get("/v1/discovery")["hostname"].as_str().expect("a name").to_owned();
        return (host, None);
    }
    let group = Group::new(&[]);
    let host = group.host("own", variables);
    eventually_true("there is a list", SOON, || host.ask("GET", "/v1/discoveries", "").status == 200);
    (host, Some(group))
}

/// A word that no other test has.
fn word() -> String {
    format!("w{}", SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos())
}

#[test]
fn labels_of_a_host_are_found_by_name_and_by_prefix_and_are_deleted() {
    let (host, _group) = server(&[]);
    let w = word();
    let name = host.name.as_str();
    let label = |end: &str| format!("{w}:{end}");
    let (a, b, c) = (label("a"), label("b:1"), label("c,d"));
    let answer = host.ask("POST", "/v1/labels", &format!("{a}\n{b}\n{c}\n"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "OK"));
    assert_eq!(host.ask("POST", "/v1/labels", &a).text(), "OK", "once more");

    let found = |path: &str| -> Value {
        let found = host.get(path);
        let found: Vec<Value> = found.as_array().expect("a list").clone();
        json!(found.into_iter().map(|one| one["labels"].clone()).collect::<Vec<_>>())
    };
    eventually_true("the labels are listed", SOON, || found(&format!("/v1/discoveries?prefixes={w}")) != json!([]));
    assert_eq!(found(&format!("/v1/discoveries?prefixes={w}:c,{w}:a")), json!([[a, c]]));
    assert_eq!(found(&format!("/v1/discoveries?labels={a},{b},other")), json!([[a, b]]), "only those that match");
    assert_eq!(found(&format!("/?labels={b}&prefixes={w}")), json!([[b]]), "labels win");
    assert_eq!(found(&format!("/v1/discoveries?labels={w}")), json!([]));
    assert_eq!(host.get(&format!("/v1/resolve?label={w}%3Ac%2Cd")), json!([name]), "with its comma");
    assert_eq!(host.get("/v1/resolve?label=nobody"), json!([]));
    assert_eq!(host.get("/v1/resolve"), json!([]));
    let own = host.get("/v1/discovery");
    assert_eq!((&own["hostname"], &own["last_check"]), (&json!(name), &json!(0)));
    assert!(own["labels"].as_array().expect("a list").contains(&json!(a)));
    let all = host.get("/");
    let listed = all.as_array().expect("a list").iter().find(|one| one["hostname"] == name).expect("listed");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    assert!(listed["last_check"].as_u64().is_some_and(|at| at <= now + 1 && at + 60 > now), "{listed}");

    assert_eq!(host.ask("DELETE", "/v1/labels", &format!("{a}\n{b}\n{c}\nother")).text(), "OK");
    eventually_true("they are gone", SOON, || found(&format!("/v1/discoveries?prefixes={w}")) == json!([]));
}

#[test]
fn labels_name_targets_for_prometheus() {
    let (host, group) = server(&[]);
    let w = word();
    let label = |rest: &str| format!("prometheus:{w}:{rest}\n");
    let labels = [label("host:10.0.0.1"), label("host:10.0.0.2"), label("port:9187"), label("env:a:b")].concat();
    assert_eq!(host.ask("POST", "/v1/labels", &labels).text(), "OK");
    let path = format!("/v1/prometheus/{w}");
    eventually_true("there are targets", SOON, || host.get(&path) != json!([]));
    let expected = json!([{"Targets": ["10.0.0.1:9187", "10.0.0.2:9187"], "Labels": {"env": "a:b"}}]);
    assert_eq!(host.get(&path), expected);
    assert_eq!(host.get("/v1/prometheus/nobody"), json!([]));
    assert_eq!(host.ask("DELETE", "/v1/labels", &labels).text(), "OK");
    eventually_true("there are none", SOON, || host.get(&path) == json!([]));
    if group.is_some() {
        let least = format!("prometheus:{w}");
        assert_eq!(host.ask("POST", "/v1/labels", &least).text(), "OK");
        let own = json!([{"Targets": [format!("{}:9100", host.name)], "Labels": {}}]);
        eventually_true("the host itself is a target", SOON, || host.get(&path) == own);
    }
}

#[test]
fn what_is_not_there_is_404_or_405() {
    let (host, _group) = server(&[]);
    for (method, path, status, message) in [
        ("GET", "/v1/prometheus/", 404, "Not Found"),
        ("GET", "/v2", 404, "Not Found"),
        ("GET", "/v1/labels", 405, "Method Not Allowed"),
        ("POST", "/v1/discoveries", 405, "Method Not Allowed"),
    ] {
        let answer = host.ask(method, path, "");
        let said: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((answer.status, said), (status, json!({ "message": message })), "{method} {path}");
    }
}

#[test]
fn every_path_needs_the_token() {
    let group = Group::new(&[]);
    let host = group.host("own", &[("TOKEN", "sec")]);
    eventually_true("the API answers", SOON, || http::get(host.at, "/", &[]).is_ok());
    for (shown, path, status) in [
        (None, "/", 403),
        (None, "/v2", 403),
        (Some("Bearer sec"), "/", 403),
        (Some("Token se"), "/", 403),
        (None, "/?token=sec", 403),
        (Some("Token sec"), "/v1/discovery", 200),
        (Some("sec"), "/v1/discovery", 200),
        (Some("sec"), "/v2", 404),
    ] {
        let headers: Vec<_> = shown.iter().map(|shown| ("Authorization", *shown)).collect();
        let answer = http::get(host.at, path, &headers).expect("answers");
        assert_eq!(answer.status, status, "{shown:?} {path}");
        if status == 403 {
            assert_eq!(answer.text(), "{\n  \"message\": \"access denied\"\n}\n");
        }
    }
    let page = [("Authorization", "sec"), ("Origin", "http://example.org")];
    let answer = http::request_with("POST", host.at, "/v1/labels", &page, b"x").expect("answers");
    assert_eq!(answer.status, 403, "a page of another site");
    let rebound = [("Authorization", "sec"), ("Host", "example.org"), ("User-Agent", "Mozilla/5.0")];
    assert_eq!(http::get(host.at, "/", &rebound).expect("answers").status, 403, "a name that leads here");
}

#[test]
fn any_host_answers_for_the_whole_group_until_one_says_goodbye_or_is_heard_of_no_more() {
    let at = loopback(free_port());
    let group = Group::new(&["--lobby-api", &at.to_string()]);
    let first = group.host("first", &[("LABELS", "b:2,a:1")]);
    let mut second = group.host("second", &[("LABELS", "a:1"), ("TTL", "6")]);
    let mut third = group.host("third", &[]);
    let of_scraper = Host::at(at, "the scraper");
    for host in [&first, &second, &third, &of_scraper] {
        host.wait_sees("first", &["a:1", "b:2"]);
        host.wait_sees("second", &["a:1"]);
        host.wait_sees("third", &[]);
        assert_eq!(host.get("/v1/resolve?label=a:1"), json!(["first", "second"]));
    }
    fs::create_dir_all(&third.labels).expect("made");
    fs::create_dir(third.labels.join("no-file")).expect("made");
    fs::write(third.labels.join("file"), "f:1\n\n f:2 \n").expect("written");
    first.wait_sees("third", &["f:1", "f:2"]);
    assert_eq!(of_scraper.ask("POST", "/v1/labels", "x").status, 400, "a scraper is no host");

    let process = third.process.as_mut().expect("runs");
    assert_eq!(process.terminate(SOON).code(), Some(0));
    first.wait_misses("third");
    second.process.as_mut().expect("runs").kill();
    assert!(first.sees("second").is_some(), "it may be back in a moment");
    first.wait_misses("second");
    assert!(first.sees("first").is_some());
}

#[test]
fn labels_of_run_time_survive_kill_9_and_a_host_that_only_listens_is_not_listed() {
    let group = Group::new(&[]);
    let mut host = group.host("host", &[]);
    let listener = group.host("listener", &[("REGISTER", "false")]);
    assert_eq!(host.ask("POST", "/v1/labels", "kept\n").text(), "OK");
    let long = (0..60).map(|n| format!("{n:01000}")).collect::<Vec<_>>().join("\n");
    assert_eq!(host.ask("POST", "/v1/labels", &long).status, 400, "the host could be listed no more");
    host.process.as_mut().expect("runs").kill();
    assert_eq!(fs::read_to_string(host.labels.join("_runtime")).expect("there"), "kept");
    let host = group.start("host", "host", host.at, &[]);
    listener.wait_sees("host", &["kept"]);
    assert_eq!(listener.ask("POST", "/v1/labels", "x\n").text(), "OK", "the original hangs");
    assert!(listener.sees("listener").is_none());
    drop(host);
}

/// Before: a hi that was under way came after the goodbye, and the host stayed listed; a peer could have any number of hosts.
#[test]
fn a_host_that_ends_after_a_change_is_gone_and_one_with_a_new_name_has_the_old_no_more() {
    let group = Group::new(&[]);
    let watcher = group.host("watcher", &[]);
    let mut host = group.host("host", &[("TTL", "3600")]);
    watcher.wait_sees("host", &[]);
    assert_eq!(host.ask("POST", "/v1/labels", "x\n").text(), "OK");
    assert_eq!(host.process.as_mut().expect("runs").terminate(SOON).code(), Some(0));
    watcher.wait_misses("host");
    let mut host = group.start("host", "old", host.at, &[("TTL", "3600")]);
    watcher.wait_sees("old", &["x"]);
    host.process.as_mut().expect("runs").kill();
    let _host = group.start("host", "new", host.at, &[]);
    watcher.wait_sees("new", &["x"]);
    watcher.wait_misses("old");
}

#[test]
fn a_list_is_never_empty_for_want_of_a_scraper() {
    let mut group = Group::new(&[]);
    let host = group.host("host", &[("LABELS", "a:1"), ("TTL", "6")]);
    host.wait_sees("host", &["a:1"]);
    let listed = |within: Duration| {
        let since = Instant::now();
        while since.elapsed() < within {
            assert_eq!(host.sees("host"), Some(vec!["a:1".to_owned()]), "the last list counts");
            thread::sleep(Duration::from_millis(100));
        }
    };
    group.scraper.process.freeze();
    listed(Duration::from_secs(3));
    group.scraper.process.thaw();
    group.scraper.process.kill();
    // Longer than the host is listed for.
    listed(Duration::from_secs(9));
    group.scraper.restart();
    listed(Duration::from_secs(25));
    let mut away = Group::new(&[]);
    away.scraper.process.kill();
    let lonely = away.host("lonely", &[]);
    assert_eq!(lonely.ask("GET", "/v1/prometheus/node", "").status, 503, "Prometheus keeps its targets");
    assert_eq!(lonely.get("/v1/discovery")["hostname"], "lonely");
}

#[test]
fn the_name_of_a_running_host_is_not_given_away() {
    let group = Group::new(&[]);
    let mut first = group.start("first", "name", loopback(free_port()), &[("LABELS", "of:first")]);
    first.wait_sees("name", &["of:first"]);
    let second = group.start("second", "name", loopback(free_port()), &[("LABELS", "of:second")]);
    second
        .process
        .as_ref()
        .expect("runs")
        .wait_log(&["cannot be listed in the lobby", "another running host has this name"]);
    assert_eq!(second.sees("name"), Some(vec!["of:first".to_owned()]));
    first.process.as_mut().expect("runs").terminate(SOON);
    second.wait_sees("name", &["of:second"]);
}

/// The original runs its callback neither for a host that died, nor ever again after a list longer than a pipe holds.
#[test]
fn the_callback_gets_each_change_a_hosts_death_included() {
    let group = Group::new(&[]);
    let list = group.fleet.path().join("list.json");
    let callback = format!("sh -c 'cat > {0}.new && mv {0}.new {0}'", text(&list));
    let many = (0..600).map(|n| format!("{n}:{}", "x".repeat(60))).collect::<Vec<_>>().join(",");
    let host = group.host("host", &[("CALLBACK", &callback), ("CALLBACK_COOLDOWN", "0"), ("TTL", "6")]);
    let mut other = group.host("other", &[("LABELS", "a:1"), ("TTL", "6")]);
    let hosts = || -> Vec<String> {
        let all: Value = serde_json::from_slice(&fs::read(&list).unwrap_or_default()).unwrap_or_default();
        let all = all.as_array().cloned().unwrap_or_default();
        all.iter().map(|host| host["hostname"].as_str().unwrap_or_default().to_owned()).collect()
    };
    eventually_true("the callback has both", SOON, || hosts() == ["host", "other"]);
    other.process.as_mut().expect("runs").kill();
    eventually_true("the callback has one", SOON, || hosts() == ["host"]);
    let _large = ["l-1", "l-2"].map(|name| group.host(name, &[("LABELS", &many)]));
    eventually_true("the callback has a long list", SOON, || hosts() == ["host", "l-1", "l-2"]);
    assert!(fs::metadata(&list).expect("there").len() > 60_000);
    drop(host);
}

#[test]
fn a_real_prometheus_reads_the_targets() {
    let group = Group::new(&[]);
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let port = exporter.address.port();
    let labels = format!("prometheus:web:host:127.0.0.1,prometheus:web:port:{port},prometheus:web:env:prod");
    let mut host = group.host("host", &[("LABELS", &labels)]);
    let other = group.host("other", &[]);
    host.wait_sees(
        "host",
        &labels.split(',').collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>(),
    );
    let config = format!(
        "  - job_name: lobby\n    http_sd_configs:\n      - {{url: 'http://{}/v1/prometheus/web', refresh_interval: 1s}}\n",
        other.at
    );
    let Some(prometheus) = Monitor::prometheus_on(group.fleet.path(), &config, &[]) else { return };
    let target = prometheus.wait_health(&exporter.address.to_string(), "up");
    assert_eq!(target.labels["env"], "prod");
    host.process.as_mut().expect("runs").terminate(SOON);
    prometheus.wait_gone(&exporter.address.to_string());
}
