//! The peer that should answer at an address. The kind of peer decides the advice when a check of the address fails.

/// Which peer the doctor expects, and so which setting named its address.
#[derive(Clone, Copy)]
pub(super) enum ExpectedPeer {
    /// The scraper that a client should register with.
    Scraper,
    Node,
    /// The scraper on this host, at one of its own listen addresses.
    LocalScraper,
}

impl ExpectedPeer {
    pub(super) fn role(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Scraper | Self::LocalScraper => "scraper",
        }
    }

    /// The flag with the peer's address.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Scraper => "--scraper",
            Self::Node => "--bootstrap",
            Self::LocalScraper => "--listen",
        }
    }

    /// What to do if a peer with another key, `found`, answers.
    pub(super) fn wrong_key_advice(self, found: &str) -> String {
        match self {
            Self::Scraper => format!(
                "if that is the scraper you mean, give {found} with --scraper (narthex key FILE prints a scraper's); else mend the address"
            ),
            Self::Node => format!("if that is the node you mean, give {found} with --bootstrap; else mend the address"),
            Self::LocalScraper => {
                "give the --key and the --listen that the scraper was started with; if these are they, stop the \
                                   process of the other key (ss -lntup)"
                    .to_owned()
            }
        }
    }

    /// What to do if the scraper does not know the secret.
    pub(super) fn unknown_secret_advice(self) -> &'static str {
        match self {
            Self::Scraper | Self::Node => {
                "copy the scraper's --secret-file here, or add this one there as a further --secret-file and restart it"
            }
            Self::LocalScraper => {
                "the running scraper was started with another --secret-file: give that one here, or restart it with this"
            }
        }
    }

    /// What to do if the peer accepts connections and closes them.
    pub(super) fn closed_advice(self) -> String {
        let role = self.role();
        let of_address = match self {
            Self::Node => "--max-connections-per-ip",
            Self::Scraper | Self::LocalScraper => "--max-connections-per-private-ip",
        };
        format!(
            "a {role} at a limit does so: look for \"a limit refuses work\" in its log, which names the limit; raise it \
             ({of_address}: this host, or the router before it, may have as many as that lets in), or close connections \
             that are not needed. If that log has no such line, see what has that port"
        )
    }

    /// What to do if the connection passes a proxy or a reverse proxy, which may be at fault as well.
    pub(super) fn proxy_advice(self) -> String {
        let role = self.role();
        format!(
            "see to the proxy of HTTPS_PROXY if there is one, to what passes requests on to the {role} (its upgrade, its \
             certificate), and to the {role} itself"
        )
    }
}
