//! What a user of Prometheus, of an exporter or of another command types here, and what it is called here.

use std::{borrow::Cow, ffi::OsString};

use clap::{
    Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Flags of Prometheus, its exporters and their web toolkit; the flag of ours that a command must have for what is said then; and
/// what to do instead.
const ELSEWHERE: [(&str, Option<&str>, &str); 15] = [
    ("--web.listen-address", Some("http"), "use --http HOST:PORT"),
    (
        "--web.listen-address",
        Some("targets-dir"),
        "an agent serves no metrics, its scraper asks over the link: leave it out",
    ),
    ("--web.telemetry-path", Some("http"), "metrics are at /metrics"),
    ("--web.external-url", Some("advertise"), "use --advertise HOST:PORT"),
    ("--web.route-prefix", Some("http"), "let a reverse proxy before --http take the prefix away"),
    ("--web.max-connections", Some("max-http-connections"), "use --max-http-connections N"),
    ("--web.config.file", Some("http"), "for TLS and passwords put a reverse proxy before --http"),
    ("--web.enable-lifecycle", None, "leave it out: it is a flag of narthex scraper"),
    ("--config.file", Some("config"), "use --config FILE, which is TOML"),
    ("--storage.tsdb.path", Some("data-dir"), "use --data-dir DIR"),
    ("--storage.path", Some("data-dir"), "use --data-dir DIR"),
    (
        "--storage.tsdb.retention.time",
        Some("retention"),
        "leave it out, as no samples are kept; --retention is how long a lapsed alias stays listed",
    ),
    ("--log.level", Some("log-level"), "use --log-level LEVEL"),
    ("--log.format", Some("log-format"), "use --log-format FORMAT"),
    ("--enable-feature", None, "leave it out"),
];

/// Flags of an address that is listened on.
const LISTENING: [&str; 5] = ["--http", "--listen", "--listen-ws", "--lobby-api", "--registration-api"];
/// The commands whose flags are taken for those of another one.
const ROLES: [&str; 3] = ["scraper", "agent", "node"];

/// What to say of an error of clap.
pub(super) enum Hint {
    /// In the place of its message, whose tip would mislead.
    Instead(String),
    /// After its message.
    Beside(String),
}

/// The hint for an error of `narthex WORDS ..`, whose arguments are `args`.
pub(super) fn hint(error: &clap::Error, command: &Command, words: &[String], args: &[OsString]) -> Option<Hint> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let arg = text(ContextKind::InvalidArg)?;
    let given = arg.split([' ', '=']).next()?;
    if error.kind() == ErrorKind::UnknownArgument {
        let whole = with_one_dash(given, args);
        let flag = whole.as_ref().map_or(Cow::Borrowed(given), |whole| Cow::Owned(format!("-{whole}")));
        let shown = whole.as_deref().unwrap_or(given);
        return instead(&flag, shown, command, words).map(Hint::Instead);
    }
    let port = text(ContextKind::InvalidValue)?;
    let port = port.strip_prefix(':').unwrap_or(port);
    let is_port = !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
    (is_port && LISTENING.contains(&given)).then(|| {
        Hint::Beside(format!("a port needs a host: 127.0.0.1:{port} is this host alone, 0.0.0.0:{port} every address"))
    })
}

/// What to say of a flag that the command does not have, `shown` as it was typed.
fn instead(flag: &str, shown: &str, command: &Command, words: &[String]) -> Option<String> {
    let name = flag.strip_prefix("--")?;
    let here = words.join(" ");
    let own = words.iter().try_fold(command, |command, word| command.find_subcommand(word))?;
    // Flags of the whole command are in none of its subcommands yet.
    let has_here = |name: &str| has(own, name) || has(command, name);
    let mut known = ELSEWHERE.iter().filter(|(known, ..)| flag == *known);
    if let Some((.., instead)) = known.find(|(_, needed, _)| needed.is_none_or(has_here)) {
        return Some(format!("{shown} is a flag of Prometheus or its exporters; here {instead}"));
    }
    // None of ours has a dot.
    if name.contains('.') {
        let command = format!("narthex {here}");
        let nothing = format!("{} has nothing like it: leave it out", command.trim_end());
        return Some(format!("{shown} is a flag of Prometheus or its exporters; {nothing}"));
    }
    if shown != flag && has_here(name) {
        return Some(format!("{shown} needs two dashes: {flag}"));
    }
    let has_flag = |role: &&str| command.find_subcommand(role).is_some_and(|role| has(role, name));
    let of: Vec<String> = ROLES.into_iter().filter(has_flag).map(|role| format!("narthex {role}")).collect();
    let found = !of.is_empty() && !here.is_empty();
    found.then(|| format!("{shown} is a flag of {}, not of narthex {here}", of.join(" and ")))
}

fn has(command: &Command, name: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_long() == Some(name))
}

/// The flag with one dash, as Go's `flag` takes it, of which clap has read the first letter.
fn with_one_dash(letter: &str, args: &[OsString]) -> Option<String> {
    let is_letter = letter.len() == 2 && !letter.starts_with("--");
    let mut texts = args.iter().filter_map(|arg| arg.to_str()).filter(|_| is_letter);
    let whole = texts.find(|text| text.starts_with(letter) && text.len() > letter.len())?;
    Some(whole.split('=').next()?.to_owned())
}
