//! Unmodified exporters as metrics sources: the agent scrapes them and passes their answers on unchanged.
//!
//! An [`Exporter`] is a source for a [`Client`](crate::Client). An [`Inventory`] builds the targets of a whole agent from
//! its settings and follows changes of their files.

mod auth;
mod connection;
mod directory;
mod exporter;
mod file_sd;
mod inventory;
mod secret_file;
mod small_file;
mod spec;
mod target_file;
mod tls;
mod url;
mod verifier;

pub use auth::Auth;
pub use exporter::{Exporter, ExporterError, ExporterSettings};
pub use inventory::Inventory;
pub use secret_file::SecretFileError;
pub use spec::{SpecError, TargetSpec};
#[cfg(feature = "cli")]
pub(crate) use target_file::has_tables;
pub use target_file::{TargetFileError, parse_config, parse_targets};
pub use tls::{ClientCertificate, TlsError, TlsSettings};
pub use url::{ExporterUrl, Params, UrlError};
