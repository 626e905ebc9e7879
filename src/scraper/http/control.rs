//! The control socket: what a scraper answers to its owner alone.
//!
//! HTTP on a Unix socket in the data directory, which nobody else may enter.

use std::{
    mem,
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
    http::text,
    registry::{Registry, backup},
    scraper::{peer_desk::PeerDesk, ticket_desk::TicketDesk},
    socket_file::{SocketFile, is_listened_on},
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

/// The mode of its file: for the owner alone.
const MODE: u32 = 0o600;
/// How often the scraper looks whether the socket is still there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The socket of a data directory; its file goes with it.
pub(in crate::scraper) struct Control {
    data_dir: PathBuf,
    bound: Option<SocketFile>,
    listener: Option<UnixListener>,
    /// True once the log has said that there is no socket.
    is_warned: bool,
}

impl Control {
    /// Listens in the data directory, which is this scraper's. Without a socket, which is logged, all else works.
    pub(in crate::scraper) fn listen(data_dir: &Path) -> Self {
        let mut control = Self { data_dir: data_dir.to_owned(), bound: None, listener: None, is_warned: false };
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
    }

    fn bind(&mut self) {
        let file = self.data_dir.join(CONTROL_SOCKET);
        self.bound = None; // it is no more, and the next one's inode may have its number
        match SocketFile::bind(&file, MODE).and_then(|(socket, file)| Ok((UnixListener::from_std(socket)?, file))) {
            Ok((listener, file)) => {
                (self.listener, self.bound, self.is_warned) = (Some(listener), Some(file), false);
            }
            Err(error) => {
                if !mem::replace(&mut self.is_warned, true) {
                    tracing::warn!(file = %file.display(), error = %Chain(&error), "there is no control socket");
                }
            }
        }
    }

    /// True if the socket is not there, and nobody else's is.
    fn is_to_be_made(&self) -> bool {
        // A directory that was deleted is the store's to make.
        !self.bound.as_ref().is_some_and(SocketFile::is_there)
            && self.data_dir.is_dir()
            && !is_listened_on(&self.data_dir.join(CONTROL_SOCKET))
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
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_made_again_where_nobody_listens() {
        let dir = tempfile::tempdir().expect("a directory");
        let control = Control::listen(dir.path());
        assert!(control.listener.is_some() && !control.is_to_be_made());
        fs::remove_file(dir.path().join(CONTROL_SOCKET)).expect("there");
        assert!(control.is_to_be_made());
        let _other = Control::listen(dir.path());
        assert!(!control.is_to_be_made(), "another process listens there");
    }
}
