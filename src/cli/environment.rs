//! Variables `NARTHEX_*` that no command reads: a misspelt one would else change nothing, and nobody would know.

use std::{collections::BTreeSet, env};

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
    let mut names: Vec<String> = set.map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names.iter().try_for_each(|name| check_name(name, &known))
}

fn check_name(name: &str, known: &BTreeSet<String>) -> Result<(), String> {
    if !name.starts_with(PREFIX) || known.contains(name) || name == OF_THE_BUILD || is_of_kubernetes(name) {
        return Ok(());
    }
    Err(match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("unknown environment variable {name}, did you mean {near}?"),
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
/// variables").
fn is_of_kubernetes(name: &str) -> bool {
    let ends = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|end| name.ends_with(end));
    let of_port = |(_, port): (usize, &str)| {
        let port = &port["_PORT_".len()..];
        let rest = port.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() < port.len() && ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| rest.starts_with(protocol))
    };
    ends || name.contains("_SERVICE_PORT_")
        || name.match_indices("_PORT_").map(|(at, _)| (at, &name[at..])).any(of_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    #[test]
    fn a_misspelt_variable_is_named_with_the_nearest_and_those_of_kubernetes_are_let_be() {
        let mut known = BTreeSet::new();
        collect(&cli::command(), &mut known);
        for (name, expected) in [
            ("NARTHEX_SERVCE", "unknown environment variable NARTHEX_SERVCE, did you mean NARTHEX_SERVICE?"),
            ("NARTHEX_SECRETS_FILE", "did you mean NARTHEX_SECRET_FILE?"),
            ("NARTHEX_QWERTYUIOP", "unset it, or name it after a flag"),
            ("NARTHEX_PORT_X", "NARTHEX_PORT_X"),
        ] {
            let error = check_name(name, &known).expect_err(name);
            assert!(error.contains(expected), "{name}: {error}");
        }
        for name in [
            "NARTHEX_SERVICE",
            "NARTHEX_MDNS",
            "NARTHEX_LOG_LEVEL",
            "NARTHEX_COMMIT",
            "NARTHEX_SERVICE_HOST",
            "NARTHEX_SERVICE_PORT",
            "NARTHEX_SERVICE_PORT_HTTP",
            "NARTHEX_SCRAPER_PORT",
            "NARTHEX_PORT_19960_TCP",
            "NARTHEX_SCRAPER_PORT_19961_UDP_ADDR",
            "NARTHEXX",
            "HOME",
        ] {
            assert_eq!(check_name(name, &known), Ok(()), "{name}");
        }
    }
}
