//! Tasks that a role runs beside its network: each keeps one thing as it should be, until it is stopped.

#[cfg(feature = "scraper")]
pub(crate) mod announcer;
pub(crate) mod backoff;
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) mod external;
#[cfg(feature = "node")]
pub(crate) mod followers;
pub(crate) mod following;
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) mod nodes;
#[cfg(feature = "scraper")]
pub(crate) mod proved;
#[cfg(feature = "scraper")]
mod relay;
#[cfg(feature = "scraper")]
pub(crate) mod reservations;
pub(crate) mod upgrade;
