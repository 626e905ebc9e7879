//! Whose place is looked at, which decides what to do about what is wrong there.

/// Who is to be reached, and by whose word.
#[derive(Clone, Copy)]
pub(super) enum Whose {
    /// The scraper that a client should register with.
    Scraper,
    /// A bootstrap node.
    Node,
    /// The scraper that the doctor stands beside.
    Own,
}

impl Whose {
    /// What should be running there.
    pub(super) fn role(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Scraper | Self::Own => "scraper",
        }
    }

    /// The flag that names the place.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Scraper => "--scraper",
            Self::Node => "--bootstrap",
            Self::Own => "--listen",
        }
    }

    /// Where somebody with another key answers.
    pub(super) fn other_key(self, found: &str) -> String {
        match self {
            Self::Scraper => format!(
                "if that is the scraper you mean, give {found} with --scraper (narthex key FILE prints a scraper's); else mend the place"
            ),
            Self::Node => format!("if that is the node you mean, give {found} with --bootstrap; else mend the place"),
            Self::Own => OTHER_KEY.to_owned(),
        }
    }

    /// Where the scraper does not know the secret.
    pub(super) fn other_secret(self) -> &'static str {
        match self {
            Self::Scraper | Self::Node => {
                "copy the scraper's --secret-file here, or add this one there as a further --secret-file and restart it"
            }
            Self::Own => {
                "the running scraper was started with another --secret-file: give that one here, or restart it with this"
            }
        }
    }

    /// Where connections are taken and ended.
    pub(super) fn cut(self) -> String {
        let role = self.role();
        format!(
            "a {role} at a limit does so: look for \"connections are refused\" in its log, which says which limit; raise it \
             (--max-connections-per-ip: this host, or the router before it, may have as many as that lets in), or end \
             what takes the room. If that log is silent, see what has that port"
        )
    }

    /// Where something stands before the peer that may be at fault as well.
    pub(super) fn way(self) -> String {
        let role = self.role();
        format!(
            "see to the proxy of HTTPS_PROXY if there is one, to what passes requests on to the {role} (its upgrade, its \
             certificate), and to the {role} itself"
        )
    }
}

const OTHER_KEY: &str = "give the --key and the --listen that the scraper was started with; if these are they, stop the \
                         process of the other key (ss -lntup)";
