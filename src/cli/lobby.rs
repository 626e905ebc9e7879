//! `narthex agent --lobby`: the agent's host takes part in the lobby of its scrapers, and answers for the whole group.

mod labels;
mod member;
mod on_change;

use std::{env, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{on_change::OnChange, value};
use crate::{
    Client,
    hook::{Ending, Hook},
    http::{HttpLimits, TokenFile, browser::without_brackets},
    identity::HostPort,
    lobby::{Bus, Host, LobbyListener, LobbyToken, NODE_EXPORTER_PORT},
    nats::{NatsConfig, NatsUrl},
    telemetry::Refusals,
};

use labels::Sources;
use member::Member;
use on_change::Changes;

/// Where lobbyd answers.
const LISTEN: (&str, u16) = ("127.0.0.1", 1313);
/// Where lobbyd looks for labels.
const LABELS_PATH: &str = "/etc/lobby/labels";
/// lobbyd's name of the runtime file.
const RUNTIME_FILE: &str = "_runtime";
/// How much longer than the agent a command may run.
const HOOK_GRACE: Duration = Duration::from_secs(2);
/// How much longer than the agent answers may be read.
const API_GRACE: Duration = Duration::from_secs(2);
/// How long a host is listed after it was last heard of, as with lobbyd.
const TTL: Duration = Duration::from_secs(30);

/// The agent's part in the lobby.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Lobby")]
pub(super) struct LobbyFlags {
    /// List this host, with its labels, among those of the scrapers' lobby, and answer Lobby's HTTP API for all of them, as
    /// lobbyd does, whose environment variables are read: HOST, PORT, TOKEN, DISABLE_API, LABELS, LABELS_PATH,
    /// RUNTIME_LABELS_FILENAME, HOSTNAME, TTL, NODE_EXPORTER_PORT, REGISTER, CALLBACK, CALLBACK_COOLDOWN
    #[arg(long, env = "NARTHEX_LOBBY")]
    lobby: bool,
    /// Where callers ask, 127.0.0.1:1313 unless $HOST and $PORT say otherwise
    #[arg(long, value_name = "HOST:PORT", requires = "lobby")]
    lobby_api: Option<HostPort>,
    /// The token that callers show in Authorization, instead of that in $TOKEN; without both none is asked for
    #[arg(long, value_name = "FILE", requires = "lobby")]
    lobby_token_file: Option<PathBuf>,
    /// A label of this host, beside those of $LABELS; repeatable
    #[arg(long, value_name = "LABEL", requires = "lobby")]
    lobby_label: Vec<String>,
    /// Tell the hosts of lobbyd's that talk over this NATS of this one, and list them, too: lobbyd's NATS_URL, nats://HOST:PORT, with
    /// further servers after commas, and after a slash the subject (lobby.discovery without one). Not needed if the scraper
    /// has --lobby-nats
    #[arg(long, env = "NARTHEX_LOBBY_NATS", value_name = "URL", requires = "lobby")]
    lobby_nats: Option<NatsUrl>,
    /// A directory of files with a label on each line, read each 10 s, instead of $LABELS_PATH or /etc/lobby/labels; the labels
    /// that come by HTTP are kept in there, too
    #[arg(long, value_name = "DIR", requires = "lobby")]
    lobby_labels_dir: Option<PathBuf>,
    #[command(flatten)]
    on_change: OnChange,
}

/// What the flags and lobbyd's variables say.
pub(super) struct Settings {
    /// None with `DISABLE_API`.
    listen: Option<HostPort>,
    nats: Option<NatsConfig>,
    token: LobbyToken,
    hostname: String,
    sources: Sources,
    ttl: Duration,
    default_port: u16,
    registers: bool,
    hook: Option<Hook>,
}

impl LobbyFlags {
    /// Checks the flags together.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.on_change.is_given() && !self.lobby {
            true => Err("--on-change runs a command with the lobby's hosts: give --lobby too".into()),
            false => Ok(()),
        }
    }

    /// The settings, if the agent is to take part. A host name that is given is its name in the lobby too.
    pub(super) fn settings(self, hostname: Option<&str>) -> anyhow::Result<Option<Settings>> {
        if !self.lobby {
            return Ok(None);
        }
        self.with(hostname, |name| env::var(name).ok().filter(|value| !value.is_empty())).map(Some)
    }

    fn with(self, hostname: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Settings> {
        let number = |name: &str, default: u64| match variable(name) {
            None => Ok(default),
            Some(text) => text.parse().with_context(|| format!("{name}={text:?} is no number")),
        };
        let truth = |name: &str, default: bool| match variable(name).as_deref() {
            None => Ok(default),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(text) => bail!("{name}={text:?} is neither true nor false"),
        };
        let port = |name: &str, default: u16| {
            u16::try_from(number(name, default.into())?).with_context(|| format!("{name} is no port"))
        };
        let host = variable("HOST").unwrap_or_else(|| LISTEN.0.into());
        let address = HostPort::new(without_brackets(&host), port("PORT", LISTEN.1)?);
        let listen = self.lobby_api.unwrap_or(address);
        let token = match (self.lobby_token_file, variable("TOKEN")) {
            (Some(path), _) => {
                let file = TokenFile::new(path);
                file.check()?;
                LobbyToken::File(file)
            }
            (None, Some(token)) => LobbyToken::Given(token.trim().to_owned()),
            (None, None) => LobbyToken::Nothing,
        };
        let own = || gethostname::gethostname().to_string_lossy().into_owned();
        let hostname = hostname.map(str::to_owned).or_else(|| variable("HOSTNAME")).unwrap_or_else(own);
        let mut given = self.lobby_label;
        given.extend(variable("LABELS").iter().flat_map(|labels| labels.split(',')).map(str::trim).map(str::to_owned));
        given.retain(|label| !label.is_empty());
        let host = Host::new(hostname, given, 0)?;
        let directory = self.lobby_labels_dir.or_else(|| variable("LABELS_PATH").map(PathBuf::from));
        let directory = directory.unwrap_or_else(|| LABELS_PATH.into());
        let runtime = directory.join(variable("RUNTIME_LABELS_FILENAME").as_deref().unwrap_or(RUNTIME_FILE));
        let callback = variable("CALLBACK").map(|command| value::command(&command));
        let callback = callback.transpose().map_err(|error| anyhow!("CALLBACK: {error}"))?;
        let cooldown = variable("CALLBACK_COOLDOWN").map(|_| number("CALLBACK_COOLDOWN", 0)).transpose()?;
        let hook: Option<Hook> = self.on_change.or(callback, cooldown.map(Duration::from_secs)).into();
        hook.iter().try_for_each(|hook| hook.command.check())?;
        let ttl = match number("TTL", TTL.as_secs())? {
            // As with lobbyd.
            0 => 60,
            ttl => ttl,
        };
        Ok(Settings {
            listen: (!truth("DISABLE_API", false)?).then_some(listen),
            nats: self.lobby_nats.map(NatsConfig::new),
            token,
            hostname: host.hostname,
            sources: Sources { given: host.labels, directory, runtime },
            ttl: Duration::from_secs(ttl.clamp(6, 86_400)),
            default_port: port("NODE_EXPORTER_PORT", NODE_EXPORTER_PORT)?,
            registers: truth("REGISTER", true)?,
            hook,
        })
    }
}

