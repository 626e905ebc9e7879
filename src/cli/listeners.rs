//! The addresses that a role listens on: two of them that are one are refused before anything starts.

use crate::identity::HostPort;

/// Checks that no two flags name one TCP port. That another process has a port shows at the start alone.
pub(super) fn check<'a>(listeners: impl IntoIterator<Item = (&'static str, &'a HostPort)>) -> Result<(), String> {
    let mut before: Vec<(&str, &HostPort)> = Vec::new();
    for (flag, address) in listeners {
        if let Some((other, same)) = before.iter().find(|(_, other)| is_one(other, address)) {
            return Err(format!("{other} {same} and {flag} {address} are one TCP port: give one of them another"));
        }
        before.push((flag, address));
    }
    Ok(())
}

/// True if no two sockets can listen on both. Not said of every pair: `[::]` and `127.0.0.1` depends on the kind of socket.
fn is_one(a: &HostPort, b: &HostPort) -> bool {
    let same_host = match (a.ip(), b.ip()) {
        (Some(a), Some(b)) => a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()),
        _ => a.host == b.host,
    };
    a.port != 0 && a.port == b.port && same_host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_one_are_refused_and_others_are_not() {
        for (a, b, is_free) in [
            ("127.0.0.1:1", "127.0.0.1:1", false),
            ("127.0.0.1:1", "0.0.0.0:1", false),
            ("[::]:1", "[::1]:1", false),
            ("localhost:1", "localhost:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", true),
            ("127.0.0.1:1", "127.0.0.1:2", true),
            ("127.0.0.1:1", "127.0.0.2:1", true),
            ("0.0.0.0:1", "[::]:1", true),
        ] {
            let (a, b) = (a.parse().expect("an address"), b.parse().expect("an address"));
            let checked = check([("--http", &a), ("--listen", &b)]);
            assert_eq!(checked.is_ok(), is_free, "{a} {b}");
            assert!(checked.err().is_none_or(|why| why.contains(&format!("--http {a} and --listen {b}"))));
        }
    }
}
