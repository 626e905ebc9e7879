//! Who may register what at a scraper: the secrets that it knows, and what each of them may do.
//!
//! A secret from a file may do everything. One that came with a ticket has a [`Scope`]. [`Secrets`] has both, and keeps the
//! tickets in a file; the registrar asks it for the secret that a client names, and then whether this client may use it.
//!
//! And who may read what over HTTP: a [`User`] has [`Right`]s, and may see some targets only.

mod alias_glob;
mod scope;
mod secrets;
mod ticket_file;
mod users;

pub(crate) use alias_glob::AliasGlob;
pub(crate) use scope::Scope;
pub use secrets::IssueError;
pub(crate) use secrets::{Grant, Refused, Secrets};
pub use ticket_file::TicketFileError;
pub(crate) use ticket_file::{IssuedTicket, TICKET_FILE};
pub(crate) use users::{Right, TargetScope, User, UserFile};
