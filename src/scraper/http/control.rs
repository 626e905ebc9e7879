//! The control socket: what a scraper answers to its owner alone.
//!
//! HTTP on a Unix socket in the data directory, which nobody else may enter.

use std::{
    fs::{self, File, Permissions},
    io, mem,
    os::{
        fd::AsRawFd,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixStream as StdUnixStream},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use tokio::{net::UnixListener, task, time};
use tokio_util::sync::CancellationToken;

use super::{peers, tickets};
use crate::{
    dir_lock,
    http::text,
    registry::{Registry, backup},
    scraper::{peer_desk::PeerDesk, ticket_desk::TicketDesk},
    telemetry::Chain,
};

/// The socket's name in the data directory.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";
/// Where the socket answers with an export.
pub(crate) const EXPORT_PATH: &str = "/v1/export";
const ENDPOINTS: &str = "\
GET /v1/export            the table of aliases, as narthex import reads it
GET, POST /v1/tickets     the tickets, and a new one
DELETE /v1/tickets/NAME   revokes a ticket
GET /v1/peers             the rules for keys
PUT /v1/peers/KEY         a rule for a key
";

/// How often the scraper looks whether the socket is still there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The path to bind or connect to, as long as this value lives.
pub(crate) struct SocketPath {
    path: PathBuf,
    /// Leads to the socket if its own path is longer than a socket's may be.
    _directory: Option<File>,
}

impl SocketPath {
    /// The socket of this data directory.
    ///
    /// # Errors
    /// If the directory cannot be opened, where that is needed.
    pub(crate) fn of(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(CONTROL_SOCKET);
        if SocketAddr::from_pathname(&path).is_ok() {
            return Ok(Self { path, _directory: None });
        }
        let directory = File::open(data_dir)?;
        let path = format!("/proc/self/fd/{}/{CONTROL_SOCKET}", directory.as_raw_fd()).into();
        Ok(Self { path, _directory: Some(directory) })
    }
}

impl AsRef<Path> for SocketPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// The socket of a data directory; its file goes with it.
pub(in crate::scraper) struct Control {
    data_dir: PathBuf,
    listener: Option<UnixListener>,
    /// The device and the inode of its file.
    bound: Option<(u64, u64)>,
    /// True once the log has said that there is no socket.
    is_warned: bool,
}

impl Control {
    /// Listens in the data directory, which is this scraper's. Without a socket, which is logged, all else works.
    pub(in crate::scraper) fn listen(data_dir: &Path) -> Self {
        let mut control = Self { data_dir: data_dir.to_owned(), listener: None, bound: None, is_warned: false };
        control.bind();
        control
    }

    /// Answers until `stop` fires. A socket whose file was deleted is made again.
    pub(in crate::scraper) async fn serve(
        mut self,
        registry: Registry,
        tickets: TicketDesk,
        peers: PeerDesk,
        stop: CancellationToken,
    ) {
        let router = Router::new()
            .route(EXPORT_PATH, get(export))
            .merge(tickets::router(tickets))
            .merge(peers::router(peers))
            .fallback(async || text::not_found(ENDPOINTS))
            .method_not_allowed_fallback(text::method_not_allowed)
            .with_state(registry);
        while !stop.is_cancelled() {
            let gone = stop.child_token();
            let listener = self.listener.take();
            tokio::join!(answer(listener, router.clone(), gone.clone()), async {
                while stop.run_until_cancelled(time::sleep(LOOK_EVERY)).await.is_some() && !self.is_to_be_made() {}
                gone.cancel();
            });
            if !stop.is_cancelled() {
                self.bind();
            }
        }
        if self.bound.is_some() && self.there() == self.bound {
            let _ = fs::remove_file(self.data_dir.join(CONTROL_SOCKET)); // the next start would remove it
        }
    }

    fn bind(&mut self) {
        let file = self.data_dir.join(CONTROL_SOCKET);
        let bound = SocketPath::of(&self.data_dir).and_then(|path| {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {} // of a process that was killed
            }
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&file, Permissions::from_mode(0o600))?;
            Ok(listener)
        });
        match bound {
            Ok(listener) => {
                (self.listener, self.bound, self.is_warned) = (Some(listener), self.there(), false);
            }
            Err(error) => {
                if !mem::replace(&mut self.is_warned, true) {
                    tracing::warn!(file = %file.display(), error = %Chain(&error), "there is no control socket");
                }
                self.bound = None;
            }
        }
    }

    /// True if the socket is not there, and nobody else's is.
    fn is_to_be_made(&self) -> bool {
        let is_in_place = self.bound.is_some() && self.there() == self.bound;
        // A directory that was deleted is the store's to make.
        !is_in_place
            && self.data_dir.is_dir()
            && SocketPath::of(&self.data_dir).is_ok_and(|path| StdUnixStream::connect(path).is_err())
    }

    fn there(&self) -> Option<(u64, u64)> {
        fs::symlink_metadata(self.data_dir.join(CONTROL_SOCKET)).ok().as_ref().map(dir_lock::id)
    }
}

/// Answers until the token fires, if there is a socket.
async fn answer(listener: Option<UnixListener>, router: Router, stop: CancellationToken) {
    let Some(listener) = listener else { return stop.cancelled().await };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::warn!(error = %Chain(&error), "the control socket failed");
    }
}

/// The whole table, and never a part of it: a backup must not be replaced by less than there is.
async fn export(State(registry): State<Registry>) -> Response {
    let unavailable = |why| text::line(StatusCode::SERVICE_UNAVAILABLE, why);
    let Ok(snapshot) = registry.snapshot() else { return unavailable("the table of aliases is not loaded yet") };
    if !registry.is_complete() {
        return unavailable("the table was damaged, and its clients have not all registered again; ask later");
    }
    let written = task::spawn_blocking(move || {
        let mut lines = Vec::new();
        backup::write(&snapshot.contents, SystemTime::now(), &mut lines).map(|()| lines)
    });
    match written.await {
        Ok(Ok(lines)) => ([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response(),
        _ => text::line(StatusCode::INTERNAL_SERVER_ERROR, "the table cannot be written as text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before: a directory with a long path had no socket.
    #[tokio::test]
    async fn a_path_of_any_length_has_a_socket() {
        let parent = tempfile::tempdir().expect("a directory");
        for name in ["short".to_owned(), "long-".repeat(30)] {
            let data_dir = parent.path().join(name);
            fs::create_dir(&data_dir).expect("made");
            let control = Control::listen(&data_dir);
            assert!(control.listener.is_some() && !control.is_to_be_made());
            assert!(StdUnixStream::connect(SocketPath::of(&data_dir).expect("opens")).is_ok());
            fs::remove_file(data_dir.join(CONTROL_SOCKET)).expect("there");
            assert!(control.is_to_be_made());
            let _other = Control::listen(&data_dir);
            assert!(!control.is_to_be_made(), "another process listens there");
        }
    }
}
