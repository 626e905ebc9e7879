//! `--on-change`: a command that gets each new list.

use std::time::Duration;

use super::{defaults, value};
use crate::scraper::{Hook, HookCommand};

/// The command and its times.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct OnChange {
    /// A command that gets the list on its stdin, at the start and at each change: a scraper's as /sd answers it, that of an
    /// agent with --lobby as /v1/discoveries. No shell runs it: words are split as in a shell, 'two words' are one, and $HOME,
    /// |, > and ; mean nothing
    #[arg(long, value_name = "COMMAND", value_parser = value::command)]
    on_change: Option<HookCommand>,
    /// Pause after a run; changes meanwhile lead to one further run, with the newest list
    #[arg(
        long, value_name = "DURATION", value_parser = value::duration_or_zero,
        default_value = defaults::duration(Hook::COOLDOWN)
    )]
    on_change_cooldown: Duration,
    /// Longest run; the command and its children get SIGTERM then, and SIGKILL 5 s later
    #[arg(
        long, value_name = "DURATION", value_parser = value::duration,
        default_value = defaults::duration(Hook::TIMEOUT)
    )]
    on_change_timeout: Duration,
}

impl OnChange {
    /// With the command of lobbyd's variables, if no flag gives one.
    pub(super) fn or(mut self, command: Option<HookCommand>, cooldown: Option<Duration>) -> Self {
        if self.on_change.is_none() {
            self.on_change = command;
            self.on_change_cooldown = cooldown.unwrap_or(self.on_change_cooldown);
        }
        self
    }

    pub(super) fn is_given(&self) -> bool {
        self.on_change.is_some()
    }
}

impl From<OnChange> for Option<Hook> {
    fn from(flags: OnChange) -> Self {
        let mut hook = Hook::new(flags.on_change?);
        (hook.cooldown, hook.timeout) = (flags.on_change_cooldown, flags.on_change_timeout);
        Some(hook)
    }
}
