//! `Host` headers and request targets, for the fuzz target `host`.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, Uri, header, uri::Authority};

use crate::{http::LocalAddr, identity::HostPort};

/// A line with the request's target, then one for each `Host`. The address that `/sd` hands out is a host and a port.
pub fn host(bytes: &[u8]) {
    let local = LocalAddr::from(SocketAddr::from(([127, 0, 0, 1], 19960)));
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let uri = lines.next().and_then(|uri| Uri::try_from(uri).ok()).unwrap_or_default();
    let hosts: HeaderMap =
        lines.filter_map(|host| Some((header::HOST, HeaderValue::from_bytes(host).ok()?))).take(3).collect();
    let asked_as = local.asked_as(&uri, &hosts).expect("our end of TCP is one");
    let at: HostPort = asked_as.parse().expect("a host and a port");
    assert_eq!(at.to_string(), asked_as);
    assert!(at.port != 0);
    for authority in hosts.values().filter_map(|host| Authority::try_from(host.as_bytes()).ok()) {
        if local.is_ours(&authority, None) {
            assert_eq!(authority.port_u16(), Some(19960));
        }
    }
}
