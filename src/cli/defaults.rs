//! The defaults that flags show. The library's configs hold each number, and none is repeated here.

use std::{sync::LazyLock, time::Duration};

use crate::{KeyPair, ScraperConfig};

/// A scraper without any setting. Its key is never used.
pub(super) static SCRAPER: LazyLock<ScraperConfig> =
    LazyLock::new(|| ScraperConfig::new(KeyPair::generate(), Vec::new(), ""));

/// The HTTP side of a scraper with default settings on this host, for a command that asks one.
pub(super) fn scraper_url() -> String {
    format!("http://{}", SCRAPER.http)
}

/// A duration as users write one: in the largest unit that leaves a whole number.
pub(super) fn duration(span: Duration) -> String {
    let millis = span.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let (unit, name) =
        units.into_iter().find(|(unit, _)| millis.is_multiple_of(*unit) && millis >= *unit).unwrap_or((1, "ms"));
    format!("{}{name}", millis / unit)
}

/// A number of bytes as users write one, `64MiB`.
pub(super) fn bytes(count: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let (unit, name) =
        units.into_iter().find(|(unit, _)| count.is_multiple_of(*unit) && count >= *unit).unwrap_or((1, ""));
    format!("{}{name}", count / unit)
}

/// The help of a flag whose default must stay out of clap, because the command asks whether the flag was given.
pub(super) fn help(text: &str, default: impl std::fmt::Display) -> String {
    format!("{text} [default: {default}]")
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use clap::{Arg, CommandFactory, Parser};

    use super::*;
    use crate::{
        Client, NodeConfig, PeerAddr, SharedSecret,
        access::NamedSecret,
        cli::{Cli, Command},
        identity,
        network::RelayLimits,
    };

    /// Flags whose default is no value but a rule, which their help describes.
    const RULES: [&str; 7] =
        ["advertise", "data-dir", "hostname", "http", "key", "max-aliases-per-secret", "max-secret-bytes"];

    /// Files that the roles ask for, and the settings that the library would take from them without any flag.
    struct Files {
        dir: tempfile::TempDir,
        key: KeyPair,
        secret: SharedSecret,
        scraper: PeerAddr,
    }

    impl Files {
        fn new() -> Self {
            let files = Self {
                dir: tempfile::tempdir().expect("temporary directory"),
                key: KeyPair::from_seed(&[1; 32]),
                secret: SharedSecret::from_bytes([2; 32]),
                scraper: PeerAddr::at(KeyPair::from_seed(&[3; 32]).public(), "127.0.0.1", 1),
            };
            identity::create_key(&files.path("key"), &files.key).expect("writes");
            identity::create_secret(&files.path("secret"), &files.secret).expect("writes");
            files
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.dir.path().join(name)
        }

        /// Every field of the config that a role gets from `narthex ROLE` with the flags that the role requires, and `more`.
        fn flags_give(&self, role: &str, more: &[String]) -> String {
            let text = |path: &Path| path.to_str().expect("text").to_owned();
            let mut args = vec!["narthex".to_owned(), role.to_owned()];
            args.extend([
                "--key".to_owned(),
                text(&self.path("key")),
                "--data-dir".to_owned(),
                text(&self.path("data")),
            ]);
            if role != "node" {
                args.extend(["--secret-file".to_owned(), text(&self.path("secret"))]);
            }
            if role == "agent" {
                args.extend(["--scraper".to_owned(), self.scraper.to_string()]);
            }
            let cli = Cli::try_parse_from(args.iter().chain(more)).expect("flags that clap takes");
            match cli.command {
                Command::Scraper(args) => format!("{:#?}", args.settings().expect("settings")),
                Command::Agent(args) => format!("{:#?}", args.settings().expect("settings").0),
                Command::Node(args) => format!("{:#?}", args.settings().expect("settings").0),
                _ => unreachable!("no role"),
            }
        }

        /// Every field of the config that the library has for that role.
        fn library_gives(&self, role: &str, relay: bool) -> String {
            let (key, secret) = (self.key.clone(), self.secret.clone());
            match role {
                "scraper" => {
                    // Flags call a secret as its file is called.
                    let named = NamedSecret::new("secret".parse().expect("a name"), secret.clone());
                    let config = ScraperConfig::new(key, vec![secret], self.path("data"));
                    format!("{:#?}", ScraperConfig { secrets: vec![named], ..config })
                }
                "agent" => {
                    format!("{:#?}", Client::builder(self.scraper.clone(), secret).key(key).data_dir(self.path("data")))
                }
                _ => {
                    let relay = relay.then(RelayLimits::default);
                    format!("{:#?}", NodeConfig { relay, ..NodeConfig::new(key) })
                }
            }
        }
    }

    #[test]
    fn a_role_without_flags_has_the_librarys_defaults() {
        let files = Files::new();
        for role in ["scraper", "agent", "node"] {
            assert_eq!(files.flags_give(role, &[]), files.library_gives(role, false), "{role}");
        }
        assert_eq!(files.flags_give("node", &["--relay".into()]), files.library_gives("node", true));
    }

    /// The text of each default in the help, given as a flag, changes no field.
    #[test]
    fn the_help_of_each_flag_states_the_default_that_holds() {
        let files = Files::new();
        let mut rules = std::collections::BTreeSet::new();
        for role in ["scraper", "agent", "node"] {
            let command = Cli::command();
            let command = command.find_subcommand(role).expect("a role");
            for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
                let flag = arg.get_long().expect("a flag");
                let defaults = stated(arg);
                if defaults.is_empty() {
                    continue;
                } else if arg.get_default_values().is_empty() && RULES.contains(&flag) {
                    rules.insert(flag.to_owned());
                    continue;
                }
                let relay = flag.starts_with("relay-").then(|| "--relay".to_owned());
                let given = defaults.iter().map(|value| format!("--{flag}={value}")).chain(relay.clone());
                let given = files.flags_give(role, &given.collect::<Vec<_>>());
                assert_eq!(given, files.library_gives(role, relay.is_some()), "{role} --{flag} {defaults:?}");
            }
        }
        assert!(rules.iter().eq(RULES), "{rules:?}");
    }

    /// The defaults in the help of a flag.
    pub(in crate::cli) fn stated(arg: &Arg) -> Vec<String> {
        let help = arg.get_help().expect("help").to_string();
        let in_help = help.split_once("[default: ").map(|(_, rest)| rest.trim_end_matches(']').to_owned());
        let values = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
        values.chain(in_help).collect()
    }

    #[test]
    fn durations_and_sizes_are_written_as_flags_are() {
        use crate::cli::value;
        for (span, text) in [(0, "0ms"), (500, "500ms"), (60_000, "1m"), (90_000, "90s"), (86_400_000, "24h")] {
            let span = Duration::from_millis(span);
            assert_eq!(duration(span), text);
            assert_eq!(value::duration_or_zero(text), Ok(span));
        }
        for (count, text) in [(1, "1"), (2048, "2KiB"), (64 << 20, "64MiB"), (16 << 30, "16GiB"), (1500, "1500")] {
            assert_eq!(bytes(count), text);
            assert_eq!(value::bytes(text), Ok(count));
        }
    }
}
