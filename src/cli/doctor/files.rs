//! Key and secret files, and the data directory of a scraper.

use std::{collections::BTreeSet, path::Path};

use super::{
    super::{
        advice::advice,
        data_dir::{self, DirState},
        keys,
        ticket_input::TicketFlags,
    },
    report::Check,
};
use crate::{
    identity::{ExposedFile, KeyFileError, KeyPair, SharedSecret},
    wire::Ticket,
};

/// Checks a key file, and gives the key pair if the check passes.
pub(super) fn key(path: &Path) -> (Check, Option<KeyPair>) {
    match keys::load_key(path) {
        Ok(key) => (Check::ok("key file", format!("{} holds {}", path.display(), key.public())), Some(key)),
        Err(error) => (unfit("key file", &error), None),
    }
}

/// Checks a secret file, and gives the secret if the check passes.
pub(super) fn secret(path: &Path) -> (Check, Option<SharedSecret>) {
    match keys::load_secret(path) {
        Ok(secret) => {
            let found = format!("{} holds the shared secret of id {}", path.display(), secret.id());
            (Check::ok("secret file", found), Some(secret))
        }
        Err(error) => (unfit("secret file", &error), None),
    }
}

/// Checks a ticket, and gives it if the check passes.
pub(super) fn ticket(given: &TicketFlags) -> (Check, Option<Ticket>) {
    match given.read() {
        Ok(Some(ticket)) => {
            let scrapers: BTreeSet<_> = ticket.scrapers().iter().map(|scraper| scraper.key.to_string()).collect();
            let scrapers = scrapers.into_iter().collect::<Vec<_>>().join(", ");
            let found = format!("it is for the scraper {scrapers}, and its secret has the id {}", ticket.secret().id());
            (Check::ok("ticket", found), Some(ticket))
        }
        Ok(None) => (Check::failed("ticket", "there is none", "give --ticket-file FILE"), None),
        Err(error) => (unfit("ticket", &error), None),
    }
}

/// A failed check of a key or secret file.
fn unfit(check: &str, error: &anyhow::Error) -> Check {
    if let Some(KeyFileError::Exposed(ExposedFile { path, mode, exposure, remedy, .. })) = error.downcast_ref() {
        let found = format!("{} {exposure} (mode {mode:04o})", path.display());
        return Check::failed(check, found, format!("mend it with: {remedy}"));
    }
    let advice = advice(error).unwrap_or_else(|| "see to the file's owner and directory".to_owned());
    Check::failed(check, format!("{error:#}"), advice)
}

/// Checks whether a scraper could use its data directory, and creates nothing in it.
pub(super) fn data_dir(asked: Option<&Path>, scraper_runs: bool) -> Check {
    let name = "data directory";
    let (path, state) = match data_dir::look(asked, "scraper") {
        Ok(found) => found,
        Err(error) => return Check::failed(name, format!("{error:#}"), "give --data-dir DIR"),
    };
    let path = path.display();
    match state {
        DirState::Missing => Check::ok(name, format!("{path} is not there; the scraper makes it at its first start")),
        DirState::InUse => Check::ok(name, format!("{path} is writable and in use by a running narthex")),
        DirState::Free if scraper_runs => {
            Check::ok(name, format!("{path} is writable; the running scraper uses another: see its --data-dir"))
        }
        DirState::Free => Check::ok(name, format!("{path} is writable and not in use")),
        DirState::Unusable(error) => {
            let advice = format!("run this as the scraper's user, and make {path} that user's with mode 0700");
            Check::failed(name, format!("{path} cannot be used: {error}"), advice)
        }
    }
}
