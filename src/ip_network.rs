//! What one owner of an IP address usually has whole, for limits per source.

#[cfg(any(feature = "scraper", feature = "node"))]
use std::net::Ipv4Addr;
use std::net::{IpAddr, Ipv6Addr};

/// The addresses of one line: its IPv4 address, or the IPv6 /56 that a provider gives to a household (RIPE-690).
pub(crate) fn of_line(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => first_of(v6, 56),
        v4 => v4,
    }
}

/// The addresses of one customer: an IPv4 /24, or the IPv6 /48 that a provider gives to a company (RIPE-690).
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) fn of_owner(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
        IpAddr::V6(v6) => first_of(v6, 48),
    }
}

/// The first address of the network of `v6` whose prefix has `bits`.
fn first_of(v6: Ipv6Addr, bits: u32) -> IpAddr {
    Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> bits)).into()
}

#[cfg(all(test, any(feature = "scraper", feature = "node")))]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_network_and_an_ipv4_address_is_one_however_it_is_written() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(of_line(ip("2001:db8:1:200::1")), of_line(ip("2001:db8:1:2ff::2")));
        assert_ne!(of_line(ip("2001:db8:1:200::1")), of_line(ip("2001:db8:1:300::1")));
        assert_eq!(of_line(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
        assert_eq!(of_owner(ip("192.0.2.7")), ip("192.0.2.0"));
        assert_eq!(of_owner(ip("::ffff:192.0.2.7")), ip("192.0.2.0"));
        assert_eq!(of_owner(ip("2001:db8:1:2:3::4")), ip("2001:db8:1::"));
    }
}
