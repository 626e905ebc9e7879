//! Commands that run when a list changes: which command, when, and what becomes of it.
//!
//! A [`Hook`] runs its command for each list of its [`Lists`]; [`run`] runs one process: list on stdin, output to the log, an
//! end in time. No shell is started. Nothing here knows what the lists hold.

mod command;
mod every_change;
mod output;
mod run;

#[cfg(test)]
mod tests;

pub use command::{HookCommand, HookCommandError, UnusableProgram};
pub use every_change::Hook;
pub(crate) use every_change::Lists;
#[cfg(feature = "cli")]
pub(crate) use run::run;
pub(crate) use run::{Ending, RunOutcome};
