//! The `metrics` facade, by its Prometheus recorder.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use futures::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;

use super::{Exposition, IntoSource, PullRequest, Source, SourceError, Text};

/// How often the values of histograms are folded.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The output of the recorder, in Prometheus's text format.
///
/// The recorder keeps every value of a histogram until the histogram is read or folded. The source sees to
/// that as long as it lives, so that a scraper that is away does not let memory grow: `run_upkeep` needs no other caller.
impl IntoSource for PrometheusHandle {
    fn into_source(self) -> Arc<dyn Source> {
        let (alive, dropped) = mpsc::channel::<()>();
        let kept_up = self.clone();
        let upkeep = move || {
            while dropped.recv_timeout(UPKEEP_EVERY) == Err(RecvTimeoutError::Timeout) {
                kept_up.run_upkeep();
            }
        };
        if let Err(error) = thread::Builder::new().name("narthex-upkeep".to_owned()).spawn(upkeep) {
            tracing::warn!(%error, "no thread for the upkeep of the metrics recorder: pulls alone do it");
        }
        Arc::new(Recorder { text: Text::new(Exposition::TEXT, move || Ok(self.render())), _alive: alive })
    }
}

struct Recorder {
    text: Text,
    /// Dropped with the source, which ends the upkeep.
    _alive: mpsc::Sender<()>,
}

impl Source for Recorder {
    fn pull(&self, request: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>> {
        self.text.pull(request)
    }
}
