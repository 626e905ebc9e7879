//! The `metrics` facade, by its Prometheus recorder.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusHandle;

use super::{Exposition, IntoSource, Source, Text};

/// How often the values of histograms are folded.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The output of the recorder, in Prometheus's text format.
///
/// The recorder keeps every value of a histogram until the histogram is read or folded. The source folds them as long as
/// the source lives, so that memory does not grow while no scraper pulls: `run_upkeep` needs no other caller.
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
        let write = move || {
            let _ends_the_upkeep_when_dropped = &alive;
            Ok(self.render())
        };
        Text::new(Exposition::TEXT, write).into_source()
    }
}
