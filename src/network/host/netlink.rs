//! Reads routes, addresses and carriers from the Linux kernel: rtnetlink(7).
//!
//! A socket that is told of every change is read for that alone, so that neither a full buffer nor a router with a million
//! routes matters. A look asks for the two ways out, the addresses, and the links that have one, and never for all routes.

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::pin,
    task::Poll,
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage, AddressScope},
        link::LinkFlags,
        route::{RouteAddress, RouteAttribute},
    },
    sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use rustix::io::Errno;

use super::looks::{Host, Kernel, Way};

/// What the kernel tells of.
const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
];
/// Addresses in the internet (a.root-servers.net). Nothing is sent there: the kernel is asked for the way.
const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)), IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30))];
/// Messages that are read at once, before others have their turn.
const MOST_READ: usize = 1024;
/// Of each message only that there is one matters.
const READ_LEN: usize = 16;

pub(super) struct Netlink {
    socket: TokioSocket,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let groups = GROUPS.iter().fold(0, |groups, group| groups | 1 << (*group as u32 - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Self { socket })
    }
}

impl Kernel for Netlink {
    async fn told(&mut self) -> io::Result<()> {
        let mut read = Vec::with_capacity(READ_LEN);
        poll_fn(|cx| {
            for count in 0..MOST_READ {
                read.clear();
                match self.socket.poll_recv(cx, &mut read) {
                    Poll::Ready(Ok(())) => {}
                    // The kernel had more to tell than its buffer holds.
                    Poll::Ready(Err(error)) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if count == 0 => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    async fn look(&mut self) -> io::Result<Host> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::select! {
            host = look(&handle) => host.map_err(io::Error::other),
            () = pin!(connection) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

async fn look(kernel: &Handle) -> Result<Host, rtnetlink::Error> {
    let mut host = Host::default();
    let mut carriers = HashMap::new();
    let mut addresses = pin!(kernel.address().get().execute());
    while let Some(message) = addresses.try_next().await? {
        let Some(ip) = address(&message) else { continue };
        let link = message.header.index;
        if carries(kernel, &mut carriers, link).await {
            host.addresses.insert((link, ip));
        }
    }
    for (way, outside) in host.ways.iter_mut().zip(OUTSIDE) {
        if let Some(found) = way_to(kernel, outside).await
            && carries(kernel, &mut carriers, found.link).await
        {
            *way = Some(found);
        }
    }
    Ok(host)
}

/// The address, if it means something on further hosts.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let own = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    };
    let any = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    };
    let attributes = &message.attributes;
    let ip = attributes.iter().find_map(own).or_else(|| attributes.iter().find_map(any));
    ip.filter(|_| message.header.scope == AddressScope::Universe)
}

async fn way_to(kernel: &Handle, outside: IpAddr) -> Option<Way> {
    let host_len = if outside.is_ipv4() { 32 } else { 128 };
    let wanted = RouteMessageBuilder::<IpAddr>::new().destination_prefix(outside, host_len).ok()?.build();
    let route = pin!(kernel.route().get(wanted).execute()).try_next().await.ok()??;
    let (mut link, mut gateway, mut source) = (None, None, None);
    for attribute in route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(index),
            RouteAttribute::Gateway(at) => gateway = ip(&at),
            RouteAttribute::PrefSource(from) => source = ip(&from),
            _ => {}
        }
    }
    Some(Way { link: link?, gateway, source })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// True if the link is up and has its carrier.
async fn carries(kernel: &Handle, known: &mut HashMap<u32, bool>, link: u32) -> bool {
    if let Some(carries) = known.get(&link) {
        return *carries;
    }
    let found = pin!(kernel.link().get().match_index(link).execute()).try_next().await;
    let carries = found.ok().flatten().is_some_and(|link| link.header.flags.contains(LinkFlags::LowerUp));
    known.insert(link, carries);
    carries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_shows_no_address_of_this_host_alone() {
        let mut kernel = Netlink::open().expect("a netlink socket");
        let host = kernel.look().await.expect("the kernel answers");
        assert!(host.addresses.iter().all(|(_, ip)| !ip.is_loopback()), "{host:?}");
        assert_eq!(kernel.look().await.expect("again"), host);
    }
}
