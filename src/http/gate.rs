//! What stands before the routes: TLS, who may come in, headers and a rate, as two files say.
//!
//! The files, and all that they name, are read again when one of them has changed: looked at once a second at most, when somebody
//! connects or asks. What has become unusable, or would switch TLS or the users off, is logged once, and what was read before stays
//! in force: an editor empties a file before it writes it.

use std::{
    fmt, fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::HeaderMap;
use rustls::ServerConfig;
use tokio::{sync::Mutex, task};
use zeroize::Zeroizing;

use super::{
    authentication::{Denied, Users},
    passwords::PasswordCheck,
    tls::{self, Material},
    token,
    web_config::{ClientAuth, WebConfig},
};
use crate::{
    access::{User, UserFile},
    private_file::{self, ExposedFile},
    secret_file::{self, SecretFileError},
    small_file,
    telemetry::Chain,
};

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most bytes of a file.
const MAX_LEN: u64 = 4 << 20;

/// TLS, users and rights of a scraper's HTTP side.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WebSecurity {
    /// A web configuration file of Prometheus: TLS, passwords, headers, a rate. Default: none of these.
    pub config_file: Option<PathBuf>,
    /// A TOML file that gives users tokens, rights and some of the targets. Default: whoever is authenticated may read everything
    /// and change nothing; where nobody is, everybody may do everything.
    pub users_file: Option<PathBuf>,
    /// Whether everybody may ask at an address that is not of this host alone. Default not.
    pub insecure: bool,
}

/// Why a file of [`WebSecurity`] could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebSecurityError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file with a key or a token cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The web configuration file has a key in it, and others could read it.
    #[error(transparent)]
    Exposed(#[from] ExposedFile),
    /// The file says what cannot be done.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What, in one line.
        why: String,
    },
    /// The files, read again, would take away what the scraper began with.
    #[error("without {0} from now on: restart the scraper if that is meant")]
    Weaker(&'static str),
}

/// The files as they were read last.
pub(crate) struct Gate {
    settings: WebSecurity,
    loaded: ArcSwap<Loaded>,
    check: PasswordCheck,
    watch: Arc<Mutex<Watch>>,
}

/// What the files said at one time.
struct Loaded {
    tls: Option<Arc<ServerConfig>>,
    headers: HeaderMap,
    rate: Option<DefaultDirectRateLimiter>,
    users: Users,
}

/// The files behind what is loaded, or behind the last attempt.
struct Watch {
    looked: Instant,
    seen: Seen,
}

/// Files with their stamps, taken before they were read.
#[derive(Default)]
struct Seen(Vec<(PathBuf, Option<Stamp>)>);

