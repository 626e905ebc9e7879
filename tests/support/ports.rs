//! Ports that nobody else is given.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::Mutex,
};

/// A port that is free for TCP and UDP on 127.0.0.1, given out once per test binary.
///
/// Taken from below the range that the kernel gives to outgoing connections, so that it stays free while its process
/// is down.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = 10_240 + (getrandom::u32().expect("randomness") % 20_000) as u16;
        if !GIVEN.lock().expect("no test panics while picking a port").insert(port) {
            continue;
        }
        let address = loopback(port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
