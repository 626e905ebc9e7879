//! What a user of Prometheus, of an exporter or of another command types here, and what it is called here.

use clap::{
    Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Flags of Prometheus, its exporters and their web toolkit, and what to do instead.
const ELSEWHERE: [(&str, &str); 12] = [
    ("--web.listen-address", "use --http HOST:PORT"),
    ("--web.telemetry-path", "metrics are at /metrics"),
    ("--web.external-url", "use --advertise HOST:PORT"),
    ("--web.max-connections", "use --max-http-connections N"),
    ("--web.config.file", "for TLS and passwords put a reverse proxy before --http"),
    ("--web.enable-lifecycle", "an agent reads its targets again at SIGHUP"),
    ("--config.file", "use --config FILE, which is TOML"),
    ("--storage.tsdb.path", "use --data-dir DIR"),
    ("--storage.path", "use --data-dir DIR"),
    ("--log.level", "use --log-level LEVEL"),
    ("--log.format", "use --log-format FORMAT"),
    ("--enable-feature", "leave it out"),
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

/// The hint for an error of `narthex WORDS ..`.
pub(super) fn hint(error: &clap::Error, command: &Command, words: &[String]) -> Option<Hint> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let arg = text(ContextKind::InvalidArg)?;
    let flag = arg.split([' ', '=']).next()?;
    if error.kind() == ErrorKind::UnknownArgument {
        if let Some((_, instead)) = ELSEWHERE.iter().find(|(known, _)| flag == *known) {
            return Some(Hint::Instead(format!("{flag} is a flag of Prometheus or its exporters; here {instead}")));
        }
        let name = flag.strip_prefix("--")?;
        let has_flag = |role: &&str| {
            command
                .find_subcommand(role)
                .is_some_and(|role| role.get_arguments().any(|arg| arg.get_long() == Some(name)))
        };
        let of: Vec<String> = ROLES.into_iter().filter(has_flag).map(|role| format!("narthex {role}")).collect();
        let here = words.join(" ");
        let found = !of.is_empty() && !here.is_empty();
        return found
            .then(|| Hint::Instead(format!("{flag} is a flag of {}, not of narthex {here}", of.join(" and "))));
    }
    let port = text(ContextKind::InvalidValue)?;
    let port = port.strip_prefix(':').unwrap_or(port);
    let is_port = !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
    (is_port && LISTENING.contains(&flag)).then(|| {
        Hint::Beside(format!("a port needs a host: 127.0.0.1:{port} is this host alone, 0.0.0.0:{port} every address"))
    })
}
