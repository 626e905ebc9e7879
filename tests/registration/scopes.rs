//! Secrets and keys with scope, from the configuration and the file of peers; both are read again while the scraper runs.

use std::{fs, path::PathBuf, process::Output};

use narthex::{SharedSecret, identity};

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, narthex, text},
    http,
    process::Process,
};

/// A fleet with the secrets of two tenants beside its own.
struct Tenants {
    fleet: Fleet,
    exporter: Exporter,
}

impl Tenants {
    fn new() -> Self {
        let tenants = Self { fleet: Fleet::new(), exporter: Exporter::start([("/metrics", Reply::text("m 1\n"))]) };
        for tenant in ["a", "b"] {
            identity::create_secret(&tenants.secret(tenant), &SharedSecret::generate()).expect("written");
        }
        tenants
    }

    fn secret(&self, tenant: &str) -> PathBuf {
        self.fleet.path().join(format!("{tenant}.secret"))
    }

    fn config(&self) -> PathBuf {
        self.fleet.path().join("scraper.toml")
    }

    /// Writes the configuration with these tables.
    fn configure(&self, tables: &str) {
        fs::write(self.config(), tables).expect("written");
    }

    fn scraper(&self, more: &[&str]) -> Scraper {
        self.fleet.scraper(&[&["--config", &text(&self.config())], more].concat())
    }

    fn agent(&self, scraper: &Scraper, name: &str, tenant: &str, aliases: &[&str]) -> Process {
        let url = self.exporter.url("/metrics");
        let mut flags = vec![format!("--scraper={}", scraper.peer())];
        flags.extend(aliases.iter().map(|alias| format!("--target={alias}={url}")));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.fleet.agent_with(name, &self.secret(tenant), &[], &flags)
    }

    fn peer(&self, words: &[&str]) -> Output {
        let data_dir = text(&self.fleet.path().join("scraper-data"));
        narthex("peer").args(words).args(["--data-dir", &data_dir]).output().expect("runs")
    }
}

fn table(tenant: &str, more: &str) -> String {
    format!("[[secret]]\nname = \"{tenant}\"\nfile = \"{tenant}.secret\"\n{more}\n")
}

fn key_of(scraper: &Scraper, alias: &str) -> String {
    scraper.wait_listed(alias).label("__meta_narthex_public_key").to_owned()
}

fn reload(scraper: &Scraper) -> http::Answer {
    http::request("POST", scraper.http, "/-/reload", &[]).expect("answers")
}

