//! `docs/configuration.md`: its tables come from clap and from the library's configs.
//!
//! A table stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything else in the file is written by hand.
//! `NARTHEX_UPDATE_DOCS=1 cargo test --all-features --lib cli::reference` writes the tables anew.

use std::{env, fmt::Display, fs};

use clap::{Arg, CommandFactory};

use super::{
    Cli,
    defaults::{self, SCRAPER, tests::stated},
};
use crate::{
    client::MAX_TARGETS,
    http::{HEAD_LIMIT, IDLE_LIMIT, MAX_HEAD, READER_LIMIT},
    network::{
        HANDSHAKE_TIMEOUT, MAX_PULL_STREAMS, MAX_QUIC_STREAMS, MAX_STREAMS, NetworkLimits, NetworkRole, max_handshakes,
    },
    wire::{Alias, Announcement, Labels, Target, codec::MAX_MESSAGE_LEN},
};

const FILE: &str = "docs/configuration.md";
const END: &str = "<!-- end -->";

#[test]
fn the_tables_of_the_documents_are_those_of_the_code() {
    let written = fs::read_to_string(FILE).expect("docs/configuration.md");
    let generated = generated(&written);
    if env::var_os("NARTHEX_UPDATE_DOCS").is_some() {
        return fs::write(FILE, generated).expect("docs/configuration.md is written");
    }
    let differing = written.lines().zip(generated.lines()).find(|(written, generated)| written != generated);
    assert!(
        written == generated,
        "docs/configuration.md is out of date (NARTHEX_UPDATE_DOCS=1 writes it): {differing:#?}"
    );
}

#[test]
fn each_limit_that_has_a_flag_stands_in_the_table() {
    let table = limits();
    for role in ROLES {
        let command = Cli::command();
        let limits = command.find_subcommand(role).expect("a role").get_arguments();
        for arg in limits.filter(|arg| arg.get_help_heading().is_some_and(|heading| heading.starts_with("Limits"))) {
            let flag = format!("`--{}`", arg.get_long().expect("a flag"));
            assert!(table.contains(&flag), "{role} {flag} is not in the table of limits");
        }
    }
}

const ROLES: [&str; 3] = ["scraper", "agent", "node"];

/// The text with every generated part made anew.
fn generated(text: &str) -> String {
    let mut parts = text.split("<!-- generated: ");
    let mut generated = parts.next().expect("a first part").to_owned();
    for part in parts {
        let (name, rest) = part.split_once(" -->").expect("a name");
        let (_, rest) = rest.split_once(END).expect("an end");
        let table = match name {
            "limits" => limits(),
            "logging" => flags(Cli::command().get_arguments()),
            role => flags(Cli::command().find_subcommand(role).expect("a role").get_arguments()),
        };
        generated += &format!("<!-- generated: {name} -->\n\n{table}\n{END}{rest}");
    }
    generated
}

fn flags<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let head = "| flag | variable | TOML key | default | meaning |\n|---|---|---|---|---|\n".to_owned();
    args.fold(head, |table, arg| {
        let flag = arg.get_long().expect("a flag");
        let value = arg.get_value_names().and_then(|names| names.first()).map(|name| format!(" {name}"));
        let value = value.filter(|_| arg.get_action().takes_values()).unwrap_or_default();
        let variable = arg.get_env().expect("a variable").to_string_lossy();
        let key = if flag == "config" { String::new() } else { format!("`{flag}`") };
        table + &format!("| `--{flag}{value}` | `{variable}` | {key} | {} | {} |\n", default(arg), meaning(arg))
    })
}

fn default(arg: &Arg) -> String {
    match stated(arg) {
        _ if arg.is_required_set() => "required".to_owned(),
        _ if !arg.get_action().takes_values() => "`false`".to_owned(),
        values if arg.get_default_values().is_empty() => values.concat(),
        values if values == [""] => String::new(),
        values => format!("`{}`", values.join("`, `")),
    }
}

/// The help without its default, and what each possible value means.
fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().expect("help").to_string();
    let help = help.split_once(" [default: ").map_or(help.as_str(), |(help, _)| help).replace('|', "\\|");
    let values = arg.get_possible_values().into_iter().filter(|_| arg.get_action().takes_values());
    let values: Vec<String> =
        values.filter_map(|value| Some(format!("`{}`: {}", value.get_name(), value.get_help()?))).collect();
    [help].into_iter().chain(values).collect::<Vec<_>>().join(". ")
}

/// A limit with a flag: its default is that of the flag at `role`.
fn flagged(what: &str, role: &str, flag: &str, note: &str, beyond: &str) -> String {
    let command = Cli::command();
    let mut flags = command.find_subcommand(role).expect("a role").get_arguments();
    let arg = flags.find(|arg| arg.get_long() == Some(flag)).expect("a flag");
    row(what, &format!("{}{note}", stated(arg).concat()), &format!("`--{flag}`"), beyond)
}

/// A limit that no flag changes.
fn fixed(what: &str, limit: impl Display, beyond: &str) -> String {
    row(what, &limit.to_string(), "", beyond)
}

