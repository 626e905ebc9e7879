//! The agent's targets, read as the agent reads them: from its flags, the tables of its file, and its directories.

use super::{super::agent, report::Check};
use crate::agent::TargetSpec;

/// Every usable target, and a failed check for each problem. Blocks.
pub(super) fn read(agent: &agent::Args) -> (Vec<Check>, Vec<TargetSpec>) {
    let name = "targets";
    let mut inventory = match agent.inventory() {
        Ok(inventory) => inventory,
        Err(error) => {
            let check = Check::failed(name, format!("{error:#}"), "mend that: the agent does not start with it");
            return (vec![check], Vec::new());
        }
    };
    let (targets, problems) = inventory.survey();
    let failed = |problem| Check::failed(name, problem, "mend that; the agent registers what it can meanwhile");
    let mut checks: Vec<Check> = problems.into_iter().map(failed).collect();
    if checks.is_empty() {
        checks.push(match targets.len() {
            0 => Check::skipped(name, "there are none"),
            count => Check::ok(name, format!("{count} to register")),
        });
    }
    (checks, targets)
}
