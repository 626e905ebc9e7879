//! A small internet of network namespaces: sites with a public address each, most of them behind a router that
//! translates addresses, blocks, forgets and gets replaced as real ones do.
//!
//! ```text
//!  host ──lan── router ──wan──┐
//!                             ├── internet   routes, loses, delays
//!  host ─────────────────wan──┘
//! ```
//!
//! Site N is 45.32.N.2 (and 2a05:4c80:N::2) to the others: addresses that look public to every rule about them, and that
//! no packet leaves the namespaces with. All hosts behind routers are in 192.168.1.0/24, as at home.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Command,
    time::Duration,
};

use super::{netns::Namespace, process::Process, program};

const WAN6: &str = "2a05:4c80";
const LAN6: &str = "2a05:4c81";
/// The device that delays, and the routing table that leads into it.
const DELAY: &str = "delay";
const DELAYED: u32 = 77;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A public IPv4 and IPv6 address, no router.
    Open,
    /// One mapping for all destinations, which only those let in that were sent to: address and port (RFC 4787:
    /// endpoint-independent mapping, address and port-dependent filtering). Most routers at home.
    Cone,
    /// A random port for every destination. Hole punching cannot guess it.
    Symmetric,
    /// As [`Cone`](Self::Cone), and UDP is dropped.
    UdpBlocked,
    /// As [`Cone`](Self::Cone), and TCP is dropped.
    TcpBlocked,
    /// No IPv4; a public IPv6 address behind a firewall that lets in only answers.
    SixOnly,
}

pub(crate) struct Lab {
    internet: Namespace,
    sites: u8,
}

pub(crate) struct Site {
    kind: Kind,
    number: u8,
    host: Namespace,
    router: Option<Namespace>,
    /// The router of the second line.
    second: Option<Namespace>,
}

/// The lines of a host behind routers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Line {
    First,
    Second,
}

impl Line {
    fn device(self) -> &'static str {
        match self {
            Self::First => "lan",
            Self::Second => "lan2",
        }
    }

    /// The first three bytes of its addresses.
    fn network(self) -> &'static str {
        match self {
            Self::First => "192.168.1",
            Self::Second => "192.168.2",
        }
    }

    fn default_route(self) -> String {
        format!("route replace default via {}.1", self.network())
    }
}

impl Lab {
    /// An internet without anybody; `None`, after saying why, where none can be made.
    #[track_caller]
    pub(crate) fn new() -> Option<Self> {
        if !Namespace::available() {
            return None;
        }
        let internet = Namespace::new("net");
        internet.sysctl("ipv4/ip_forward", "1");
        internet.sysctl("ipv6/conf/all/forwarding", "1");
        Some(Self { internet, sites: 0 })
    }

    #[track_caller]
    pub(crate) fn site(&mut self, kind: Kind) -> Site {
        let host = Namespace::new(&format!("host{}", self.sites + 1));
        let (number, router) = self.connect(kind, &host);
        Site { kind, number, host, router, second: None }
    }

    /// Moves a site's host to another network without notice: other addresses, inside and outside.
    #[track_caller]
    pub(crate) fn relocate(&mut self, site: &mut Site) {
        let old = if site.router.is_some() { "lan" } else { "wan" };
        site.host.ip(&[&format!("link del {old}")]);
        (site.number, site.router) = self.connect(site.kind, &site.host);
    }

    /// Drops a random part of all packets.
    #[track_caller]
    pub(crate) fn lose(&self, percent: u8) {
        self.filter("inet loss", &format!("numgen random mod 100 < {percent} drop"));
    }

    #[track_caller]
    pub(crate) fn lose_nothing(&self) {
        self.internet.nft("delete table inet loss");
    }

    /// Drops what goes straight from one of these sites to the other.
    #[track_caller]
    pub(crate) fn part(&self, one: &Site, other: &Site) {
        let (one, other) = (one.public(), other.public());
        let rules = format!("ip saddr {one} ip daddr {other} drop\nip saddr {other} ip daddr {one} drop");
        self.filter("ip parted", &rules);
    }

    #[track_caller]
    pub(crate) fn rejoin(&self) {
        self.internet.nft("delete table ip parted");
    }

    /// Drops whatever goes to a site, or comes from there. Nothing at the site's host shows it.
    #[track_caller]
    pub(crate) fn cut(&self, site: &Site) {
        let port = port(site.number);
        self.filter("inet cut", &format!("iifname {port} drop\noifname {port} drop"));
    }

    #[track_caller]
    pub(crate) fn splice(&self) {
        self.internet.nft("delete table inet cut");
    }

