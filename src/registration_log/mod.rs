//! The registration log: who took which alias when, by which secret, and why it ended, so that it can be checked later.
//!
//! Files of JSON lines in one directory of the scraper. Each line has the hash of the one before; every few seconds in which something was
//! written a *head* is, a line that the scraper's key has signed. A line that is changed, left out, added or moved is found by
//! whoever reads the files, without the scraper; what was cut off at the end is found by who remembers a head.
//!
//! - `entry`: a line, its hash, its signature.
//! - `files`: the files of a directory in their order, and their lines.
//! - `keeper`: writes them, for the registry's writer.
//! - `verify`: reads them all and says whether they belong together.

mod entry;
mod files;
mod keeper;
#[cfg(any(test, feature = "cli"))]
mod verify;

#[cfg(feature = "cli")]
pub(crate) use entry::{Entry, Hash, What};
#[cfg(feature = "cli")]
pub(crate) use files::LogFiles;
pub(crate) use keeper::{AddressKind, Keeper, LogCounts, Resolve};
#[cfg(feature = "cli")]
pub(crate) use verify::{Verified, VerifyError, each_line, verify};

/// The directory's name in the data directory.
pub(crate) const LOG_DIR: &str = "registrations";