#[test]
fn a_secret_of_the_configuration_bounds_what_is_registered_with_it() {
    let tenants = Tenants::new();
    tenants.configure(
        &(table("a", "aliases = [\"a-*\"]\nlabels = { tenant = \"a\" }\nservice = \"forced\"\nmax_aliases = 2")
            + &table("b", "not_before = \"2100-01-01T00:00:00Z\"")),
    );
    let scraper = tenants.scraper(&[]);
    let agent = tenants.agent(&scraper, "a", "a", &["a-1", "web-1", "a-2", "a-3"]);
    agent.wait_log(&["registration failed", "alias web-1 was refused: out of scope"]);
    agent.wait_log(&["registration failed", "alias a-3 was refused: full"]);
    let listed = scraper.wait_listed("a-1");
    let labels = ["tenant", "service", "__meta_narthex_secret"].map(|name| listed.label(name).to_owned());
    assert_eq!(labels, ["a", "forced", "a"]);
    scraper.process.wait_log(&["alias registered", "secret=a"]);
    let view = scraper.get("/api/v1/aliases/a-1").text();
    assert!(view.contains(r#""secret_name":"a""#), "{view}");
    let early = tenants.agent(&scraper, "b", "b", &["b-1"]);
    early.wait_log(&["registration failed", "not admitted"]);
    let own = tenants.fleet.agent_of(&scraper, "own", [("web-9", tenants.exporter.url("/metrics"))], &[]);
    assert_eq!(scraper.wait_listed("web-9").label("__meta_narthex_secret"), "fleet", "as its file is called");
    drop(own);
}

#[test]
fn what_a_reload_takes_away_ends_at_once_and_the_rest_goes_on() {
    let tenants = Tenants::new();
    tenants.configure(&(table("a", "") + &table("b", "")));
    let scraper = tenants.scraper(&["--web.enable-lifecycle"]);
    let gone = tenants.agent(&scraper, "a", "a", &["a-1"]);
    let _stays = tenants.agent(&scraper, "b", "b", &["b-1", "web-1"]);
    for alias in ["a-1", "b-1", "web-1"] {
        scraper.wait_scraped(alias);
    }

    tenants.configure("[[secret]]\nname = \"b\"\nfile = \"missing.secret\"\n");
    let refused = reload(&scraper);
    assert!(refused.status == 500 && refused.text().contains("missing.secret"), "{}", refused.text());
    scraper.wait_scraped("a-1");

    tenants.configure(&table("b", "aliases = [\"b-*\"]"));
    assert_eq!(reload(&scraper).status, 200);
    for alias in ["a-1", "web-1"] {
        assert_eq!(scraper.get(&format!("/scrape/{alias}/metrics")).status, 404, "{alias}");
    }
    scraper.wait_scraped("b-1");
    gone.wait_log(&["registration failed", "unknown secret"]);

    // A second secret under one name: the first one can go.
    tenants.configure(&(table("a", "") + &table("b", "")));
    scraper.process.hang_up();
    scraper.wait_scraped("a-1");
    scraper.wait_scraped("b-1");
}

#[test]
fn nobody_reloads_over_http_unless_it_is_switched_on() {
    let (_fleet, scraper) = Fleet::with_scraper();
    assert_eq!(reload(&scraper).status, 403);
}

#[test]
fn a_blocked_key_is_cut_off_and_one_that_is_allowed_shuts_out_others() {
    let tenants = Tenants::new();
    tenants.configure(&table("a", ""));
    let mut scraper = tenants.scraper(&[]);
    let bad = tenants.agent(&scraper, "bad", "a", &["bad-1"]);
    let _good = tenants.agent(&scraper, "good", "a", &["good-1", "other"]);
    scraper.wait_scraped("bad-1");
    scraper.wait_scraped("other");
    let [bad_key, good_key] = ["bad-1", "good-1"].map(|alias| key_of(&scraper, alias));

    let blocked = tenants.peer(&["block", &bad_key]);
    assert_eq!(String::from_utf8_lossy(&blocked.stdout), format!("blocked {bad_key}: released 1 aliases\n"));
    assert_eq!(scraper.get("/scrape/bad-1/metrics").status, 404);
    bad.wait_log(&["registration failed", "not admitted"]);
    scraper.wait_scraped("good-1");

    assert!(tenants.peer(&["allow", &good_key, "--alias", "good-*"]).status.success());
    assert_eq!(scraper.get("/scrape/other/metrics").status, 404);
    scraper.wait_scraped("good-1");
    let third = tenants.agent(&scraper, "third", "a", &["third-1"]);
    third.wait_log(&["registration failed", "not admitted"]);
    let list = String::from_utf8(tenants.peer(&["list"]).stdout).expect("text");
    assert!(list.contains(&bad_key) && list.contains("good-*") && list.contains("all others"), "{list}");

    scraper.process.kill();
    scraper.restart();
    scraper.wait_scraped("good-1");
    eventually_true("it stays shut out", SOON, || scraper.listed().is_some_and(|listed| listed.len() == 1));
    let file = tenants.fleet.path().join("scraper-data/peers");
    fs::write(&file, "allow me").expect("ours");
    assert_eq!(tenants.peer(&["block", &bad_key]).status.code(), Some(1), "a broken file is left to its owner");
    assert_eq!(fs::read_to_string(&file).expect("text"), "allow me");
}

/// Before: a client that took its aliases from one ticket to the other had as many as it liked.
#[test]
fn a_quota_holds_for_aliases_that_come_from_another_secret() {
    let tenants = Tenants::new();
    tenants.configure(&(table("a", "max_aliases = 1") + &table("b", "max_aliases = 1")));
    let scraper = tenants.scraper(&[]);
    for number in 0..3 {
        let (name, alias) = (format!("agent-{number}"), format!("web-{number}"));
        let mut agent = tenants.agent(&scraper, &name, "a", &[&alias]);
        agent.wait_log(&["registered"]);
        agent.kill();
        let mut moved = tenants.agent(&scraper, &name, "b", &[&alias]);
        if number == 0 {
            // Its link answers scrapes before its registration.
            let is_moved = || scraper.wait_listed(&alias).label("__meta_narthex_secret") == "b";
            eventually_true("it holds the alias by the other secret", SOON, is_moved);
        } else {
            moved.wait_log(&["registration failed", "full"]);
        }
        moved.kill();
    }
}
