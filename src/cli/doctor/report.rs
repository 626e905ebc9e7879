//! The doctor's output: one line per check as the check ends, or one JSON document at the end.

use anyhow::bail;
use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use serde::Serialize;

use super::super::output;
use crate::telemetry::escaped;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    /// The checked thing works, but not as well as it could, or not for everybody.
    Warning,
    Failed,
    /// The check was impossible or had nothing to check. The cause may be the failure of another check.
    Skipped,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    check: String,
    status: Status,
    /// What the check found, or why it failed.
    detail: String,
    /// What to do, if there is something to do.
    advice: Option<String>,
}

/// A running group of checks.
pub(super) type Checks<'a> = BoxFuture<'a, Vec<Check>>;

impl Check {
    pub(super) fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), status: Status::Ok, detail: detail.into(), advice: None }
    }

    pub(super) fn warning(check: impl Into<String>, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Warning, ..Self::failed(check, detail, advice) }
    }

    pub(super) fn failed(check: impl Into<String>, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = Some(advice.into());
        Self { check: check.into(), status: Status::Failed, detail: detail.into(), advice }
    }

    pub(super) fn skipped(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), status: Status::Skipped, detail: detail.into(), advice: None }
    }

    pub(super) fn is_ok(&self) -> bool {
        self.status == Status::Ok
    }

    /// The check as one line, whatever characters a peer put into the texts.
    fn line(&self) -> String {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
        };
        let advice = self.advice.as_ref().map_or(String::new(), |advice| format!(". What to do: {advice}"));
        let line = format!("{status:<7}  {}: {}{advice}", self.check, self.detail);
        escaped(&line).into_owned() + "\n"
    }
}

#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json, checks: Vec::new() }
    }

    pub(super) fn add(&mut self, check: Check) -> anyhow::Result<()> {
        if !self.json {
            output::print(check.line().as_bytes())?;
        }
        self.checks.push(check);
        Ok(())
    }

    /// Runs groups of checks at the same time, and reports them in order.
    pub(super) async fn add_all(&mut self, checks: impl IntoIterator<Item = Checks<'_>>) -> anyhow::Result<()> {
        let mut ended: FuturesOrdered<_> = checks.into_iter().collect();
        while let Some(group) = ended.next().await {
            group.into_iter().try_for_each(|check| self.add(check))?;
        }
        Ok(())
    }

    /// Ends the report.
    ///
    /// # Errors
    /// If a check failed.
    pub(super) fn end(self) -> anyhow::Result<()> {
        if self.json {
            output::print(&serde_json::to_vec_pretty(&self.checks)?)?;
            output::print(b"\n")?;
        }
        match self.checks.iter().filter(|check| check.status == Status::Failed).count() {
            0 => Ok(()),
            failed => bail!("{failed} of {} checks failed", self.checks.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_whatever_stands_in_it() {
        let check = Check::failed("exporter a", "the exporter answered\n\x1b[31mno", "ask it");
        assert_eq!(
            check.line(),
            "failed   exporter a: the exporter answered\\u000a\\u001b[31mno. What to do: ask it\n"
        );
    }

    #[test]
    fn a_skipped_check_and_a_warning_are_no_failures() {
        let mut report = Report::new(false);
        report.add(Check::skipped("key", "none given")).expect("prints");
        report.add(Check::warning("UDP", "no answer", "let it pass")).expect("prints");
        report.end().expect("no failure");
        let mut report = Report::new(false);
        report.add(Check::failed("TCP", "no answer", "let it pass")).expect("prints");
        report.end().expect_err("a failure");
    }
}
