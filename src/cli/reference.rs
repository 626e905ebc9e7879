//! `docs/configuration.md`: clap gives its tables of flags, and the limits in it are compared with those of the code.
//!
//! A generated table stands between `<!-- generated: NAME -->` and `<!-- end -->`.
//! `NARTHEX_UPDATE_DOCS=1 cargo test --all-features --lib cli::reference` writes these tables anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
};

use clap::Arg;

use super::{
    command,
    defaults::{SCRAPER, bytes, duration, tests::stated},
};
use crate::{
    client::MAX_TARGETS,
    http::{HEAD_LIMIT, IDLE_LIMIT, MAX_HEAD, READER_LIMIT},
    network::{HANDSHAKE_TIMEOUT, MAX_QUIC_STREAMS, MAX_STREAMS, NetworkLimits},
    telemetry::{LabelValue, Limit},
    wire::{Alias, Announcement, Labels, Target, codec::MAX_MESSAGE_LEN},
};

/// The page with the generated tables.
const FILE: &str = "docs/configuration.md";
/// Ends a generated table.
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

/// A row of the limits states the default of its flag, and what no flag changes. Every limit with a flag has a row.
#[test]
fn the_limits_of_the_documents_are_those_of_the_code() {
    let text = fs::read_to_string(FILE).expect("docs/configuration.md");
    let rows = text.lines().skip_while(|line| !line.starts_with("| limit |")).skip(2);
    let (cli, mut fixed) = (command(), fixed_limits());
    let roles = cli.get_subcommands().filter(|command| ["scraper", "agent", "node"].contains(&command.get_name()));
    let args: Vec<&Arg> = roles.flat_map(|role| role.get_arguments()).collect();
    let mut flags = BTreeSet::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let [_, name, limit, flag, ..] = row.split('|').map(str::trim).collect::<Vec<_>>()[..] else { panic!("{row}") };
        let written = fixed.remove(name);
        assert!(written.as_ref().is_none_or(|written| written == limit), "{row}: the limit is {written:?}");
        let flag = flag.trim_matches(['`', '-']);
        let defaults = args.iter().filter(|arg| arg.get_long() == Some(flag)).map(|arg| stated(arg).concat());
        for default in defaults {
            let rest = limit.strip_prefix(&default);
            assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ';'])), "{row}: it is {default}");
            flags.insert(flag);
        }
        assert!(written.is_some() || flags.contains(flag), "{row}: which limit is that?");
    }
    assert!(fixed.is_empty(), "without a row: {fixed:?}");
    let limits = args.iter().filter(|arg| arg.get_help_heading().is_some_and(|heading| heading.starts_with("Limits")));
    let missing: Vec<_> = limits.filter_map(|arg| arg.get_long()).filter(|flag| !flags.contains(flag)).collect();
    assert!(missing.is_empty(), "without a row: {missing:?}");
}

/// The log names the setting of a limit that refuses work; its flag has the same name.
#[test]
fn each_limit_that_refuses_work_has_a_flag() {
    let cli = command();
    let args: Vec<&Arg> = cli.get_subcommands().flat_map(|role| role.get_arguments()).collect();
    for limit in Limit::ALL {
        let flag = args.iter().find(|arg| arg.get_long() == Some(&limit.setting()));
        assert!(flag.is_some(), "--{} is no flag", limit.setting());
    }
}

/// The text with every generated part made anew.
fn generated(text: &str) -> String {
    let mut parts = text.split("<!-- generated: ");
    let mut generated = parts.next().expect("a first part").to_owned();
    for part in parts {
        let (name, rest) = part.split_once(" -->").expect("a name");
        let (_, rest) = rest.split_once(END).expect("an end");
        let table = match name {
            "logging" => flags(command().get_arguments()),
            role => flags(command().find_subcommand(role).expect("a role").get_arguments()),
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
        let variable = arg.get_env().map_or_else(String::new, |name| format!("`{}`", name.to_string_lossy()));
        let key = if flag == "config" || variable.is_empty() { String::new() } else { format!("`{flag}`") };
        table + &format!("| `--{flag}{value}` | {variable} | {key} | {} | {} |\n", default(arg), meaning(arg))
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

/// The limits that no flag changes, by the names of their rows.
fn fixed_limits() -> BTreeMap<&'static str, String> {
    let (scrape, max_per_peer) = (&SCRAPER.http_limits.scrape, SCRAPER.registry.max_per_peer);
    let (margin, longest) = (duration(scrape.margin), duration(scrape.timeout_max));
    let (value, head, record) = (Labels::MAX_VALUE_LEN as u64, MAX_HEAD as u64, Announcement::MAX_LEN as u64);
    let label = format!(
        "{}; names of {} characters, values of {} without control characters",
        Labels::MAX,
        Labels::MAX_NAME_LEN,
        bytes(value)
    );
    [
        ("alias", format!("1 to {} of `A-Za-z0-9._-`, not `.` or `..`", Alias::MAX_LEN)),
        ("service, host name", format!("{} bytes, no control characters", Target::MAX_NAME_LEN)),
        ("labels of a target", format!("{label}; not `__*`, `instance`, `service`, `hostname`, `job`")),
        ("aliases of a peer", format!("{max_per_peer} (an agent sends at most {MAX_TARGETS})")),
        ("register message", format!("{}: all targets of a peer with their labels", bytes(MAX_MESSAGE_LEN as u64))),
        (
            "pull with a timeout of Prometheus",
            format!("that timeout less {margin}, or less a tenth if that is shorter; at most {longest}"),
        ),
        ("scrapes at once", scrape.max_concurrent.to_string()),
        (
            "head of an HTTP request",
            format!("{}, within {} of its first byte, or of the accept", bytes(head), duration(HEAD_LIMIT)),
        ),
        ("idle HTTP connection", format!("{} between two requests", duration(IDLE_LIMIT))),
        ("reader of an HTTP answer", format!("{} without progress; of a scrape, its own time", duration(READER_LIMIT))),
        ("handshake of a connection", duration(HANDSHAKE_TIMEOUT)),
        ("streams of a connection", format!("{MAX_STREAMS}; towards a scraper over QUIC {MAX_QUIC_STREAMS}")),
        ("records at a node", format!("{} of {}", NetworkLimits::default().announcements, bytes(record))),
    ]
    .into()
}
