//! Lines that drop long packets without a word: PPPoE, tunnels and VPNs whose ICMP somebody blocks.

use std::time::Duration;

use narthex::identity::PeerAddr;

use crate::{
    rig::{self, Agent, Seer},
    support::{
        fleet::{narthex, text},
        lab::Kind,
    },
};

const WITHIN: Duration = Duration::from_secs(30);
/// The shortest line is the shortest that QUIC passes: datagrams of 1200 bytes (RFC 9000, section 14), and the headers.
const MTUS: [u16; 3] = [1400, 1280, 1228];

#[test]
fn long_bodies_pass_a_line_that_drops_long_packets() {
    scrapes_long(Kind::Cone, Kind::Open);
}

#[test]
fn long_bodies_pass_a_line_that_drops_long_packets_by_tcp_alone() {
    scrapes_long(Kind::UdpBlocked, Kind::Open);
}

#[test]
fn long_bodies_pass_a_line_that_drops_long_packets_and_a_relay() {
    scrapes_long(Kind::Symmetric, Kind::Symmetric);
}

/// A line that is too narrow for anything: links come up over TCP, and the doctor says what is wrong.
#[test]
fn the_doctor_tells_a_line_that_drops_long_packets_from_one_that_does_not() {
    let Some((mut lab, _directory, relays)) = rig::with_relays(1) else { return };
    let scraper = Seer::start(&mut lab, Kind::Open, &relays);
    for (mtu, status) in [(1400, "ok"), (1000, "failed")] {
        let site = lab.site(Kind::Cone);
        lab.narrow(&site, mtu);
        let mut doctor = narthex("doctor");
        doctor.args([
            "--scraper",
            &PeerAddr::at(scraper.scraper.key, scraper.site.public().to_string(), scraper.scraper.port()).to_string(),
        ]);
        doctor.args(["--secret-file", &text(&scraper.fleet.secret_file()), "--alias", "x"]);
        let output = site.enter(|| doctor.output()).expect("runs");
        let report = String::from_utf8_lossy(&output.stdout);
        let line = report.lines().find(|line| line.contains("long packets, TCP")).unwrap_or_else(|| panic!("{report}"));
        assert!(line.starts_with(status), "{mtu}: {report}");
    }
}

/// Every body is scraped at the first try once the agent is there, however short the packets on its line must be.
#[track_caller]
fn scrapes_long(client: Kind, scraper: Kind) {
    let Some((mut lab, _directory, relays)) = rig::with_relays(1) else { return };
    let scraper = Seer::start(&mut lab, scraper, &relays);
    let body = "lab_up 1\n".repeat(100_000);
    for mtu in MTUS {
        let site = lab.site(client);
        lab.narrow(&site, mtu);
        let alias = format!("mtu-{mtu}");
        let _agent = Agent::start_with(&alias, &site, &relays, &scraper, &body);
        scraper.wait_scraped(&alias, WITHIN);
        for _ in 0..5 {
            assert_eq!(scraper.scrape(&alias).map(|body| body.len()), Ok(body.len()), "{mtu} bytes");
        }
    }
}
