//! What a user changes on the command line to mend an error of the library, which knows no flags.

use std::{borrow::Cow, error::Error, io, sync::Arc};

use crate::{
    NodeError,
    client::{BuildError, RegisterError},
    identity::KeyFileError,
    network::NetworkError,
    registration_log::VerifyError,
    registry::StoreError,
    scraper::{NatsFileError, ScraperError, UnusableProgram},
    wire::{AliasRefusal, HandshakeRefusal},
};

/// An error of the command line itself, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct Advised {
    pub(super) what: String,
    pub(super) advice: String,
}

/// What to do about an error, from the first error of its chain that has one.
pub(super) fn advice(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(of).map(Cow::into_owned)
}

/// What to do about a registration that every scraper refuses.
pub(super) fn about_registration(error: &RegisterError) -> &'static str {
    match error {
        RegisterError::Handshake(HandshakeRefusal::UnknownSecret) => {
            "copy the scraper's --secret-file here, or give it this one as a further --secret-file; a ticket was revoked: make another"
        }
        RegisterError::Handshake(HandshakeRefusal::NotAdmitted)
        | RegisterError::Alias { refusal: AliasRefusal::OutOfScope, .. } => {
            "narthex ticket list and narthex peer list beside the scraper show who may register what; see its log"
        }
        RegisterError::NotAScraper => "see --scraper",
        _ => "narthex doctor with the same flags has details",
    }
}

fn of<'a>(error: &'a (dyn Error + 'static)) -> Option<Cow<'a, str>> {
    if let Some(Advised { advice, .. }) = error.downcast_ref() {
        return Some(advice.into());
    }
    if let Some(error) = error.downcast_ref() {
        return about_key_file(error).map(Into::into);
    }
    if error.is::<UnusableProgram>() {
        return Some("see --on-change".into());
    }
    if let Some(error) = error.downcast_ref::<Arc<RegisterError>>() {
        return Some(about_registration(error).into());
    }
    // The error of a role shows the error inside it as its own text, so that the chain has the outer one alone.
    match error.downcast_ref() {
        Some(ScraperError::Bind(error)) if error.addr.starts_with("unix:") => {
            return Some(about_socket(&error.source).into());
        }
        Some(ScraperError::Bind(error)) => return Some(about_bind(&error.source, "--http")),
        Some(ScraperError::BindLobbyApi(error)) => return Some(about_bind(&error.source, "--lobby-api")),
        Some(ScraperError::BindRegistrationApi(error)) => return Some(about_bind(&error.source, "--registration-api")),
        Some(ScraperError::FileSd { .. }) => return Some("see --file-sd".into()),
        Some(ScraperError::OnChange(_)) => return Some("see --on-change".into()),
        Some(ScraperError::NatsFile(error)) => return about_nats(error).map(Into::into),
        Some(ScraperError::Insecure(_)) => {
            return Some("see --web.config.file, --web.users-file, --http, --web.insecure".into());
        }
        Some(ScraperError::Security(_)) => return Some("see --web.config.file and --web.users-file".into()),
        Some(ScraperError::NoTarget { .. }) => return Some("give --advertise HOST:PORT".into()),
        Some(ScraperError::Network(error)) => return about_network(error),
        Some(ScraperError::Store(error)) => return about_store(error).map(Into::into),
        _ => {}
    }
    if let Some(VerifyError::Empty { .. }) = error.downcast_ref() {
        return Some("a scraper keeps one with --registration-log".into());
    }
    match error.downcast_ref() {
        Some(NodeError::Bind(error)) => return Some(about_bind(&error.source, "--http")),
        Some(NodeError::Network(error)) => return about_network(error),
        _ => {}
    }
    if let Some(BuildError::Network(error)) = error.downcast_ref() {
        return about_network(error);
    }
    error.downcast_ref().and_then(about_store).map(Into::into)
}

/// What to do about an address of `flag` that cannot be listened on.
fn about_bind(error: &io::Error, flag: &str) -> Cow<'static, str> {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => format!("is another process using the port? {flag} gives another address"),
        io::ErrorKind::AddrNotAvailable => {
            format!("this host has no such address: give {flag} one of its own, or 0.0.0.0 for all of them")
        }
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need the capability CAP_NET_BIND_SERVICE; {flag} gives another address")
        }
        _ => format!("see {flag}"),
    };
    advice.into()
}

/// What to do about a socket that `--http` names.
fn about_socket(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there; --http gives another socket",
        io::ErrorKind::AlreadyExists => "the file there is no socket: give --http another path",
        _ => "its directory must be there, and this user's to write; see --http",
    }
}

fn about_nats(error: &NatsFileError) -> Option<&'static str> {
    match error {
        NatsFileError::Credentials { .. } => Some("see --store-credentials-file"),
        NatsFileError::Io { .. } | NatsFileError::Certificates { .. } => Some("see --store-ca-file"),
        _ => None,
    }
}

