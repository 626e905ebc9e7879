//! The shared store: what is registered at one scraper, the others list; NATS may go and come back.

use std::{net::Ipv4Addr, time::Duration};

use crate::support::{
    SOON,
    cable::Cable,
    eventually, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper},
    http,
    nats::Nats,
    process::Process,
};

/// Scrapers over one NATS, and an exporter.
struct Group {
    scrapers: Vec<Scraper>,
    exporter: Exporter,
    nats: Nats,
    fleet: Fleet,
}

impl Group {
    fn start(size: usize, flags: &[&str]) -> Option<Self> {
        let fleet = Fleet::new();
        let nats = Nats::start(fleet.path())?;
        let stores = vec![nats.url(); size];
        Some(Self::over(nats, fleet, &stores, flags))
    }

    /// A scraper for each of these ways to NATS.
    fn over(nats: Nats, fleet: Fleet, stores: &[String], flags: &[&str]) -> Self {
        let scrapers = stores.iter().enumerate().map(|(at, store)| {
            let flags = [&["--store", store], flags].concat();
            fleet.scraper_named(&format!("scraper-{at}"), &flags)
        });
        let scrapers = scrapers.collect();
        let exporter = Exporter::start([("/metrics", Reply::text("up_and_well 1\n"))]);
        Self { scrapers, exporter, nats, fleet }
    }

    /// An agent of one of them, which is registered when this returns.
    fn agent(&self, at: usize, alias: &str) -> Process {
        let targets = [(alias, self.exporter.url("/metrics"))];
        let agent = self.fleet.agent_of(&self.scrapers[at], alias, targets, &[]);
        self.scrapers[at].wait_listed(alias);
        agent
    }

    /// A name for one more scraper.
    fn next_name(&self) -> String {
        let scrapers = std::fs::read_dir(self.fleet.path()).expect("reads").count();
        format!("newcomer-{scrapers}")
    }

    fn all_list(&self, alias: &str) {
        for scraper in &self.scrapers {
            scraper.wait_listed(alias);
        }
    }

    fn all_are_ready(&self) {
        for scraper in &self.scrapers {
            eventually_true("the scraper is ready again", 2 * SOON, || scraper.get("/-/ready").status == 200);
        }
    }
}

#[test]
fn what_is_registered_at_one_scraper_is_listed_scraped_and_released_at_all() {
    let Some(group) = Group::start(3, &[]) else { return };
    let mut agent = group.agent(1, "web-1");
    group.all_list("web-1");
    // Two of them have no link to the agent.
    for scraper in &group.scrapers {
        assert_eq!(scraper.wait_scraped("web-1"), "up_and_well 1\n");
    }
    agent.ask_to_end();
    agent.wait(SOON);
    for scraper in &group.scrapers {
        scraper.wait_unlisted("web-1");
    }
}

