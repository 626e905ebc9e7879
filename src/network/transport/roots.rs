//! Which certificates a `wss` link takes from the reverse proxy.
//!
//! A link does not rest on them: inside the TLS the peer proves its key. So they are Mozilla's roots and, for proxies
//! that open TLS, the system's too, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.

use std::sync::LazyLock;

use libp2p_websocket::tls::{Certificate, Config};

/// Read once: hundreds of certificates take milliseconds.
pub(crate) fn roots() -> Config {
    ROOTS.clone()
}

static ROOTS: LazyLock<Config> = LazyLock::new(|| {
    let mut config = Config::builder();
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::debug!(%error, "some of the system's root certificates cannot be read");
    }
    for root in found.certs {
        if let Err(error) = config.add_trust(&Certificate::new(root.to_vec())) {
            tracing::debug!(%error, "a root certificate of the system is odd");
        }
    }
    config.finish()
});