#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Gate {
    /// Reads the files. Blocks.
    pub(crate) fn open(settings: WebSecurity) -> Result<Arc<Self>, WebSecurityError> {
        let mut seen = Seen::default();
        let loaded = ArcSwap::from_pointee(Loaded::read(&settings, &mut seen)?);
        let watch = Arc::new(Mutex::new(Watch { looked: Instant::now(), seen }));
        Ok(Arc::new(Self { settings, loaded, check: PasswordCheck::new(), watch }))
    }

    /// True if everybody may ask.
    pub(crate) fn is_open(&self) -> bool {
        self.loaded.load().users.is_open()
    }

    /// The TLS to speak with whoever connects now, if any.
    pub(super) async fn tls(self: &Arc<Self>) -> Option<Arc<ServerConfig>> {
        self.current().await.tls.clone()
    }

    /// The user who sends these headers from `ip`.
    pub(crate) async fn authenticate(self: &Arc<Self>, headers: &HeaderMap, ip: IpAddr) -> Result<Arc<User>, Denied> {
        self.current().await.users.authenticate(headers, ip, &self.check).await
    }

    /// The headers of an answer.
    pub(crate) async fn headers(self: &Arc<Self>) -> HeaderMap {
        self.current().await.headers.clone()
    }

    /// As [`headers`](Self::headers), of a request that counts; none if there are too many.
    pub(crate) async fn admit(self: &Arc<Self>) -> Option<HeaderMap> {
        let loaded = self.current().await;
        let is_free = loaded.rate.as_ref().is_none_or(|rate| rate.check().is_ok());
        is_free.then(|| loaded.headers.clone())
    }

    async fn current(self: &Arc<Self>) -> Arc<Loaded> {
        let has_files = self.settings.config_file.is_some() || self.settings.users_file.is_some();
        // Who comes while another looks takes what there is.
        if has_files
            && let Ok(mut watch) = Arc::clone(&self.watch).try_lock_owned()
            && watch.looked.elapsed() >= LOOK_EVERY
        {
            let gate = Arc::clone(self);
            // After a panic, which there is none of, the files stay as they are.
            let _ = task::spawn_blocking(move || gate.look(&mut watch)).await;
        }
        self.loaded.load_full()
    }

    /// Reads the files again if one has changed. Blocks.
    fn look(&self, watch: &mut Watch) {
        watch.looked = Instant::now();
        if watch.seen.is_as_it_was() {
            return;
        }
        let mut seen = Seen::default();
        match Loaded::read(&self.settings, &mut seen).and_then(|loaded| self.loaded.load().may_become(loaded)) {
            Ok(loaded) => {
                self.loaded.store(Arc::new(loaded));
                tracing::info!("the files of the HTTP side's security were read again");
            }
            Err(error) => {
                seen.add_those_of(&watch.seen);
                tracing::error!(error = %Chain(&error), "the files of the HTTP side's security cannot be used: it stays as it was");
            }
        }
        watch.seen = seen;
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Loaded {
    fn read(settings: &WebSecurity, seen: &mut Seen) -> Result<Self, WebSecurityError> {
        let (mut loaded, known) = match &settings.config_file {
            Some(path) => Self::read_config(path, seen)?,
            None => (Self::open(), Vec::new()),
        };
        if let Some(path) = &settings.users_file {
            loaded.users.read_file(path, &known, seen)?;
        }
        Ok(loaded)
    }

    fn open() -> Self {
        let users = Users {
            passwords: Default::default(),
            tokens: Vec::new(),
            named: Default::default(),
            have_certificates: false,
        };
        Self { tls: None, headers: HeaderMap::new(), rate: None, users }
    }

    /// These, unless they take TLS or authentication away.
    fn may_become(&self, next: Self) -> Result<Self, WebSecurityError> {
        if next.users.is_open() && !self.users.is_open() {
            return Err(WebSecurityError::Weaker("authentication"));
        }
        if next.tls.is_none() && self.tls.is_some() {
            return Err(WebSecurityError::Weaker("TLS"));
        }
        Ok(next)
    }

    /// What the web configuration file says, and the names of those who have passwords.
    fn read_config(path: &Path, seen: &mut Seen) -> Result<(Self, Vec<String>), WebSecurityError> {
        let wrong = |why: String| WebSecurityError::Content { path: path.to_owned(), why };
        let (bytes, metadata) = seen.read(path)?;
        let text = small_file::text(&bytes).map_err(|error| wrong(error.to_string()))?;
        let mut config = WebConfig::read(text).map_err(wrong)?;
        if config.tls_server_config.key.is_some() {
            private_file::check(path, &metadata)?;
        }
        config.tls_server_config.below(path.parent().unwrap_or(Path::new("")));
        let server = &config.tls_server_config;
        let mut tls = None;
        if server.is_given() {
            let pem = |inline: &Option<String>, file: &Option<PathBuf>, seen: &mut Seen| match (inline, file) {
                (Some(text), _) => Ok(Zeroizing::new(text.clone().into_bytes())),
                (None, Some(file)) => Ok(seen.read(file)?.0),
                (None, None) => Ok::<_, WebSecurityError>(Zeroizing::default()),
            };
            let certificate = pem(&server.cert, &server.cert_file, seen)?;
            let key = match (&server.key, &server.key_file) {
                (Some(text), _) => Zeroizing::new(text.as_bytes().to_vec()),
                (None, Some(file)) => seen.read_secret(file)?,
                (None, None) => Zeroizing::default(),
            };
            let ca = pem(&server.client_ca, &server.client_ca_file, seen)?;
            let client_ca = (!ca.is_empty()).then_some(&ca[..]);
            let material = Material { certificate: &certificate, key: &key, client_ca };
            tls = Some(tls::server_config(server, &material).map_err(wrong)?);
        }
        let rate = config
            .rate()
            .map_err(wrong)?
            .and_then(|(interval, burst)| Some(RateLimiter::direct(Quota::with_period(interval)?.allow_burst(burst))));
        let users = Users {
            have_certificates: server.client_auth_type == ClientAuth::RequireAndVerifyClientCert,
            passwords: std::mem::take(&mut config.basic_auth_users),
            tokens: Vec::new(),
            named: Default::default(),
        };
        let known = users.passwords.keys().cloned().collect();
        Ok((Self { tls, headers: config.headers().map_err(wrong)?, rate, users }, known))
    }
}

impl Users {
    /// Adds what the file of users says.
    fn read_file(&mut self, path: &Path, known: &[String], seen: &mut Seen) -> Result<(), WebSecurityError> {
        let wrong = |why: String| WebSecurityError::Content { path: path.to_owned(), why };
        let (bytes, _) = seen.read(path)?;
        let text = small_file::text(&bytes).map_err(|error| wrong(error.to_string()))?;
        let file = UserFile::read(text).map_err(wrong)?;
        for entry in &file.users {
            let (name, user) = (entry.name(), Arc::new(entry.user()));
            let has_password = known.iter().any(|known| known == name);
            if let Some(token_file) = &entry.token_file {
                let token_file = path.parent().unwrap_or(Path::new("")).join(token_file);
                let digest = seen.read_token(&token_file)?;
                if self.tokens.iter().any(|(other, _)| *other == digest) {
                    return Err(wrong(format!("the token of user {name:?} is another user's, too")));
                }
                self.tokens.push((digest, Arc::clone(&user)));
            } else if !has_password {
                return Err(wrong(format!(
                    "user {name:?} has neither a token_file nor a password in basic_auth_users of the web configuration file"
                )));
            }
            self.named.insert(name.to_owned(), user);
        }
        Ok(())
    }
}

impl Seen {
    fn read(&mut self, path: &Path) -> Result<(Zeroizing<Vec<u8>>, fs::Metadata), WebSecurityError> {
        self.note(path);
        small_file::read(path, MAX_LEN).map_err(|source| WebSecurityError::Read { path: path.to_owned(), source })
    }

    fn read_secret(&mut self, path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
        self.note(path);
        secret_file::read(path)
    }

    fn read_token(&mut self, path: &Path) -> Result<[u8; 32], SecretFileError> {
        self.note(path);
        token::read(path.to_owned())
    }

    fn note(&mut self, path: &Path) {
        self.0.push((path.to_owned(), Stamp::of(path)));
    }

    fn is_as_it_was(&self) -> bool {
        self.0.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
    }

    /// An attempt that failed early has not come to all files: those of before are looked at anew.
    fn add_those_of(&mut self, before: &Self) {
        let known = |path: &PathBuf| self.0.iter().any(|(seen, _)| seen == path);
        let missing: Vec<_> = before.0.iter().filter(|(path, _)| !known(path)).map(|(path, _)| path.clone()).collect();
        missing.iter().for_each(|path| self.note(path));
    }
}

impl Stamp {
    /// None if there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Some(Self { inode: metadata.ino(), len: metadata.len(), modified })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// As a second later.
    fn look(gate: &Arc<Gate>) {
        gate.look(&mut gate.watch.try_lock().expect("nobody else looks"));
    }

    fn names(gate: &Gate) -> Vec<String> {
        gate.loaded.load().users.passwords.keys().cloned().collect()
    }

    #[test]
    fn files_are_read_again_when_they_change_and_broken_ones_change_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        let hash = bcrypt::hash("x", 4).expect("hashed");
        let config =
            |name: &str| fs::write(file("web.yml"), format!("basic_auth_users: {{{name}: {hash}}}")).expect("written");
        let token = |text: &str| {
            fs::write(file("token"), text).expect("written");
            fs::set_permissions(file("token"), fs::Permissions::from_mode(0o600)).expect("set");
        };
        config("alice");
        token("t1");
        fs::write(file("users.toml"), "[[user]]\nname = \"bot\"\ntoken_file = \"token\"\n").expect("written");
        let settings =
            WebSecurity { config_file: Some(file("web.yml")), users_file: Some(file("users.toml")), insecure: false };
        let gate = Gate::open(settings).expect("opens");
        let digest = || gate.loaded.load().users.tokens[0].0;
        let first = digest();
        config("barbara");
        token("t2, longer");
        look(&gate);
        assert_eq!(names(&gate), ["barbara"]);
        assert_ne!(digest(), first);
        fs::write(file("web.yml"), "basic_auth_users: {").expect("written");
        look(&gate);
        assert_eq!(names(&gate), ["barbara"]);
        fs::remove_file(file("web.yml")).expect("removed");
        look(&gate);
        assert_eq!(names(&gate), ["barbara"]);
        config("carol-anne");
        look(&gate);
        assert_eq!(names(&gate), ["carol-anne"]);
    }

    #[test]
    fn files_that_are_emptied_let_nobody_in_and_do_not_switch_tls_off() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        let settings = WebSecurity { config_file: Some(file("web.yml")), ..WebSecurity::default() };
        let rewritten = |before: &str| {
            fs::write(file("web.yml"), before).expect("written");
            let gate = Gate::open(settings.clone()).expect("opens");
            fs::write(file("web.yml"), "").expect("written");
            look(&gate);
            gate
        };
        let hash = bcrypt::hash("x", 4).expect("hashed");
        assert!(!rewritten(&format!("basic_auth_users: {{alice: {hash}}}")).is_open());

        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        fs::write(file("cert"), pair.cert.pem()).expect("written");
        fs::write(file("key"), pair.key_pair.serialize_pem()).expect("written");
        fs::set_permissions(file("key"), fs::Permissions::from_mode(0o600)).expect("set");
        let gate = rewritten("tls_server_config: {cert_file: cert, key_file: key}");
        assert!(gate.loaded.load().tls.is_some());
    }

    #[test]
    fn users_without_credentials_and_tokens_of_two_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        fs::write(file("token"), "t").expect("written");
        fs::set_permissions(file("token"), fs::Permissions::from_mode(0o600)).expect("set");
        let refused = |text: &str| {
            fs::write(file("users.toml"), text).expect("written");
            let settings = WebSecurity { users_file: Some(file("users.toml")), ..WebSecurity::default() };
            Gate::open(settings).map(drop).expect_err(text).to_string()
        };
        let with_token = |name: &str| format!("[[user]]\nname = \"{name}\"\ntoken_file = \"token\"\n");
        assert!(refused("[[user]]\nname = \"a\"").contains("neither a token_file nor a password"));
        assert!(refused(&(with_token("a") + &with_token("b"))).contains("another user's"));
        fs::set_permissions(file("token"), fs::Permissions::from_mode(0o644)).expect("set");
        assert!(refused(&with_token("a")).contains("may be read by others"));
    }
}