/// The host's part, with its listener bound.
pub(super) struct Lobby {
    listener: Option<LobbyListener>,
    member: Member,
    hook: Option<Hook>,
    /// The pause between two looks for a change.
    every: Duration,
}

impl Settings {
    pub(super) async fn bind(self, client: &Client) -> anyhow::Result<Lobby> {
        let Self { listen, nats, token, hostname, sources, ttl, default_port, registers, hook } = self;
        let is_open = matches!(token, LobbyToken::Nothing);
        let listener = match &listen {
            Some(listen) => {
                let bound = LobbyListener::bind(listen, token, default_port).await;
                let bound = bound.context("the lobby API cannot be served: give another address with --lobby-api")?;
                if is_open && !bound.local().ip().is_loopback() {
                    tracing::warn!(
                        lobby_api = %bound.local(),
                        "the lobby's API asks for no token: whoever reaches it changes this host's labels"
                    );
                }
                tracing::info!(lobby_api = %bound.local(), hostname, registers, "the lobby's API is answered");
                Some(bound)
            }
            None => None,
        };
        let bus = match nats {
            Some(nats) => Some(Bus::connect(&nats, ttl).await.context("--lobby-nats cannot be used")?),
            None => None,
        };
        let member = Member::new(client.lobbies(), bus, hostname, sources, ttl, registers);
        Ok(Lobby { listener, member, hook, every: ttl / 3 })
    }
}

