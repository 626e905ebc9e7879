//! Routers that forget a silent connection soon, and answer nothing that comes after.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::{
    rig::{self, Agent, Seer},
    support::lab::Kind,
};

const WITHIN: Duration = Duration::from_secs(30);
/// What a router may do at worst (RFC 5382, section 5, asks for two hours).
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// A usual interval of Prometheus.
const INTERVAL: Duration = Duration::from_secs(60);

/// Before keep-alives: 3 of 8 scrapes failed.
#[test]
fn a_tcp_mapping_of_30_s_outlives_the_pause_between_two_scrapes() {
    let Some((mut lab, _directory, relays)) = rig::with_relays(1) else { return };
    let scraper = Seer::start(&mut lab, Kind::Open, &relays);
    let site = lab.site(Kind::UdpBlocked);
    site.forget_silent_tcp(FORGOTTEN_AFTER);
    let _agent = Agent::start("agent", &site, &relays, &scraper);
    scraper.wait_scraped("agent", WITHIN);
    scraper.wait_path("agent", "direct", WITHIN);
    scraper.wait_scraped("agent", WITHIN);
    let plain = scraper.site.enter(|| TcpListener::bind("0.0.0.0:0")).expect("listens");
    let at = (scraper.site.public(), plain.local_addr().expect("bound").port());
    let silent = site.enter(|| TcpStream::connect(at)).expect("connects");
    let (mut far, _) = plain.accept().expect("is connected");
    thread::sleep(INTERVAL);

    far.write_all(b"late").expect("the kernel takes it");
    silent.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    assert!((&silent).read(&mut [0; 4]).is_err(), "the router has forgotten a connection that nobody kept alive");
    assert_eq!(scraper.scrape("agent"), Ok(rig::BODY.to_owned()));
}
