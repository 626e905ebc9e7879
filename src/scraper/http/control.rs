//! The control socket: what a scraper answers to its owner alone.
//!
//! HTTP on a Unix socket in the data directory, which nobody else may enter.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use tokio::{net::UnixListener, task};
use tokio_util::sync::CancellationToken;

use crate::{
    http::text,
    registry::{Registry, backup},
    telemetry::Chain,
};

/// The socket's name in the data directory.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";
/// Where the socket answers with an export.
pub(crate) const EXPORT_PATH: &str = "/v1/export";
const ENDPOINTS: &str = "GET /v1/export   the table of aliases, as narthex import reads it\n";

/// A socket that is listened on; its file goes with it.
pub(in crate::scraper) struct Control {
    listener: UnixListener,
    file: PathBuf,
}

impl Control {
    /// Listens in the data directory, which is this scraper's. Without a socket, which is logged, all else works.
    pub(in crate::scraper) fn listen(data_dir: &Path) -> Option<Self> {
        let file = data_dir.join(CONTROL_SOCKET);
        let listen = || {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {} // of a process that was killed
            }
            let listener = UnixListener::bind(&file)?;
            fs::set_permissions(&file, Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        match listen() {
            Ok(listener) => Some(Self { listener, file }),
            Err(error) => {
                tracing::warn!(file = %file.display(), error = %Chain(&error), "there is no control socket");
                None
            }
        }
    }

    /// Answers until `stop` fires.
    pub(in crate::scraper) async fn serve(self, registry: Registry, stop: CancellationToken) {
        let router = Router::new()
            .route(EXPORT_PATH, get(export))
            .fallback(async || text::not_found(ENDPOINTS))
            .method_not_allowed_fallback(text::method_not_allowed)
            .with_state(registry);
        let served = axum::serve(self.listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::warn!(error = %Chain(&error), "the control socket failed");
        }
        let _ = fs::remove_file(self.file); // the next start would remove it
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
        backup::write(&snapshot.leases, SystemTime::now(), &mut lines).map(|()| lines)
    });
    match written.await {
        Ok(Ok(lines)) => ([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response(),
        _ => text::line(StatusCode::INTERNAL_SERVER_ERROR, "the table cannot be written as text"),
    }
}