fn row(what: &str, limit: &str, flag: &str, beyond: &str) -> String {
    format!("| {what} | {limit} | {flag} | {beyond} |\n")
}

fn limits() -> String {
    let scrape = &SCRAPER.http_limits.scrape;
    let (margin, longest) = (defaults::duration(scrape.margin), defaults::duration(scrape.timeout_max));
    let rows = [
        "| limit | default | flag | beyond it |\n|---|---|---|---|\n".to_owned(),
        fixed(
            "alias",
            format!("1 to {} of `A-Za-z0-9._-`, not `.` or `..`", Alias::MAX_LEN),
            "the scraper refuses the registration: `invalid`",
        ),
        fixed(
            "service, host name",
            format!("{} bytes, no control characters", Target::MAX_NAME_LEN),
            "the client refuses to start",
        ),
        fixed(
            "labels of a target",
            format!(
                "{}; names of {} characters, values of {}; not `__*`, `instance`, `service`, `hostname`, `job`",
                Labels::MAX,
                Labels::MAX_NAME_LEN,
                defaults::bytes(Labels::MAX_VALUE_LEN as u64)
            ),
            "the scraper refuses the registration: `invalid`",
        ),
        flagged(
            "aliases of a peer",
            "scraper",
            "max-aliases-per-peer",
            &format!(" (an agent sends at most {MAX_TARGETS})"),
            "the scraper refuses the whole registration",
        ),
        flagged("aliases in the table, with lapsed ones", "scraper", "max-aliases", "", "the scraper refuses: `full`"),
        flagged(
            "registrations of a peer",
            "scraper",
            "max-registration-rate",
            " a second",
            "the scraper asks the peer to slow down",
        ),
        flagged("register handshake", "scraper", "handshake-timeout", "", "the scraper ends it, counted `timeout`"),
        fixed(
            "register message",
            format!("{}: all targets of a peer with their labels", defaults::bytes(MAX_MESSAGE_LEN as u64)),
            "a client or agent refuses such targets itself, and keeps those that it has",
        ),
        flagged("pull without a timeout of Prometheus", "scraper", "pull-timeout", "", "504"),
        fixed(
            "pull with a timeout of Prometheus",
            format!("that timeout less {margin}, or less a tenth if that is shorter; at most {longest}"),
            "504",
        ),
        flagged(
            "exposition at a scraper, as it travels",
            "scraper",
            "max-body",
            "",
            "502 if the length is known before, else the scraper cuts the body",
        ),
        flagged(
            "exposition at an agent, as the exporter sends it",
            "agent",
            "max-body",
            "",
            "502 if the length is known before, else the agent cuts the body",
        ),
        fixed("pulls of one peer at once", MAX_PULL_STREAMS, "further ones wait"),
        fixed("scrapes at once", scrape.max_concurrent, "503"),
        fixed(
            "head of an HTTP request",
            format!(
                "{}, within {} of its first byte",
                defaults::bytes(MAX_HEAD as u64),
                defaults::duration(HEAD_LIMIT)
            ),
            "431, or the connection is closed",
        ),
        fixed("idle HTTP connection", defaults::duration(IDLE_LIMIT), "closed"),
        fixed(
            "reader of an HTTP answer",
            format!("{} without progress", defaults::duration(READER_LIMIT)),
            "the connection is closed",
        ),
        fixed("HTTP connections", SCRAPER.http_limits.max_connections, "further ones wait to be accepted"),
        flagged("peer-to-peer connections", "scraper", "max-connections", "", "refused"),
        flagged(".. of one peer", "scraper", "max-connections-per-peer", "", "refused"),
        flagged(
            ".. from one IPv4 address, or IPv6 /64",
            "scraper",
            "max-connections-per-ip",
            "; private, link-local and loopback addresses have no limit",
            "refused before the handshake",
        ),
        fixed(
            "connections in their handshake",
            format!("{}; {} each", max_handshakes(NetworkRole::Scraper), defaults::duration(HANDSHAKE_TIMEOUT)),
            "refused before any work; clients come back with jittered backoff",
        ),
        fixed(
            "streams of a connection",
            format!("{MAX_STREAMS} over TCP and WebSocket, {MAX_QUIC_STREAMS} over QUIC"),
            "refused",
        ),
        fixed(
            "records at a node",
            format!("{} of {}", NetworkLimits::default().announcements, defaults::bytes(Announcement::MAX_LEN as u64)),
            "the node forgets the record that expires first",
        ),
        flagged(
            "relay: peers that others reach through it",
            "node",
            "relay-reservations",
            "",
            "newcomers are refused, holders renew",
        ),
        flagged("relay: circuits at once", "node", "relay-circuits", "", "refused"),
        flagged("relay: circuits at once that one key opens", "node", "relay-circuits-per-peer", "", "refused"),
        flagged(
            "relay: life of a circuit",
            "node",
            "relay-circuit-duration",
            "",
            "the circuit ends once it is idle; its ends build another",
        ),
        flagged(
            "relay: bytes of a circuit, both directions together",
            "node",
            "relay-circuit-bytes",
            "",
            "the circuit ends and so does a scrape in it; the next scrape has a new circuit",
        ),
    ];
    rows.concat()
}
