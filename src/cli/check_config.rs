//! `--check-config`: reads all that a role would read, and says what it could not use. No network is asked, nothing is written.

use super::output;

/// The switch, the same for every role.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct CheckConfig {
    /// Check flags, variables and all files that they name, print ok or the errors, and end; asks no network, writes nothing
    #[arg(long = "check-config", id = "check_config")]
    pub(super) asked: bool,
}

/// The errors that were found.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<anyhow::Error>);

impl Findings {
    /// What was read, or none and a finding.
    pub(super) fn take<T>(&mut self, read: Result<T, impl Into<anyhow::Error>>) -> Option<T> {
        read.map_err(|error| self.0.push(error.into())).ok()
    }

    /// Prints `ok`, or each error on a line of its own; the last one is returned.
    pub(super) fn conclude(mut self) -> anyhow::Result<()> {
        let Some(last) = self.0.pop() else { return output::print(b"ok\n") };
        self.0.iter().for_each(output::complain);
        Err(last)
    }
}
