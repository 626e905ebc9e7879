//! Uplinks that are away for a while, and hosts that change from one line to another: how long until a target is back.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    rig::{self, Agent, Relay, Seconds, Seer},
    support::{
        eventually,
        fleet::scrape_path,
        http,
        lab::{Kind, Lab, Line, Site},
    },
};

const ALIAS: &str = "agent";
/// Scrapes as Prometheus makes them.
const INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: &str = "1.9";
/// Long enough that both sides have given the link up, and their pauses have grown.
const AWAY: Duration = Duration::from_secs(40);
/// Scrapes in a row.
const FOR_GOOD: usize = 3;
/// The path before each outage.
const WITHIN: Duration = Duration::from_secs(90);
/// Most that any return may take.
const BACK_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn a_relayed_target_is_back_soon_after_an_outage() {
    outages(Kind::Symmetric, Kind::Symmetric, "relayed");
}

#[test]
fn a_punched_target_is_back_soon_after_an_outage() {
    outages(Kind::Cone, Kind::Cone, "direct");
}

#[test]
fn a_target_of_an_open_scraper_is_back_soon_after_an_outage() {
    outages(Kind::Cone, Kind::Open, "direct");
}

struct Scene {
    _agent: Agent,
    client: Site,
    scraper: Seer,
    relays: Vec<Relay>,
    lab: Lab,
    path: &'static str,
}

#[track_caller]
#[expect(clippy::print_stdout, reason = "the table is the result")]
fn outages(client: Kind, scraper: Kind, path: &'static str) {
    let Some((mut lab, _directory, relays)) = rig::with_relays(2) else { return };
    let mut scraper = Seer::start(&mut lab, scraper, &relays);
    let mut client = lab.site(client);
    for site in [&mut client, &mut scraper.site] {
        if site.kind() != Kind::Open {
            lab.second_line(site);
        }
    }
    let agent = Agent::start(ALIAS, &client, &relays, &scraper);
    let scene = Scene { _agent: agent, client, scraper, relays, lab, path };
    println!("| client to scraper | what happened | back after |");
    println!("|---|---|---|");
    for (who, site) in [("scraper", &scene.scraper.site), ("client", &scene.client)] {
        scene.outage(&format!("the {who}'s uplink silent"), |away| {
            scene.lab.cut(site);
            away();
            scene.lab.splice();
        });
        scene.outage(&format!("the {who}'s cable pulled"), |away| {
            scene.lab.unplug(site);
            away();
            scene.lab.plug(site);
        });
        if site.kind() != Kind::Open {
            scene.outage(&format!("the {who}'s default route switched"), |_| site.route_over(Line::Second));
            scene.outage(&format!("the {who}'s default route switched, the old line down"), |_| {
                site.route_over(Line::First);
                site.take_down(Line::Second);
            });
            site.bring_up(Line::Second);
        }
    }
}

impl Scene {
    /// Has something happen, during which scrapes go on, and prints how long after its end the target is back.
    #[track_caller]
    #[expect(clippy::print_stdout, reason = "the table is the result")]
    fn outage(&self, what: &str, happen: impl FnOnce(&dyn Fn())) {
        self.scraper.wait_relays(self.relays.len());
        self.scraper.wait_path(ALIAS, self.path, WITHIN);
        self.scrape_for(INTERVAL * 5);
        happen(&|| self.scrape_for(AWAY));
        let since = Instant::now();
        let mut good = Vec::new();
        let back = eventually(&format!("{what}: {ALIAS} is back for good"), BACK_WITHIN, || {
            let at = since.elapsed();
            match self.scrape() {
                true => good.push(at),
                false => good.clear(),
            }
            thread::sleep(Duration::from_millis(250));
            (good.len() == FOR_GOOD).then(|| good[0])
        });
        let (client, scraper) = (self.client.kind(), self.scraper.site.kind());
        println!("| {client:?} to {scraper:?} | {what} | {} |", Seconds(Some(back)));
    }

    fn scrape_for(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let next = Instant::now() + INTERVAL;
            self.scrape();
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn scrape(&self) -> bool {
        let timeout = [("X-Prometheus-Scrape-Timeout-Seconds", TIMEOUT)];
        let http = self.scraper.scraper.http;
        let answer = self.scraper.site.enter(|| http::get(http, &scrape_path(ALIAS), &timeout));
        answer.is_ok_and(|answer| answer.status == 200 && answer.complete)
    }
}
