//! A real Prometheus, with the alerts of `examples/prometheus`, and a target that is only relayed.

use std::time::Duration;

use crate::{
    rig::{self, Agent, Seer},
    support::{lab::Kind, peers::Monitor},
};

const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn alerts_distinguish_a_relayed_target_from_a_direct_one_and_from_one_that_is_gone() {
    let Some((mut lab, directory, relays)) = rig::with_relays(1) else { return };
    let scraper = Seer::start(&mut lab, Kind::Cone, &relays);
    let (cone, symmetric) = (lab.site(Kind::Cone), lab.site(Kind::Symmetric));
    let _direct = Agent::start("direct", &cone, &relays, &scraper);
    let mut relayed = Agent::start("relayed", &symmetric, &relays, &scraper);
    for path in ["direct", "relayed"] {
        scraper.wait_path(path, path, WITHIN);
    }
    scraper.site.enter(|| {
        let Some(prometheus) = Monitor::prometheus_with_alerts(directory.path(), scraper.scraper.http) else { return };
        prometheus.wait_value("up{instance=\"direct\"}", 1.0);
        prometheus.wait_alert("relayed", Some("NarthexOnlyRelayed"));
        prometheus.wait_alert("direct", None);
        relayed.process.kill();
        prometheus.wait_alert("relayed", Some("NarthexAgentGone"));
    });
}
