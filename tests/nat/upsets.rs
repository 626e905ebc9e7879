//! A real Prometheus watches a target while the network, and the processes in it, come and go.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    rig::{self, Agent, Relay, Seconds, Seer},
    support::{
        eventually,
        lab::{Kind, Lab, Site},
        peers::Monitor,
    },
};

const ALIAS: &str = "agent";
const INTERVAL: Duration = Duration::from_secs(2);
/// Scrapes in a row.
const FOR_GOOD: usize = 4;
/// Most that any upset may take.
const WITHIN: Duration = Duration::from_secs(90);

#[test]
fn a_relayed_target_is_up_again_after_every_upset() {
    upsets(Kind::Symmetric, "relayed");
}

#[test]
fn a_direct_target_is_up_again_after_every_upset() {
    upsets(Kind::Cone, "direct");
}

/// Everything that a test has in its hands.
struct Scene {
    prometheus: Monitor,
    agent: Agent,
    client: Site,
    scraper: Seer,
    relays: Vec<Relay>,
    lab: Lab,
}

/// Client and scraper behind this kind of NAT, whose link is on this path at the beginning.
#[track_caller]
#[expect(clippy::print_stdout, reason = "the table is the result")]
fn upsets(kind: Kind, path: &str) {
    let Some((mut lab, directory, relays)) = rig::with_relays(2) else { return };
    let scraper = Seer::start(&mut lab, kind, &relays);
    let client = lab.site(kind);
    let agent = Agent::start(ALIAS, &client, &relays, &scraper);
    scraper.wait_path(ALIAS, path, WITHIN);
    let sd = format!("http://{}/sd", scraper.scraper.http);
    let jobs = format!(
        "  - job_name: narthex\n    scrape_interval: {0}s\n    scrape_timeout: {0}s\n    http_sd_configs:\n      \
         - url: {sd}\n        refresh_interval: 1s\n",
        INTERVAL.as_secs(),
    );
    let Some(prometheus) = scraper.site.enter(|| Monitor::prometheus_on(directory.path(), &jobs, &[])) else { return };
    let mut scene = Scene { prometheus, agent, client, scraper, relays, lab };
    scene.watch("start", unix_now());

    println!("| {kind:?} to {kind:?} | up again after | scrapes that failed | path then |");
    println!("|---|---|---|---|");
    scene.upset("one relay killed", |scene| scene.relays[0].kill());
    scene.relays[0].restart();
    scene.upset("the other relay killed", |scene| scene.relays[1].kill());
    scene.relays[1].restart();
    scene.upset("one relay silent: its cable is cut", |scene| scene.lab.cut(&scene.relays[0].site));
    scene.lab.splice();
    scene.upset("the other relay silent", |scene| scene.lab.cut(&scene.relays[1].site));
    scene.lab.splice();
    scene.upset("both relays killed, back after 3 s", |scene| {
        scene.relays.iter_mut().for_each(Relay::kill);
        thread::sleep(Duration::from_secs(3));
        scene.relays.iter_mut().for_each(Relay::restart);
    });
    scene.upset("agent killed and restarted", |scene| {
        scene.agent.process.kill();
        scene.agent.restart(&scene.client, &scene.scraper);
    });
    scene.upset("scraper killed and restarted", |scene| {
        let scraper = &mut scene.scraper.scraper;
        scraper.process.kill();
        scene.scraper.site.enter(|| scraper.restart());
    });
    scene.upset("the scraper's router restarted: mappings lost", |scene| scene.scraper.site.forget_mappings());
    scene.upset("the client's router restarted: mappings lost", |scene| scene.client.forget_mappings());
    scene.upset("the client moved to another network", |scene| scene.lab.relocate(&mut scene.client));
    scene.upset("the scraper moved to another network", |scene| scene.lab.relocate(&mut scene.scraper.site));
    scene.upset("5 % of all packets lost from now on", |scene| scene.lab.lose(5));
    scene.lab.lose_nothing();
    let log = directory.path().to_owned();
    let mut delay = None;
    scene.upset("every packet 100 ms later from now on", |scene| delay = scene.lab.delay(100, &log));
}

impl Scene {
    /// Does it, and prints what became of the target.
    #[track_caller]
    #[expect(clippy::print_stdout, reason = "the table is the result")]
    fn upset(&mut self, what: &str, act: impl FnOnce(&mut Self)) {
        // What went before is to be over.
        self.scraper.wait_relays(self.relays.len());
        let at = unix_now();
        act(self);
        let (up_after, failed, scrapes) = self.watch(what, at);
        let path = self.scraper.path(ALIAS);
        println!("| {what} | {} | {failed} of {scrapes} | {path} |", Seconds(Some(up_after)));
    }

    /// Waits until the target is up for a while. Gives how long after `since` that began, and of the scrapes from then on
    /// how many failed, and how many there were.
    #[track_caller]
    fn watch(&self, what: &str, since: f64) -> (Duration, usize, usize) {
        let mut samples: Vec<f64> = Vec::new();
        let streak = eventually(&format!("{what}: {ALIAS} is up for good"), WITHIN, || {
            // When the newest sample was taken, with a minus sign if it is a 0.
            let newest = format!("timestamp(up{{instance=\"{ALIAS}\"}}) * (2 * up{{instance=\"{ALIAS}\"}} - 1)");
            let newest = self.scraper.site.enter(|| self.prometheus.query(&newest)).first()?.1;
            if newest.abs() > since && samples.last() != Some(&newest) {
                samples.push(newest);
            }
            let streak = samples.iter().rev().take_while(|sample| **sample > 0.0).count();
            (streak >= FOR_GOOD).then_some(streak)
        });
        let up_at = samples[samples.len() - streak];
        let failed = samples.iter().filter(|sample| **sample < 0.0).count();
        (Duration::from_secs_f64((up_at - since).max(0.0)), failed, samples.len())
    }
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}
