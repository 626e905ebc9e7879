//! lobbyd's hosts, which talk over a NATS, and ours list each other.

use std::{
    fs,
    sync::mpsc::Receiver,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    lobby::{Group, Host},
    support::{
        SOON, eventually_true,
        fleet::Fleet,
        http,
        nats::Nats,
        ports::{free_port, loopback},
    },
};

const SUBJECT: &str = "lobby.discovery";

/// The NATS of lobbyd's hosts, and what is said on it.
struct Bus {
    nats: Nats,
    heard: Receiver<Vec<u8>>,
}

impl Bus {
    fn start(fleet: &Fleet) -> Option<Self> {
        let nats = Nats::start(fleet.path())?;
        let heard = nats.subscribe(SUBJECT);
        Some(Self { nats, heard })
    }

    /// As lobbyd does.
    fn say(&self, message: &str, name: &str, labels: &[&str]) {
        let discovery = json!({"hostname": name, "labels": labels, "last_check": 0});
        self.say_text(&json!({"discovery": discovery, "message": message}).to_string());
    }

    fn say_text(&self, text: &str) {
        self.nats.publish(SUBJECT, "", text.as_bytes());
    }

    /// Waits for a packet of a host.
    #[track_caller]
    fn wait(&self, message: &str, name: &str, labels: &[&str]) {
        let wanted = json!({
            "discovery": {"hostname": name, "labels": labels, "last_check": 0},
            "message": message,
        });
        let since = Instant::now();
        while since.elapsed() < SOON {
            let Ok(packet) = self.heard.recv_timeout(SOON) else { break };
            if serde_json::from_slice::<Value>(&packet).is_ok_and(|packet| packet == wanted) {
                return;
            }
        }
        panic!("nobody says {wanted}");
    }
}

impl Group {
    #[track_caller]
    fn wait_failing(&self, value: &str) {
        let line = format!("narthex_lobby_nats_failing {value}");
        eventually_true(&format!("the metric is {value}"), SOON, || {
            let metrics = http::get(self.scraper.http, "/metrics", &[]).expect("answers").text();
            metrics.lines().any(|metric| metric == line)
        });
    }
}

fn scraper_of(fleet: Fleet, flags: &[&str]) -> (Group, Host) {
    let at = loopback(free_port());
    let api = at.to_string();
    let scraper = fleet.scraper(&[&["--lobby-api", &api], flags].concat());
    (Group { fleet, scraper }, Host::at(at, "the scraper"))
}

#[test]
fn hosts_of_both_kinds_list_each_other() {
    let fleet = Fleet::new();
    let Some(bus) = Bus::start(&fleet) else { return };
    let (group, of_scraper) = scraper_of(fleet, &["--lobby-nats", &bus.nats.url()]);
    let mut ours = group.host("ours", &[("LABELS", "b:2,a:1")]);
    bus.wait("hi", "ours", &["a:1", "b:2"]);
    bus.say("hi", "theirs", &["x:1", "prometheus:node:host:10.0.0.9"]);
    // The list may be new to them, too.
    for host in [&of_scraper, &ours] {
        host.wait_sees("theirs", &["prometheus:node:host:10.0.0.9", "x:1"]);
        host.wait_sees("ours", &["a:1", "b:2"]);
    }
    assert_eq!(ours.get("/v1/prometheus/node"), json!([{"Targets": ["10.0.0.9:9100"], "Labels": {}}]));
    assert_eq!(ours.ask("POST", "/v1/labels", "c:3").text(), "OK");
    bus.wait("hi", "ours", &["a:1", "b:2", "c:3"]);

    // Whoever may publish says what he likes, but not of ours.
    thread::sleep(Duration::from_secs(16));
    bus.say("hi", "ours", &["stolen"]);
    group.scraper.process.wait_log(&["another host on the bus has the name of one of ours", "hostname=ours"]);
    while bus.heard.try_recv().is_ok() {}
    bus.say("goodbye", "ours", &[]);
    bus.wait("hi", "ours", &["a:1", "b:2", "c:3"]);
    assert_eq!(of_scraper.sees("ours"), Some(["a:1", "b:2", "c:3"].map(String::from).to_vec()));

    bus.say("goodbye", "theirs", &[]);
    ours.wait_misses("theirs");
    assert_eq!(ours.process.as_mut().expect("runs").terminate(SOON).code(), Some(0));
    bus.wait("goodbye", "ours", &["a:1", "b:2", "c:3"]);
}

#[test]
fn a_host_of_ours_is_on_the_bus_by_itself() {
    let fleet = Fleet::new();
    let Some(bus) = Bus::start(&fleet) else { return };
    let (group, of_scraper) = scraper_of(fleet, &[]);
    let mut ours = group.host("ours", &[("LABELS", "a:1"), ("NARTHEX_LOBBY_NATS", &bus.nats.url())]);
    let listener = [("REGISTER", "false"), ("NARTHEX_LOBBY_NATS", &bus.nats.url())];
    let listener = group.host("listener", &listener);
    bus.wait("hi", "ours", &["a:1"]);
    bus.say("hi", "theirs", &["x:1"]);
    for host in [&ours, &listener] {
        host.wait_sees("theirs", &["x:1"]);
        host.wait_sees("ours", &["a:1"]);
    }
    assert_eq!(of_scraper.sees("theirs"), None, "this scraper is not on the bus");
    assert_eq!(ours.process.as_mut().expect("runs").terminate(SOON).code(), Some(0));
    bus.wait("goodbye", "ours", &["a:1"]);
    listener.wait_misses("ours");
}

