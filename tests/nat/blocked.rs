//! One transport, or one address family, is all there is.

use std::time::Duration;

use crate::{
    rig::{self, Agent, Seer},
    support::lab::Kind,
};

const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn cones_punch_over_quic_where_tcp_is_blocked() {
    scrapes(Kind::TcpBlocked, Kind::TcpBlocked, Some("direct"));
}

#[test]
fn an_open_scraper_is_reached_over_quic_where_tcp_is_blocked() {
    scrapes(Kind::TcpBlocked, Kind::Open, Some("direct"));
}

#[test]
fn tcp_is_enough_where_udp_is_blocked() {
    scrapes(Kind::UdpBlocked, Kind::UdpBlocked, None);
}

/// Only the relay has both address families.
#[test]
fn quic_alone_and_tcp_alone_meet_at_the_relay() {
    scrapes(Kind::TcpBlocked, Kind::UdpBlocked, Some("relayed"));
}

#[test]
fn ipv6_alone_is_enough() {
    scrapes(Kind::SixOnly, Kind::SixOnly, None);
}

#[test]
fn ipv6_alone_and_ipv4_alone_meet_at_the_relay() {
    scrapes(Kind::SixOnly, Kind::Cone, Some("relayed"));
}

/// A client there is scraped by a scraper here, over that path in the end, if it matters.
#[track_caller]
fn scrapes(client: Kind, scraper: Kind, path: Option<&str>) {
    let Some((mut lab, _directory, relays)) = rig::with_relays(1) else { return };
    let scraper = Seer::start(&mut lab, scraper, &relays);
    let site = lab.site(client);
    let _agent = Agent::start("agent", &site, &relays, &scraper);
    scraper.wait_scraped("agent", WITHIN);
    if let Some(path) = path {
        scraper.wait_path("agent", path, WITHIN);
        scraper.wait_scraped("agent", WITHIN);
    }
}
