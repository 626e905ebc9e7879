//! Connections to NATS: the servers as a person writes them, and a client that comes back by itself.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::PathBuf,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use percent_encoding::percent_decode_str;
use rand::Rng;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::{sync::watch, task};
use zeroize::Zeroizing;

use crate::{
    secret_file::{self, SecretFileError},
    small_file,
};

/// Longest wait for a server to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a silent connection is probed: two lost answers end it.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Pauses between attempts to connect, with a part at random.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// Different errors of a connection that are logged.
const MAX_SAID: usize = 16;
/// Most bytes of a file with certificates: the system's have some 200 KiB.
const MAX_CERTIFICATES: u64 = 4 << 20;

/// One or more servers of one NATS, such as `nats://a:4222,b:4222` or `tls://nats.example.com`, and a path after the last of
/// them. Shown without the user and password that the text may hold.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl {
    /// Without a user: the client logs them.
    servers: Vec<ServerAddr>,
    user: Option<User>,
    path: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
enum User {
    Password(String, String),
    Token(String),
}

/// Why a text names no NATS servers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsUrlError {
    /// Another scheme, or none.
    #[error("expected nats://HOST:PORT or tls://HOST:PORT, with further hosts after commas")]
    Scheme,
    /// A part is no address.
    #[error("{0} is no address of a NATS server")]
    Server(String),
    /// What follows the slash has another slash, a comma or an @. A user or password with one must be percent-encoded.
    #[error("after the servers and a slash comes one name; a / in a user or password is %2F")]
    Path,
}

/// Why a file of the settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsFileError {
    /// The credentials hold a private key: who else may read them, or why they cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The file has no credentials in it.
    #[error("{} holds no credentials of a NATS user, as nsc writes them", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is missing.
        source: io::Error,
    },
    /// The certificates could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file has no certificate in it, or a damaged one.
    #[error("{} holds no certificates in PEM, or a damaged one", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
    },
}

/// How to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatsConfig {
    /// The servers.
    pub url: NatsUrl,
    /// File with the user's credentials, as `nsc` writes it. Default none.
    pub credentials_file: Option<PathBuf>,
    /// File with the certificates of the authorities that the servers' certificates are checked by, PEM. Default those of the
    /// system. Implies TLS.
    pub ca_file: Option<PathBuf>,
}

/// A client, and what becomes of its connection.
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// How often the connection was lost.
    pub(crate) times_lost: watch::Receiver<u64>,
    /// What went wrong last, also while there is no connection; changes each time.
    pub(crate) fault: watch::Receiver<String>,
}

impl NatsUrl {
    /// The hosts and ports of its servers.
    #[cfg(feature = "cli")]
    pub(crate) fn addresses(&self) -> impl ExactSizeIterator<Item = (&str, u16)> {
        self.servers.iter().map(|server| (server.host(), server.port()))
    }

    /// What follows the last server, after a slash.
    pub(crate) fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }
}

impl FromStr for NatsUrl {
    type Err = NatsUrlError;

    fn from_str(text: &str) -> Result<Self, NatsUrlError> {
        let (scheme, _) = text.split_once("://").ok_or(NatsUrlError::Scheme)?;
        if !["nats", "tls"].contains(&scheme) {
            return Err(NatsUrlError::Scheme);
        }
        // Each server may have the scheme.
        let plain = text.split(',').map(|server| server.strip_prefix(&format!("{scheme}://")).unwrap_or(server));
        let plain = plain.collect::<Vec<_>>().join(",");
        let (servers, path) = plain.split_once('/').unwrap_or((&plain, ""));
        if path.contains(['/', ',', '@']) {
            return Err(NatsUrlError::Path);
        }
        let mut url = Self { servers: Vec::new(), user: None, path: (!path.is_empty()).then(|| path.to_owned()) };
        for server in servers.split(',') {
            let (user, server) = server.rsplit_once('@').map_or((None, server), |(user, server)| (Some(user), server));
            let address = format!("{scheme}://{server}").parse::<ServerAddr>();
            let address = address.ok().filter(|address| !address.host().is_empty());
            url.servers.push(address.ok_or_else(|| NatsUrlError::Server(server.to_owned()))?);
            url.user = url.user.or_else(|| user.map(User::of));
        }
        Ok(url)
    }
}