    /// Drops what is longer than this on the line of a site behind a router, in both directions and without a word to the
    /// sender: a path-MTU black hole (RFC 2923, section 2.1).
    #[track_caller]
    pub(crate) fn narrow(&self, site: &Site, mtu: u16) {
        let router = site.router.as_ref().expect("there is a router");
        for (namespace, device) in [(router, "wan".to_owned()), (&self.internet, port(site.number))] {
            namespace.ip(&[&format!("link set {device} mtu {mtu}")]);
            let silent = "icmp type destination-unreachable drop\nicmpv6 type packet-too-big drop";
            let chain = format!("chain output {{\ntype filter hook output priority filter\n{silent}\n}}");
            namespace.nft(&format!("table inet narrow {{\n{chain}\n}}"));
        }
    }

    /// Pulls the cable of a site's host: the link is there, and carries nothing. Addresses and routes stay.
    #[track_caller]
    pub(crate) fn unplug(&self, site: &Site) {
        match &site.router {
            Some(router) => router.ip(&["link set lan down"]),
            None => self.internet.ip(&[&format!("link set {} down", port(site.number))]),
        }
    }

    #[track_caller]
    pub(crate) fn plug(&self, site: &Site) {
        match &site.router {
            Some(router) => router.ip(&["link set lan up"]),
            // IPv6 addresses go with the link.
            None => self.internet.ip(&[&format!("link set {} up", port(site.number)), &gateway6(site.number)]),
        }
    }

    /// Gives a host behind a router a second line, through a router of the same kind. The default route stays.
    #[track_caller]
    pub(crate) fn second_line(&mut self, site: &mut Site) {
        let (number, router) = self.router(site.kind);
        attach(&router, &site.host, number, Line::Second);
        site.second = Some(router);
    }

    /// Holds every packet for this time on its way from one site to another, until the handle is dropped. `None`, after
    /// printing that, without Python, which stands in for netem: not every kernel has that.
    #[track_caller]
    pub(crate) fn delay(&self, milliseconds: u32, log: &Path) -> Option<Process> {
        let mut command = Command::new(program::program("python3", "python3")?);
        command.args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/delay.py"), DELAY]);
        command.arg(milliseconds.to_string());
        self.internet.ip(&[
            &format!("tuntap add dev {DELAY} mode tun"),
            &format!("link set {DELAY} up"),
            &format!("route add default dev {DELAY} table {DELAYED}"),
            // What comes out of the device again takes the usual way.
            &format!("rule add iif {DELAY} lookup main priority 1"),
            &format!("rule add from 45.32.0.0/16 lookup {DELAYED} priority 2"),
        ]);
        Some(self.internet.enter(|| Process::spawn("delay", log, &mut command)))
    }

    /// Adds a table with these rules for all that the internet forwards.
    #[track_caller]
    fn filter(&self, table: &str, rules: &str) {
        let chain = format!("chain forward {{\ntype filter hook forward priority filter\n{rules}\n}}");
        self.internet.nft(&format!("table {table} {{\n{chain}\n}}"));
    }

    /// Gives `host` the next site's addresses, through a router if the kind has one.
    fn connect(&mut self, kind: Kind, host: &Namespace) -> (u8, Option<Namespace>) {
        if kind == Kind::Open {
            self.sites += 1;
            self.uplink(self.sites, kind, host);
            return (self.sites, None);
        }
        let (number, router) = self.router(kind);
        if kind == Kind::SixOnly {
            router.ip(&[
                &format!("link add lan type veth peer name lan netns {}", host.name()),
                "link set lan up",
                &format!("addr add {LAN6}:{number}::1/64 dev lan nodad"),
            ]);
            host.ip(&[
                "link set lan up",
                &format!("addr add {LAN6}:{number}::2/64 dev lan nodad"),
                &format!("route add default via {LAN6}:{number}::1"),
            ]);
            self.internet.ip(&[&format!("route add {LAN6}:{number}::/64 via {WAN6}:{number}::2")]);
        } else {
            attach(&router, host, number, Line::First);
            host.ip(&[&Line::First.default_route()]);
        }
        (number, Some(router))
    }

    /// A router on the internet, without anybody behind it.
    fn router(&mut self, kind: Kind) -> (u8, Namespace) {
        self.sites += 1;
        let router = Namespace::new(&format!("nat{}", self.sites));
        self.uplink(self.sites, kind, &router);
        let forwarding = if kind == Kind::SixOnly { "ipv6/conf/all/forwarding" } else { "ipv4/ip_forward" };
        router.sysctl(forwarding, "1");
        router.nft(&firewall(kind));
        (self.sites, router)
    }

    fn uplink(&self, number: u8, kind: Kind, to: &Namespace) {
        let four = kind != Kind::SixOnly;
        let six = matches!(kind, Kind::Open | Kind::SixOnly);
        let port = port(number);
        self.internet.ip(&[
            &format!("link add {port} type veth peer name wan netns {}", to.name()),
            &format!("link set {port} up"),
            &format!("addr add 45.32.{number}.1/30 dev {port}"),
            &gateway6(number),
        ]);
        to.ip(&["link set wan up"]);
        if four {
            to.ip(&[&format!("addr add 45.32.{number}.2/30 dev wan"), &default_route(number)]);
        }
        if six {
            to.ip(&[
                &format!("addr add {WAN6}:{number}::2/64 dev wan nodad"),
                &format!("route add default via {WAN6}:{number}::1"),
            ]);
        }
    }
}

