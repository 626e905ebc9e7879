//! What one owner of an IP address usually has whole, for limits per source.

#[cfg(any(feature = "scraper", feature = "node"))]
use std::net::Ipv4Addr;
use std::net::{IpAddr, Ipv6Addr};

/// The addresses of one host: its IPv4 address, or the /64 of its IPv6 address.
pub(crate) fn of_host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// The addresses of one line or customer: an IPv4 /24, or an IPv6 /64.
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) fn of_owner(ip: IpAddr) -> IpAddr {
    match of_host(ip) {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
        v6 => v6,
    }
}

#[cfg(all(test, any(feature = "scraper", feature = "node")))]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_network_and_an_ipv4_address_is_one_however_it_is_written() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(of_host(ip("2001:db8::1")), of_host(ip("2001:db8::2")));
        assert_ne!(of_host(ip("2001:db8::1")), of_host(ip("2001:db8:0:1::1")));
        assert_eq!(of_host(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
        assert_eq!(of_owner(ip("192.0.2.7")), ip("192.0.2.0"));
        assert_eq!(of_owner(ip("::ffff:192.0.2.7")), ip("192.0.2.0"));
        assert_eq!(of_owner(ip("2001:db8:1:2:3::4")), ip("2001:db8:1:2::"));
    }
}