impl User {
    /// The text before the `@`, percent-encoded: a user and a password, or a token.
    fn of(text: &str) -> Self {
        let plain = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        match text.split_once(':') {
            Some((user, password)) => Self::Password(plain(user), plain(password)),
            None => Self::Token(plain(text)),
        }
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.servers.first().map_or("nats", ServerAddr::scheme);
        write!(f, "{scheme}://")?;
        for (server, comma) in self.servers.iter().zip(std::iter::once("").chain(std::iter::repeat(","))) {
            let (host, port) = (server.host(), server.port());
            match host.contains(':') {
                true => write!(f, "{comma}[{host}]:{port}")?,
                false => write!(f, "{comma}{host}:{port}")?,
            }
        }
        self.path.iter().try_for_each(|path| write!(f, "/{path}"))
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NatsUrl({self})")
    }
}

impl NatsConfig {
    /// Connects without credentials.
    pub fn new(url: NatsUrl) -> Self {
        Self { url, credentials_file: None, ca_file: None }
    }

    /// Whether the files can be used as they are now. Blocks.
    pub(crate) fn check(&self) -> Result<(), NatsFileError> {
        let credentials = self.read()?;
        self.with_files(ConnectOptions::new(), credentials).map(drop)
    }

    /// The text of the credentials, once the other file has been found to hold certificates. Blocks.
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, NatsFileError> {
        if let Some(path) = &self.ca_file {
            let unread = |source| NatsFileError::Io { path: path.clone(), source };
            let (pem, _) = small_file::read(path, MAX_CERTIFICATES).map_err(unread)?;
            let mut store = RootCertStore::empty();
            let mut good = CertificateDer::pem_slice_iter(&pem)
                .map(|certificate| certificate.is_ok_and(|certificate| store.add(certificate).is_ok()));
            if !good.all(|is_good| is_good) || store.is_empty() {
                return Err(NatsFileError::Certificates { path: path.clone() });
            }
        }
        Ok(self.credentials_file.as_deref().map(secret_file::read).transpose()?)
    }

    /// The options with what the files hold.
    fn with_files(
        &self,
        mut options: ConnectOptions,
        credentials: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<ConnectOptions, NatsFileError> {
        if let (Some(path), Some(bytes)) = (&self.credentials_file, &credentials) {
            let text = str::from_utf8(bytes).map_err(io::Error::other);
            let given = text.and_then(|text| options.credentials(text));
            options = given.map_err(|source| NatsFileError::Credentials { path: path.clone(), source })?;
        }
        if let Some(file) = &self.ca_file {
            options = options.add_root_certificates(file.clone()).require_tls(true);
        }
        Ok(options)
    }

    /// A client with these options that connects in the background, and again whenever the connection is lost.
    ///
    /// # Errors
    /// A file that cannot be used: [`NatsFileError`].
    pub(crate) async fn connect(&self, options: ConnectOptions) -> io::Result<Connection> {
        let (url, said) = (self.url.to_string(), Mutex::new(BTreeSet::new()));
        self.connect_with(options, move |event| log(&url, event, &said)).await
    }

    /// As [`connect`](Self::connect); `tell` is called with what becomes of the connection, and nothing is logged.
    ///
    /// # Errors
    /// A file that cannot be used: [`NatsFileError`].
    pub(crate) async fn connect_with(
        &self,
        options: ConnectOptions,
        tell: impl Fn(&Event) + Send + Sync + 'static,
    ) -> io::Result<Connection> {
        // Two libraries of this program bring a provider each, so that rustls does not choose by itself; an error means that one was
        // chosen before.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ((lost, times_lost), (faulty, fault)) = (watch::channel(0), watch::channel(String::new()));
        let mut options = options
            .name("narthex")
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_EVERY)
            .max_reconnects(None)
            .retry_on_initial_connect()
            .reconnect_delay_callback(pause)
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected) {
                    lost.send_modify(|lost| *lost += 1);
                }
                match &event {
                    Event::ServerError(error) => drop(faulty.send_replace(error.to_string())),
                    Event::ClientError(error) => drop(faulty.send_replace(error.to_string())),
                    _ => {}
                }
                tell(&event);
                std::future::ready(())
            });
        let config = self.clone();
        let credentials = task::spawn_blocking(move || config.read()).await.map_err(io::Error::other)?;
        options = self.with_files(options, credentials.map_err(io::Error::other)?).map_err(io::Error::other)?;
        options = match self.url.user.clone() {
            Some(User::Password(user, password)) => options.user_and_password(user, password),
            Some(User::Token(token)) => options.token(token),
            None => options,
        };
        let client = options.connect(self.url.servers.clone()).await.map_err(io::Error::other)?;
        Ok(Connection { client, times_lost, fault })
    }
}

