//! A real vmagent whose only setting is the URL of the http_sd list.

use crate::support::{
    SOON,
    exporter::{Exporter, Reply},
    fleet::Fleet,
    peers::Monitor,
};

#[test]
fn vmagent_follows_a_target_up_down_and_away() {
    let (fleet, mut scraper) = Fleet::with_scraper();
    let Some(vmagent) = Monitor::vmagent(fleet.path(), scraper.http) else { return };
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let start = |alias| fleet.agent_of(&scraper, alias, [(alias, exporter.url("/metrics"))], &[]);

    let mut killed = start("a.killed_1");
    let mut stopped = start("a-stopped-2");
    let target = vmagent.wait_health("a.killed_1", "up");
    assert_eq!(target.labels["job"], "narthex");
    vmagent.wait_health("a-stopped-2", "up");

    scraper.process.kill();
    vmagent.wait_health("a.killed_1", "down");
    scraper.restart();
    vmagent.wait_health("a.killed_1", "up");
    vmagent.wait_health("a-stopped-2", "up");

    killed.kill();
    vmagent.wait_health("a.killed_1", "down");
    assert!(stopped.terminate(SOON).success());
    vmagent.wait_gone("a-stopped-2");
}
