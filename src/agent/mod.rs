//! Unmodified exporters as metrics sources: the agent scrapes them and passes their answers on unchanged.
//!
//! An [`Exporter`] is a source for a [`Client`](crate::Client). The `narthex` command adds the inventory: it builds the
//! targets of a whole agent from its settings and follows changes of their files.

mod answer;
mod auth;
mod begun;
mod connection;
#[cfg(feature = "cli")]
mod directory;
mod exporter;
#[cfg(feature = "cli")]
mod file_sd;
#[cfg(all(any(fuzzing, test), feature = "cli"))]
pub(crate) mod fuzzing;
#[cfg(feature = "cli")]
mod inventory;
#[cfg(feature = "cli")]
mod spec;
#[cfg(feature = "cli")]
mod target_file;
mod tls;
mod url;
mod verifier;

pub use crate::secret_file::SecretFileError;
#[cfg(feature = "cli")]
pub(crate) use answer::{Answer, Beginning, has_known_type};
pub use auth::Auth;
pub use exporter::{Exporter, ExporterError, ExporterSettings};
pub use tls::{ClientCertificate, TlsError, TlsSettings};
pub use url::{ExporterUrl, Params, UrlError};
#[cfg(feature = "cli")]
pub(crate) use {
    auth::{basic, credentials},
    inventory::Inventory,
    spec::TargetSpec,
    target_file::{TargetFileError, has_tables},
    tls::Tls,
};
