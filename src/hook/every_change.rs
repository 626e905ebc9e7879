//! One run for each change, with pauses.

use std::time::Duration;

use bytes::Bytes;
use tokio::time;

use super::{
    command::HookCommand,
    run::{Ending, RunOutcome, run},
};

/// A command that gets each new list on its stdin.
///
/// One process runs at once. Changes during a run, and during the `cooldown` after it, lead to one further run, with the
/// newest list.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hook {
    /// What runs.
    pub command: HookCommand,
    /// Pause between the end of a run and the next one. Default 15 s.
    pub cooldown: Duration,
    /// Longest run. The process group gets SIGTERM then, and SIGKILL 5 s later. Default 30 s.
    pub timeout: Duration,
}

/// Where a hook's lists come from.
pub(crate) trait Lists: Send {
    /// The chunks of a list.
    type List: Iterator<Item = Bytes> + Send;

    /// The newest list, as soon as it differs from the last one. A call that is given up loses no list.
    fn next(&mut self) -> impl Future<Output = Self::List> + Send;
}

impl Hook {
    /// Default of [`Hook::cooldown`].
    pub const COOLDOWN: Duration = Duration::from_secs(15);
    /// Default of [`Hook::timeout`].
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// The command with the default cooldown and timeout.
    pub fn new(command: HookCommand) -> Self {
        Self { command, cooldown: Self::COOLDOWN, timeout: Self::TIMEOUT }
    }

    /// Runs the command with each list until `end` comes, and hands each outcome to `count`.
    pub(crate) async fn keep(&self, mut lists: impl Lists, end: &Ending, count: impl Fn(RunOutcome)) {
        while let Some(list) = end.stop.run_until_cancelled(lists.next()).await {
            count(run(&self.command, self.timeout, list, end).await);
            if end.stop.run_until_cancelled(time::sleep(self.cooldown)).await.is_none() {
                return;
            }
        }
    }
}