fn about_key_file(error: &KeyFileError) -> Option<&'static str> {
    match error {
        KeyFileError::Exists { .. } => Some("give another path with --out, or remove the file first"),
        KeyFileError::Kind { .. } => Some(
            "give the other file: narthex keygen writes keys, narthex secret writes secrets. A key that was handed to others \
             as a secret is no secret any more: make a new one",
        ),
        KeyFileError::Content { .. } => Some("copy the file anew, with its one line of 52 characters"),
        _ => None,
    }
}

fn about_store(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::Locked { .. } => Some("or give this one a directory of its own with --data-dir"),
        StoreError::Backend { .. } => Some("see --data-dir"),
        _ => None,
    }
}

fn about_network(error: &NetworkError) -> Option<Cow<'static, str>> {
    let advice = match error {
        NetworkError::Listen { source, .. } => return Some(about_bind(source, "--listen")),
        NetworkError::ListenWebSocket { source, .. } => return Some(about_bind(source, "--listen-ws")),
        NetworkError::NoListen => "see --listen",
        NetworkError::BootstrapAddress(_) | NetworkError::BootstrapSelf(_) => "see --bootstrap",
        NetworkError::External(_) => "see --external",
        NetworkError::RelayAddress => "give --external HOST:PORT",
        NetworkError::Mdns(_) => "leave --mdns out",
        _ => return None,
    };
    Some(advice.into())
}

#[cfg(test)]
mod tests {
    use std::{
        fs, io,
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::{BindError, KeyPair, identity::HostPort};

    fn bind() -> BindError {
        let addr = HostPort { host: "127.0.0.1".to_owned(), port: 80 };
        BindError { addr: addr.to_string(), source: io::ErrorKind::AddrInUse.into() }
    }

    /// A service that links the library has no command line.
    #[test]
    fn the_library_names_no_flag() {
        let mut folders = vec![PathBuf::from("src")];
        let mut lines = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder of src") {
                let path = entry.expect("an entry").path();
                if path.is_dir() && path != Path::new("src/cli") {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).expect("a source file");
                    for (number, line) in text.lines().enumerate() {
                        lines += 1;
                        assert!(!names_flag(line), "{}:{}: {line}", path.display(), number + 1);
                    }
                }
            }
        }
        assert!(lines > 0 && names_flag("give `--listen`") && !names_flag("// ----- a--b"));
    }

    /// True if the line has `--` between something that is no part of a word and a letter.
    fn names_flag(line: &str) -> bool {
        line.match_indices("--").any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + 2..].chars().next();
            before.is_none_or(|c| c != '-' && !c.is_alphanumeric()) && after.is_some_and(|c| c.is_ascii_lowercase())
        })
    }

    #[test]
    fn advice_for_an_address_is_by_what_is_wrong_with_it() {
        let listen = |source: io::Error| NetworkError::Listen { address: HostPort::new("h", 1), source };
        for (source, part) in [
            (io::ErrorKind::AddrInUse.into(), "another process"),
            (io::ErrorKind::AddrNotAvailable.into(), "this host has no such address"),
            (io::ErrorKind::PermissionDenied.into(), "below 1024"),
            (io::Error::other("failed to lookup address information"), "see --listen"),
        ] {
            let error = anyhow::Error::from(ScraperError::from(listen(source)));
            let advice = advice(&error).expect("some");
            assert!(advice.contains(part) && advice.contains("--listen"), "{advice}");
        }
    }

    #[test]
    fn an_error_of_each_role_gets_the_flag_that_mends_it() {
        let own = || NetworkError::BootstrapSelf(KeyPair::from_seed(&[1; 32]).public());
        let refused = Arc::new(RegisterError::Handshake(HandshakeRefusal::UnknownSecret));
        for (error, flag) in [
            (ScraperError::from(bind()).into(), Some("--http")),
            (ScraperError::from(own()).into(), Some("--bootstrap")),
            (anyhow::Error::from(NodeError::from(bind())).context("the node"), Some("--http")),
            (NodeError::from(NetworkError::RelayAddress).into(), Some("--external HOST:PORT")),
            (BuildError::Network(own()).into(), Some("--bootstrap")),
            (KeyFileError::Exists { path: "a.key".into() }.into(), Some("--out")),
            (anyhow::Error::new(refused).context("refused"), Some("--secret-file")),
        ] {
            let advice = advice(&error);
            match flag {
                Some(flag) => {
                    assert!(advice.as_ref().is_some_and(|advice| advice.contains(flag)), "{error:#}: {advice:?}")
                }
                None => assert_eq!(advice, None, "{error:#}"),
            }
        }
    }
}