fn pause(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.min(6)).unwrap_or(6);
    let longest = (SHORTEST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
    longest.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// Logs an event, but not what was `said` since the connection was made: the same error comes with each attempt.
fn log(url: &str, event: &Event, said: &Mutex<BTreeSet<String>>) {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let mut is_news = |error: &dyn fmt::Display| {
        let text = error.to_string().escape_debug().to_string();
        (said.len() < MAX_SAID && said.insert(text.clone())).then_some(text)
    };
    match event {
        Event::Connected => {
            said.clear();
            tracing::info!(url, "connected to NATS");
        }
        Event::ClientError(error) => {
            if let Some(error) = is_news(error) {
                tracing::warn!(url, error, "NATS cannot be reached, and is tried again");
            }
        }
        Event::ServerError(error) => {
            if let Some(error) = is_news(error) {
                tracing::warn!(url, error, "NATS refuses");
            }
        }
        Event::SlowConsumer(_) => {
            if is_news(&event).is_some() {
                tracing::warn!(url, "messages of NATS were left out, as too many came at once");
            }
        }
        Event::Disconnected => tracing::warn!(url, "connection to NATS lost"),
        event => tracing::debug!(url, event = %event.to_string().escape_debug(), "NATS"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
    };

    use super::*;

    /// Credentials that let nobody in anywhere.
    const CREDENTIALS: &str = "\
-----BEGIN NATS USER JWT-----
eyJ0eXAiOiJqd3QiLCJhbGciOiJlZDI1NTE5
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
SUAIO3FHUX5PNV2LQIIP7TZ3N4L7TX3W53MQGEIVYFIGA635OZCKEYHFLM
------END USER NKEY SEED------
";

    /// Before: anybody on the machine could read the key in them.
    #[test]
    fn credentials_are_a_secret_like_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = NatsConfig::new("nats://h".parse().expect("a URL"));
        let path = dir.path().join("n.creds");
        config.credentials_file = Some(path.clone());
        let write = |text: &str, mode| {
            fs::write(&path, text).expect("writes");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
        };
        write(CREDENTIALS, 0o600);
        config.check().expect("private");
        write(CREDENTIALS, 0o644);
        assert!(matches!(config.check(), Err(NatsFileError::Secret(SecretFileError::Exposed(_)))));
        write("junk", 0o600);
        assert!(matches!(config.check(), Err(NatsFileError::Credentials { .. })));
    }

    #[test]
    fn authorities_are_certificates() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = NatsConfig::new("nats://h".parse().expect("a URL"));
        let path = dir.path().join("ca.pem");
        config.ca_file = Some(path.clone());
        assert!(matches!(config.check(), Err(NatsFileError::Io { .. })));
        let good = rcgen::generate_simple_self_signed(["h".to_owned()]).expect("made").cert.pem();
        let damaged = format!("{good}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        for (text, is_good) in [(good.as_str(), true), (&damaged, false), ("junk", false), ("", false)] {
            fs::write(&path, text).expect("writes");
            assert_eq!(config.check().is_ok(), is_good, "{text}");
        }
    }

    #[test]
    fn servers_are_read_as_people_write_them_and_shown_without_a_password() {
        for (text, shown, path) in [
            ("nats://127.0.0.1", "nats://127.0.0.1:4222", None),
            ("nats://a:1,b:2/table", "nats://a:1,b:2/table", Some("table")),
            ("nats://a:1,nats://b:2/", "nats://a:1,b:2", None),
            ("nats://[::1]:4/t", "nats://[::1]:4/t", Some("t")),
            ("tls://user:secret@a.example:4443", "tls://a.example:4443", None),
        ] {
            let url: NatsUrl = text.parse().expect("servers");
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("secret"));
            assert_eq!(url.path(), path);
        }
        for text in
            ["", "127.0.0.1:4222", "http://a", "nats://", "nats://a,,b", "nats://a:b", "nats://a//", "nats://a/b,c"]
        {
            assert!(text.parse::<NatsUrl>().is_err(), "{text}");
        }
        let url: NatsUrl = "nats://a,us%40er:p%2Fss%3Aword@b".parse().expect("servers");
        assert!(url.user == Some(User::Password("us@er".to_owned(), "p/ss:word".to_owned())));
        assert!(url.servers.iter().all(|server| !server.has_user_pass()), "the client logs them");
        let url: NatsUrl = "nats://t%3Aken@a".parse().expect("servers");
        assert!(url.user == Some(User::Token("t:ken".to_owned())));
        for text in ["nats://user:secret@a:b", "nats://user:se/secret@a", "nats://user:1/secret@a:1"] {
            let error = text.parse::<NatsUrl>().expect_err("unfit");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