#[test]
fn what_is_no_packet_of_a_host_is_left_out() {
    let fleet = Fleet::new();
    let Some(bus) = Bus::start(&fleet) else { return };
    let (group, of_scraper) = scraper_of(fleet, &["--lobby-nats", &format!("{}/own.subject", bus.nats.url())]);
    let heard = bus.nats.subscribe("own.subject");
    let ours = group.host("ours", &[]);
    heard.recv_timeout(SOON).expect("says hi");
    bus.say("hi", "elsewhere", &[]);
    let deep = "[".repeat(100_000);
    for text in
        ["", "null", "{}", "\u{0}", &deep, "{\"discovery\":{\"hostname\":\"a\\nb level=error\"},\"message\":\"hi\"}"]
    {
        bus.nats.publish("own.subject", "", text.as_bytes());
    }
    let long = "x".repeat(200_000);
    for (name, labels) in [("", &["a"][..]), ("a b", &[]), (&long, &[]), ("long", &[&long])] {
        let discovery = json!({"hostname": name, "labels": labels, "last_check": -1});
        let text = json!({"discovery": discovery, "message": "hi"}).to_string();
        bus.nats.publish("own.subject", "", text.as_bytes());
    }
    // The hosts of lobbyd may have labels that cannot be listed, or none.
    let odd = json!({"discovery": {"hostname": "odd", "labels": ["", "a\nb", "c"]}, "message": "hi", "more": 1});
    bus.nats.publish("own.subject", "", odd.to_string().as_bytes());
    let none = json!({"discovery": {"hostname": "none", "labels": null}, "message": "hi"});
    bus.nats.publish("own.subject", "", none.to_string().as_bytes());
    of_scraper.wait_sees("odd", &["c"]);
    of_scraper.wait_sees("none", &[]);
    let names: Vec<Value> =
        of_scraper.get("/").as_array().expect("a list").iter().map(|host| host["hostname"].clone()).collect();
    assert_eq!(names, ["none", "odd", "ours"]);
    assert!(!group.scraper.process.log().lines().any(|line| line.starts_with("b level")), "escaped");
    drop(ours);
}

#[test]
fn while_nats_is_away_nobody_is_given_up_and_no_list_is_made_without_those_who_were_never_heard() {
    let fleet = Fleet::new();
    let Some(mut bus) = Bus::start(&fleet) else { return };
    let (mut group, of_scraper) = scraper_of(fleet, &["--lobby-nats", &bus.nats.url(), "--lobby-nats-ttl=20s"]);
    let _ours = group.host("ours", &[]);
    bus.wait("hi", "ours", &[]);
    bus.say("hi", "theirs", &[]);
    of_scraper.wait_sees("theirs", &[]);
    bus.nats.kill();
    group.wait_failing("1");
    // Longer than a host is listed without a hi.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(23) {
        assert!(of_scraper.sees("theirs").is_some());
        thread::sleep(Duration::from_millis(500));
    }
    group.scraper.process.kill();
    group.scraper.restart();
    eventually_true("there is no list without them", Duration::from_secs(40), || {
        let answer = of_scraper.ask("GET", "/", "");
        assert_eq!(answer.status, 503, "{}", answer.text());
        answer.text().contains("have not been heard yet")
    });
    bus.nats.restart();
    bus.heard = bus.nats.subscribe(SUBJECT);
    bus.wait("hi", "ours", &[]);
    bus.say("hi", "theirs", &[]);
    of_scraper.wait_sees("theirs", &[]);
    of_scraper.wait_sees("ours", &[]);
}

/// Before: who was not let hear the subject took the bus for an empty one.
#[test]
fn there_is_no_list_while_nats_does_not_let_us_hear_the_others() {
    let fleet = Fleet::new();
    let rights = fleet.path().join("rights");
    let may = |subjects: &str| {
        let user = format!("user: \"a:b\", password: \"p/w\", permissions: {{publish: \">\", subscribe: {subjects}}}");
        let other = "user: other, password: other";
        let text = format!("authorization: {{users: [{{{user}}}, {{{other}}}]}}\nno_auth_user: other\n");
        fs::write(&rights, text).expect("written");
    };
    may("[\"nothing\"]");
    let Some(nats) = Nats::start_with(fleet.path(), &["-c", &rights.to_string_lossy()]) else { return };
    let url = format!("nats://a%3Ab:p%2Fw@{}", nats.at);
    let (group, of_scraper) = scraper_of(fleet, &["--lobby-nats", &url, "--log-level=info,async_nats=trace"]);
    let ours = group.host("ours", &[]);
    let process = &group.scraper.process;
    process.wait_log(&["NATS refuses", "subscription"]);
    group.wait_failing("1");
    thread::sleep(Duration::from_secs(17));
    assert_eq!(of_scraper.ask("GET", "/", "").status, 503, "nobody was heard");

    may("[\">\"]");
    nats.process.hang_up();
    let bus = Bus { heard: nats.subscribe(SUBJECT), nats };
    let heard = |name: &str| {
        bus.say("hi", name, &[]);
        of_scraper.sees(name).is_some()
    };
    eventually_true("hosts are heard", 2 * SOON, || heard("theirs"));
    group.wait_failing("0");
    may("[\"nothing\"]");
    bus.nats.process.hang_up();
    group.wait_failing("1");
    thread::sleep(Duration::from_secs(21));
    assert!(of_scraper.sees("theirs").is_some(), "nobody could say hi");
    assert!(!process.log().contains("p/w") && !process.log().contains("p%2Fw"), "a password is in the log");
    drop(ours);
}
