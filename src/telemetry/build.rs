//! What this build was made of.

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// The package's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit, its day, and the compiler; `unknown` where the build did not know (`build.rs`).
const COMMIT: &str = env!("NARTHEX_BUILD_COMMIT");
const DATE: &str = env!("NARTHEX_BUILD_DATE");
const RUSTC: &str = env!("NARTHEX_BUILD_RUSTC");

/// The version, and what it was built of.
#[cfg(feature = "cli")]
pub(crate) const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("NARTHEX_BUILD_COMMIT"),
    ", ",
    env!("NARTHEX_BUILD_DATE"),
    ", rustc ",
    env!("NARTHEX_BUILD_RUSTC"),
    ")"
);

/// A constant gauge with this build's version.
pub(crate) fn build_info(registry: &mut Registry) {
    let build = Family::<[(&'static str, &'static str); 4], Gauge>::default();
    build.get_or_create(&[("version", VERSION), ("commit", COMMIT), ("date", DATE), ("rustc", RUSTC)]).set(1);
    registry.register("build_info", "Always 1, labelled with the version, and what it was built of", build);
}
