//! What this build was made of.

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// The package's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit, its day, and the compiler; `unknown` where the build did not know (`build.rs`).
const COMMIT: &str = env!("BUILT_OF_COMMIT");
const DATE: &str = env!("BUILT_OF_DATE");
const RUSTC: &str = env!("BUILT_OF_RUSTC");

/// The version, and what it was built of.
#[cfg(feature = "cli")]
pub(crate) const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("BUILT_OF_COMMIT"),
    ", ",
    env!("BUILT_OF_DATE"),
    ", rustc ",
    env!("BUILT_OF_RUSTC"),
    ")"
);

/// A constant gauge with this build's version.
pub(crate) fn build_info(registry: &mut Registry) {
    let build = Family::<[(&'static str, &'static str); 4], Gauge>::default();
    build.get_or_create(&[("version", VERSION), ("commit", COMMIT), ("date", DATE), ("rustc", RUSTC)]).set(1);
    registry.register("build_info", "Always 1, labelled with the version, and what it was built of", build);
}