impl Site {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Runs `act` on the host: see [`Namespace::enter`].
    pub(crate) fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        self.host.enter(act)
    }

    /// The address that others see.
    pub(crate) fn public(&self) -> IpAddr {
        match self.kind {
            Kind::SixOnly => IpAddr::V6(ipv6(LAN6, self.number)),
            _ => Ipv4Addr::new(45, 32, self.number, 2).into(),
        }
    }

    /// The IPv6 address of an open site.
    pub(crate) fn public_v6(&self) -> Ipv6Addr {
        assert_eq!(self.kind, Kind::Open, "only open sites have both");
        ipv6(WAN6, self.number)
    }

    /// The host's own address behind its router.
    pub(crate) fn private(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 1, 100 + self.number)
    }

    /// The router forgets TCP connections after such a silence, and drops what comes of them later.
    #[track_caller]
    pub(crate) fn forget_silent_tcp(&self, after: Duration) {
        let router = self.router.as_ref().expect("there is a router");
        router.sysctl("netfilter/nf_conntrack_tcp_timeout_established", &after.as_secs().to_string());
        router.sysctl("netfilter/nf_conntrack_tcp_loose", "0");
        router.nft("table inet unknown {\nchain forward {\ntype filter hook forward priority filter\nct state invalid drop\n}\n}");
    }

    /// Has the default route go over this line.
    #[track_caller]
    pub(crate) fn route_over(&self, line: Line) {
        self.host.ip(&[&line.default_route()]);
    }

    /// The host's own end of a line goes down, with the routes over it.
    #[track_caller]
    pub(crate) fn take_down(&self, line: Line) {
        self.host.ip(&[&format!("link set {} down", line.device())]);
    }

    #[track_caller]
    pub(crate) fn bring_up(&self, line: Line) {
        self.host.ip(&[&format!("link set {} up", line.device())]);
    }

    /// The router starts again: it forgets its mappings, and then gives others.
    #[track_caller]
    pub(crate) fn forget_mappings(&self) {
        let router = self.router.as_ref().expect("there is a router");
        // The kernel forgets what it masqueraded on a link that goes down.
        router.ip(&["link set wan down", "link set wan up", &default_route(self.number)]);
        if self.kind != Kind::Symmetric {
            // Left to itself it would give the same port again.
            router.nft(&nat("meta l4proto udp masquerade to :41000\noifname \"wan\" masquerade"));
        }
    }
}

/// Plugs a host into a router, by IPv4.
fn attach(router: &Namespace, host: &Namespace, number: u8, line: Line) {
    let (device, network) = (line.device(), line.network());
    router.ip(&[
        &format!("link add lan type veth peer name {device} netns {}", host.name()),
        "link set lan up",
        &format!("addr add {network}.1/24 dev lan"),
    ]);
    host.ip(&[&format!("link set {device} up"), &format!("addr add {network}.{}/24 dev {device}", 100 + number)]);
}

/// Translation and filter of a router.
fn firewall(kind: Kind) -> String {
    let translation = match kind {
        Kind::Open | Kind::SixOnly => String::new(),
        Kind::Symmetric => nat("masquerade fully-random"),
        Kind::Cone | Kind::UdpBlocked | Kind::TcpBlocked => nat("masquerade"),
    };
    let blocked = match kind {
        Kind::UdpBlocked => "meta l4proto udp drop",
        Kind::TcpBlocked => "meta l4proto tcp drop",
        _ => "",
    };
    // The router itself keeps silent to strangers: an answer, or an entry for a packet that came before ours went out,
    // would spoil the mapping.
    format!(
        "{translation}
        table inet filter {{
            chain forward {{
                type filter hook forward priority filter; policy drop
                {blocked}
                ct state established,related accept
                iifname \"lan\" accept
            }}
            chain input {{
                type filter hook input priority filter; policy drop
                iifname {{ \"lo\", \"lan\" }} accept
                ct state established,related accept
                meta l4proto ipv6-icmp accept
            }}
        }}"
    )
}

/// The table of translation with this rule for what leaves, in place of the one before.
fn nat(rule: &str) -> String {
    format!(
        "table ip nat
        delete table ip nat
        table ip nat {{
            chain postrouting {{
                type nat hook postrouting priority srcnat
                oifname \"wan\" {rule}
            }}
        }}"
    )
}

/// The internet's end of a site's line.
fn port(number: u8) -> String {
    format!("site{number}")
}

fn gateway6(number: u8) -> String {
    format!("addr add {WAN6}:{number}::1/64 dev {} nodad", port(number))
}

fn default_route(number: u8) -> String {
    format!("route add default via 45.32.{number}.1")
}

fn ipv6(prefix: &str, number: u8) -> Ipv6Addr {
    format!("{prefix}:{number}::2").parse().expect("an address")
}
