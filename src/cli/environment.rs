//! Variables `NARTHEX_*` that no command reads: a misspelt one would else change nothing, and nobody would know.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    net::IpAddr,
};

use clap::Command;

use super::precedence::nearest;

/// What the variables of all flags begin with.
pub(super) const PREFIX: &str = "NARTHEX_";

/// What `build.rs` reads, which the shell that built this may still have set.
const OF_THE_BUILD: &str = "NARTHEX_COMMIT";

/// Refuses a variable that is set and is none of any command: several commands may share one environment.
///
/// # Errors
/// Its name, without its value, which may be private.
pub(super) fn check(command: &Command) -> Result<(), String> {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    let set = env::vars_os().filter(|(_, value)| !value.is_empty());
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let set: Set = set.map(|(name, value)| (text(name), text(value))).collect();
    set.keys().try_for_each(|name| check_name(name, &set, &known))
}

/// The variables that are set, with their values.
type Set = BTreeMap<String, String>;

fn check_name(name: &str, set: &Set, known: &BTreeSet<String>) -> Result<(), String> {
    let Some(flag) = name.strip_prefix(PREFIX) else { return Ok(()) };
    if known.contains(name) || name == OF_THE_BUILD || is_of_containers(name, set) {
        return Ok(());
    }
    let flags = || known.iter().filter_map(|known| known.strip_prefix(PREFIX));
    let begins = |known: &&str| flag.strip_prefix(*known).is_some_and(|rest| rest.starts_with('_'));
    Err(match nearest(flag, flags()).or_else(|| flags().filter(begins).max_by_key(|known| known.len())) {
        Some(near) => format!("unknown environment variable {name}, did you mean {PREFIX}{near}?"),
        None => {
            format!("unknown environment variable {name}: unset it, or name it after a flag, as NARTHEX_DATA_DIR is")
        }
    })
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(|arg| arg.get_env());
    known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    command.get_subcommands().for_each(|inner| collect(inner, known));
}

/// True for what Kubernetes sets in every pod for a Service `narthex` or `narthex-..` (Service documentation, "Environment
/// variables"), and Docker for a link of such a name ("Legacy container links"). The values tell these from misspelt variables.
fn is_of_containers(name: &str, set: &Set) -> bool {
    let value = |name: &str| set.get(name).map(String::as_str).unwrap_or_default();
    let is_link = |service: &str| {
        let port = value(&format!("{service}_PORT"));
        ["tcp://", "udp://", "sctp://"].iter().any(|scheme| port.starts_with(scheme))
    };
    let is_host = |service: &str| value(&format!("{service}_SERVICE_HOST")).parse::<IpAddr>().is_ok();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    // The service's name may have such a part itself: any of its ends will do.
    let before = |part: &str, is: &dyn Fn(&str, &str) -> bool| {
        name.match_indices(part).any(|(at, _)| is(&name[..at], &name[at + part.len()..]))
    };
    before("_SERVICE_HOST", &|service, rest| rest.is_empty() && is_host(service))
        || before("_SERVICE_PORT", &|service, rest| {
            (rest.is_empty() || rest.starts_with('_')) && is_host(service) && is_number(value(name))
        })
        || before("_PORT", &|service, rest| (rest.is_empty() || rest.starts_with('_')) && is_link(service))
        || before("_NAME", &|service, rest| rest.is_empty() && is_link(service) && value(name).starts_with('/'))
        || before("_ENV_", &|service, _| is_link(service))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    #[test]
    fn a_misspelt_variable_is_named_with_the_nearest_and_those_of_containers_are_let_be() {
        let mut known = BTreeSet::new();
        collect(&cli::command(), &mut known);
        let set = |pairs: &[(&str, &str)]| -> Set {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        for (name, value, expected) in [
            ("NARTHEX_SERVCE", "x", "unknown environment variable NARTHEX_SERVCE, did you mean NARTHEX_SERVICE?"),
            ("NARTHEX_SECRETS_FILE", "x", "did you mean NARTHEX_SECRET_FILE?"),
            ("NARTHEX_SCRAPER_KEY", "x", "did you mean NARTHEX_SCRAPER?"),
            ("NARTHEX_QWERTYUIOP", "x", "unset it, or name it after a flag"),
            ("NARTHEX_VERSION", "1.0", "NARTHEX_VERSION: unset it, or name it after a flag"),
            ("NARTHEX_HTTP_PORT", "28999", "did you mean NARTHEX_HTTP?"),
            ("NARTHEX_PORT", "19960", "NARTHEX_PORT"),
            ("NARTHEX_PORT_X", "tcp://10.0.0.1:1", "NARTHEX_PORT_X"),
            ("NARTHEX_SERVICE_HOST", "web", "did you mean NARTHEX_SERVICE?"),
            ("NARTHEX_SERVICE_PORT", "19960", "did you mean NARTHEX_SERVICE?"),
            ("NARTHEX_NAME", "/a/b", "NARTHEX_NAME"),
            ("NARTHEX_ENV_LANG", "C", "NARTHEX_ENV_LANG"),
        ] {
            let error = check_name(name, &set(&[(name, value)]), &known).expect_err(name);
            assert!(error.contains(expected), "{name}: {error}");
        }
        let all = set(&[
            ("NARTHEX_SERVICE", "web"),
            ("NARTHEX_MDNS", "true"),
            ("NARTHEX_LOG_LEVEL", "info"),
            ("NARTHEX_COMMIT", "1"),
            ("NARTHEX_SERVICE_HOST", "10.0.0.1"),
            ("NARTHEX_SERVICE_PORT", "19960"),
            ("NARTHEX_SERVICE_PORT_HTTP", "19960"),
            ("NARTHEX_PORT", "tcp://10.0.0.1:19960"),
            ("NARTHEX_PORT_19960_TCP", "tcp://10.0.0.1:19960"),
            ("NARTHEX_PORT_19960_TCP_PROTO", "tcp"),
            ("NARTHEX_SCRAPER_PORT", "udp://10.0.0.1:19961"),
            ("NARTHEX_SCRAPER_PORT_19961_UDP_ADDR", "10.0.0.1"),
            ("NARTHEX_NAME", "/web/narthex"),
            ("NARTHEX_ENV_LANG", "C"),
            ("NARTHEXX", "x"),
            ("HOME", "/"),
        ]);
        for name in all.keys() {
            assert_eq!(check_name(name, &all, &known), Ok(()), "{name}");
        }
    }
}