/// Before: its address was 0.0.0.0 for the others, and nobody came.
#[test]
fn a_scraper_that_listens_on_all_addresses_is_linked_by_clients_of_another() {
    let fleet = Fleet::new();
    let Some(nats) = Nats::start(fleet.path()) else { return };
    let everywhere = fleet.scraper_on(Ipv4Addr::UNSPECIFIED.into(), &["--store", &nats.url()]);
    let scrapers = vec![fleet.scraper_named("other", &["--store", &nats.url()]), everywhere];
    let group = Group { scrapers, exporter: Exporter::start([("/metrics", Reply::text("up 1\n"))]), nats, fleet };
    let _agent = group.agent(0, "web-1");
    let path = || group.scrapers[1].get("/api/v1/aliases/web-1").text();
    eventually_true("the agent links the other", SOON, || path().contains(r#""path":"direct""#));
}

#[test]
fn of_two_keys_that_claim_an_alias_at_two_scrapers_one_has_it_at_both() {
    let Some(group) = Group::start(2, &["--alias-policy=pinned"]) else { return };
    let targets = || [("one", group.exporter.url("/metrics"))];
    let agents = [0, 1].map(|at| group.fleet.agent_of(&group.scrapers[at], &format!("agent-{at}"), targets(), &[]));
    let holder =
        |at: usize| Some(group.scrapers[at].listed()?.get("one")?.label("__meta_narthex_public_key").to_owned());
    eventually_true("both list one holder", SOON, || holder(0).is_some() && holder(0) == holder(1));
    eventually_true("the other is refused", SOON, || {
        agents.iter().filter(|agent| agent.log_line(&["taken"]).is_some()).count() == 1
    });
    assert_eq!(holder(0), holder(1));
}

/// Nothing that was acknowledged is lost, and no list is ever shorter, while NATS is away, back, and back without its disk.
#[test]
fn the_list_outlives_nats_and_the_loss_of_its_disk() {
    let Some(mut group) = Group::start(2, &[]) else { return };
    let _agents = [group.agent(0, "a"), group.agent(1, "b")];
    let both = |group: &Group| {
        group.scrapers.iter().all(|scraper| {
            let listed = scraper.listed().expect("the list is answered all the time");
            listed.contains_key("a") && listed.contains_key("b")
        })
    };
    group.all_list("a");
    group.all_list("b");

    group.nats.process.kill();
    for scraper in &group.scrapers {
        eventually_true("the scraper says that its store fails", SOON, || scraper.get("/-/ready").status == 503);
    }
    assert!(both(&group), "listed without NATS");
    group.nats.restart();
    group.all_are_ready();
    assert!(both(&group), "listed with NATS back");

    group.nats.restart_empty();
    let _late = group.fleet.agent_of(&group.scrapers[0], "c", [("c", group.exporter.url("/metrics"))], &[]);
    group.all_list("c");
    assert!(both(&group), "listed with an empty NATS");
    // A scraper that was never there before has all of it from NATS.
    let store = format!("--store={}", group.nats.url());
    let newcomer = group.fleet.scraper_named("newcomer", &[&store]);
    for alias in ["a", "b", "c"] {
        newcomer.wait_listed(alias);
    }
}

#[test]
fn a_scraper_that_is_cut_off_from_the_others_goes_on_and_learns_what_it_missed() {
    let fleet = Fleet::new();
    let Some(nats) = Nats::start(fleet.path()) else { return };
    let cable = Cable::to(nats.at);
    let stores = [format!("nats://{}", cable.address), nats.url()];
    let group = Group::over(nats, fleet, &stores, &[]);
    let [cut_off, other] = &group.scrapers[..] else { unreachable!() };
    let mut released = group.agent(1, "released");
    let _kept = group.agent(0, "kept");
    released.wait_log(&["learned a scraper of the group"]);
    group.all_list("released");
    group.all_list("kept");

    cable.cut();
    eventually_true("it says that its store fails", SOON, || cut_off.get("/-/ready").status == 503);
    assert_eq!(cut_off.wait_scraped("kept"), "up_and_well 1\n");
    let _there = group.agent(1, "there");
    let only_here = [("here", group.exporter.url("/metrics"))];
    let here = group.fleet.agent_of(cut_off, "here", only_here, &["--only-given-scrapers"]);
    here.wait_log(&["registration failed", "the scraper cannot register anybody now"]);
    released.ask_to_end();
    released.wait(SOON);
    other.wait_unlisted("released");
    let names = |scraper: &Scraper| scraper.listed().map(|listed| listed.into_keys().collect::<Vec<_>>());
    assert_eq!(names(other), Some(["kept", "there"].map(String::from).to_vec()));
    let listed = names(cut_off).expect("it lists what it knows");
    assert!(listed.contains(&"kept".to_owned()) && !listed.contains(&"here".to_owned()), "{listed:?}");

    cable.mend();
    group.all_are_ready();
    for scraper in &group.scrapers {
        eventually_true("both know all of it", 2 * SOON, || {
            names(scraper) == Some(["here", "kept", "there"].map(String::from).to_vec())
        });
    }
}

#[test]
fn a_scraper_starts_without_nats_on_its_copy_until_that_is_too_old() {
    let Some(mut group) = Group::start(1, &["--store-stale=20s"]) else { return };
    let _agent = group.agent(0, "a");
    // The copy is written every few seconds.
    eventually_true("the copy has a note", SOON, || group.fleet.path().join("scraper-0-data/aliases.shared").exists());
    std::thread::sleep(Duration::from_secs(8));
    group.nats.process.kill();
    group.scrapers[0].process.kill();
    group.scrapers[0].restart_unready();
    let scraper = &group.scrapers[0];
    scraper.wait_listed("a");
    assert_eq!(scraper.get("/-/ready").status, 503);
    eventually_true("the copy is too old, and no empty list is answered", 2 * SOON, || {
        let answer = http::get(scraper.http, "/sd", &[]).expect("the scraper answers");
        assert!(answer.status == 503 || answer.text().contains("\"a\""), "{}", answer.text());
        answer.status == 503
    });
    group.nats.restart();
    group.all_are_ready();
    group.all_list("a");
}

/// Before: no revision of an entry in the copy was known, and the first change of one stopped the store for good.
#[test]
fn a_scraper_that_was_restarted_writes_as_before() {
    let Some(mut group) = Group::start(1, &[]) else { return };
    let mut agent = group.agent(0, "a");
    let scraper = &mut group.scrapers[0];
    assert!(scraper.process.terminate(SOON).success());
    scraper.restart();
    scraper.wait_scraped("a");
    agent.ask_to_end();
    agent.wait(SOON);
    scraper.wait_unlisted("a");
    let _late = group.agent(0, "late");
    assert_eq!(group.scrapers[0].get("/-/ready").status, 200);
    let store = format!("--store={}", group.nats.url());
    let newcomer = group.fleet.scraper_named("newcomer", &[&store]);
    newcomer.wait_listed("late");
    assert_eq!(newcomer.listed().map(|listed| listed.len()), Some(1));
}

/// Before: it was listed by those that had it, and by nobody else.
#[test]
fn what_others_do_to_the_bucket_is_seen_and_made_up_for() {
    let Some(group) = Group::start(2, &["--lease=6s"]) else { return };
    let _agent = group.agent(0, "web");
    group.all_list("web");
    let store = format!("--store={}", group.nats.url());
    let holder = group.scrapers[0].wait_listed("web").label("__meta_narthex_public_key").to_owned();
    for (headers, payload) in [("KV-Operation: DEL\r\n", &b""[..]), ("", b"no value of ours")] {
        group.nats.publish("$KV.narthex.alias.web", headers, payload);
        eventually_true("a scraper that has no copy lists it again", SOON, || {
            let newcomer = group.fleet.scraper_named(&group.next_name(), &[&store, "--lease=6s"]);
            newcomer.listed().is_some_and(|listed| listed.contains_key("web"))
        });
        group.all_list("web");
    }
    group.nats.publish("$JS.API.STREAM.PURGE.KV_narthex", "", b"");
    eventually_true("what was purged is written again", 2 * SOON, || {
        let newcomer = group.fleet.scraper_named(&group.next_name(), &[&store, "--lease=6s"]);
        let listed = newcomer.listed().unwrap_or_default();
        listed.get("web").is_some_and(|web| web.label("__meta_narthex_public_key") == holder)
    });
    group.all_list("web");
}

#[test]
fn a_scraper_with_the_key_of_another_is_told_of() {
    let Some(group) = Group::start(1, &[]) else { return };
    let [scraper] = &group.scrapers[..] else { unreachable!() };
    let subject = format!("$KV.narthex.member.{}", scraper.key);
    // Again and again, as the twin would: the scraper itself may not have been noted yet.
    let line = eventually("the scraper says so", SOON, || {
        group.nats.publish(&subject, "", br#"{"addresses":["192.0.2.1:1\n"],"noted_at_unix_s":1,"run":1}"#);
        scraper.process.log_line(&["another scraper of this store has our key"])
    });
    assert!(line.contains("192.0.2.1:1"), "{line}");
}