impl Lobby {
    /// Answers, and keeps the host listed, until `stop` fires; then says goodbye.
    pub(super) async fn keep(self, stop: CancellationToken) {
        let Self { listener, member, hook, every } = self;
        let serve = async {
            if let Some(listener) = listener {
                let refusals = Arc::new(Refusals::new());
                listener.serve(member.clone(), HttpLimits::default(), refusals, stop.clone()).await;
            }
        };
        let changes = async {
            if let Some(hook) = hook {
                let end = Ending { stop: stop.clone(), grace: HOOK_GRACE };
                hook.keep(Changes::new(member.clone(), every), &end, |_| ()).await;
            }
        };
        // A reader that stalls must not keep the aliases from their release.
        let served = async {
            tokio::select! {
                () = serve => {}
                () = async { stop.cancelled().await; time::sleep(API_GRACE).await } => {}
            }
        };
        tokio::join!(served, changes, member.keep(&stop), member.keep_bus(&stop));
    }
}

/// `--lobby-api` and the others are checked by clap; this checks the values that come by lobbyd's variables.
#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        flags: LobbyFlags,
    }

    fn settings(flags: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let flags = Command::parse_from([&["narthex", "--lobby"], flags].concat()).flags;
        flags
            .with(None, |name| variables.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn lobbyds_variables_are_read_and_flags_beat_them() {
        let plain = settings(&[], &[]).expect("plain");
        assert_eq!(plain.listen, Some(HostPort::new("127.0.0.1", 1313)));
        assert_eq!((plain.ttl, plain.default_port, plain.registers), (TTL, 9100, true));
        assert_eq!(plain.sources.runtime, PathBuf::from("/etc/lobby/labels/_runtime"));
        let given = settings(
            &["--lobby-label", "x:y"],
            &[
                ("HOST", "127.0.0.2"),
                ("PORT", "1"),
                ("TOKEN", "t"),
                ("LABELS", "b, a,,b"),
                ("LABELS_PATH", "/l"),
                ("RUNTIME_LABELS_FILENAME", "r"),
                ("HOSTNAME", "h"),
                ("TTL", "0"),
                ("NODE_EXPORTER_PORT", "9"),
                ("REGISTER", "false"),
            ],
        )
        .expect("fit");
        assert_eq!(given.listen, Some(HostPort::new("127.0.0.2", 1)));
        assert!(matches!(given.token, LobbyToken::Given(token) if token == "t"));
        assert_eq!(given.sources.given, ["a", "b", "x:y"]);
        assert_eq!(given.sources.runtime, PathBuf::from("/l/r"));
        assert_eq!((given.hostname.as_str(), given.ttl.as_secs()), ("h", 60));
        assert_eq!((given.default_port, given.registers), (9, false));
        let flag = settings(&["--lobby-api", "127.0.0.3:5"], &[("PORT", "1"), ("DISABLE_API", "0")]).expect("fit");
        assert_eq!(flag.listen, Some(HostPort::new("127.0.0.3", 5)));
        assert!(settings(&[], &[("DISABLE_API", "true")]).expect("fit").listen.is_none());
        for (name, value) in [("PORT", "x"), ("PORT", "70000"), ("REGISTER", "no"), ("TTL", "-1"), ("HOSTNAME", "a b")]
        {
            assert!(settings(&[], &[(name, value)]).is_err(), "{name}={value}");
        }
    }
}
