//! A service that links the client, as a process of its own, so that it can be killed.
//!
//! It is the test binary itself, started again for one ignored test that calls [`run`]: see `tests/prometheus/main.rs`.

use std::{convert::Infallible, env, path::Path, process::Command};

use narthex::{
    Client,
    identity::{self, PeerAddr},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{fleet::Fleet, process::Process};

const ALIAS: &str = "TEST_SERVICE_ALIAS";
const SCRAPER: &str = "TEST_SERVICE_SCRAPER";
const SECRET_FILE: &str = "TEST_SERVICE_SECRET_FILE";

/// Starts the test binary's ignored test `linked_service` as a service with this alias.
#[track_caller]
pub(crate) fn spawn(fleet: &Fleet, alias: &str, scraper: &PeerAddr) -> Process {
    let mut command = Command::new(env::current_exe().expect("the test binary has a path"));
    command.args(["--exact", "linked_service", "--ignored", "--nocapture"]);
    command.env(ALIAS, alias).env(SCRAPER, scraper.to_string()).env(SECRET_FILE, fleet.secret_file());
    Process::spawn(&format!("service-{alias}"), fleet.path(), &mut command)
}

/// The service: one gauge, a label `region`, until SIGTERM. Does nothing when it was not started by [`spawn`].
pub(crate) fn run() {
    let Ok(alias) = env::var(ALIAS) else { return };
    let scraper: PeerAddr = env::var(SCRAPER).expect("set by spawn").parse().expect("a peer");
    let secret_file = env::var_os(SECRET_FILE).expect("set by spawn");
    let secret = identity::load_secret(Path::new(&secret_file)).expect("a secret");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut asked_to_end = signal(SignalKind::terminate()).expect("signals can be awaited");
        let client = Client::builder(scraper, secret)
            .alias(&alias)
            .service("web")
            .label("region", "eu")
            .metrics(|| Ok::<_, Infallible>("# TYPE orders_open gauge\norders_open 42\n".to_owned()))
            .start()
            .await
            .expect("the client starts");
        asked_to_end.recv().await;
        client.shutdown().await;
    });
}
