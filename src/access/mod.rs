//! Who may register what at a scraper: the secrets that it knows, the keys that may use them, and what each of them may do.
//!
//! A secret from a file, or one that came with a ticket, has a [`Scope`]. [`Secrets`] has both kinds, and keeps the tickets in
//! files. [`PeerRules`] say which keys may register. [`Policy`] puts them together: the registrar asks it for the secret that a
//! client names, then whether this client may use it, and the enforcement what of the table is still allowed.
//!
//! And who may read what over HTTP: a [`User`] has [`Right`]s, and may see some targets only.

mod alias_glob;
mod alias_policy;
mod name;
mod named_secret;
mod peer_file;
mod peer_rules;
mod policy;
mod scope;
mod secret_ids;
mod secrets;
mod ticket_files;
mod users;

pub(crate) use alias_glob::AliasGlob;
pub use alias_policy::{AliasPolicy, AliasPolicyError};
pub use name::{SecretName, SecretNameError};
pub use named_secret::NamedSecret;
pub(crate) use peer_file::PeerFile;
pub use peer_file::PeerFileError;
pub use peer_rules::PeerRulesError;
pub(crate) use peer_rules::{PeerRules, Rule};
pub(crate) use policy::{Ended, Policy};
pub(crate) use scope::{Quota, Scope};
pub(crate) use secrets::{Grant, MAX_KEYS, Refused, Secrets, detached};
pub use secrets::{IssueError, UnfitSecrets};
pub(crate) use ticket_files::IssuedTicket;
pub use ticket_files::TicketFileError;
pub(crate) use users::{Right, TargetScope, User, UserFile};

/// What is kept of these in a data directory.
#[cfg(feature = "cli")]
pub(crate) const FILES: [&str; 3] = [peer_file::PEER_FILE, secret_ids::SECRET_IDS, ticket_files::TICKET_DIR];
