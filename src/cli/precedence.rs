//! Flags beat the environment, which beats the `--config` file.
//!
//! The values of the file become the *defaults* of the flags before clap parses them. So clap decides the precedence, each
//! value passes the same parser wherever it was written, and a key of the file is the name of a flag. For this narthex
//! reads the command line twice: first without any check, to find the subcommand and the file, then for good.
//!
//! A relative path in the file starts at the file's directory, as Prometheus has it, and not where narthex was started.
//!
//! Clap lacks two rules for the environment, which are here: an empty variable counts as unset, and one variable holds a
//! whole list, separated by commas. A flag is repeated instead, so that its value may have commas.

use std::{
    any::TypeId,
    collections::BTreeMap,
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, Command, builder::Resettable, value_parser};
use zeroize::Zeroizing;

use super::{output, secret_tables::SecretTables};
use crate::{
    agent::{self, Inventory, TargetFileError},
    scraper::HookCommand,
    small_file,
    telemetry::Chain,
};

/// Most bytes of a file: thousands of targets have 1 MiB.
const MAX_LEN: u64 = 16 << 20;
/// The subcommand that takes the file of another one.
const DOCTOR: &str = "doctor";
/// The id of `--config`.
pub(super) const CONFIG: &str = "config";
/// Ids of flags that are no keys of the file.
const NO_KEYS: [&str; 2] = [CONFIG, "check_config"];

/// The command line, as far as it is known before any check.
#[derive(Debug, Default)]
pub(super) struct CommandLine {
    pub(super) args: Vec<OsString>,
    /// The subcommand: `agent`, or `alias release`.
    pub(super) words: Vec<String>,
    config: Option<PathBuf>,
}

impl CommandLine {
    /// Reads the arguments without errors; the second reading reports them.
    pub(super) fn read(command: Command, args: Vec<OsString>) -> Self {
        let matches = unchecked(command).ignore_errors(true).try_get_matches_from(&args);
        let mut line = Self { args, ..Self::default() };
        let Ok(matches) = &matches else {
            return line; // --help or --version
        };
        let mut matches = matches;
        while let Some((name, inner)) = matches.subcommand() {
            line.words.push(name.to_owned());
            matches = inner;
        }
        let config = matches.try_get_one::<OsString>(CONFIG).ok().flatten();
        line.config = config.filter(|path| !path.is_empty()).map(PathBuf::from);
        line
    }

    fn gives(&self, flag: &str) -> bool {
        let is_flag = |arg: &str| arg.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
        self.args.iter().any(|arg| is_flag(&arg.to_string_lossy()))
    }
}

/// The origin of each flag's value (`--lease`) that the command line does not give.
pub(super) type Origins = BTreeMap<String, String>;

/// Makes the values of file and environment the defaults of the flags. Also gives the tables of secrets, which no flag can express.
///
/// # Errors
/// The fault of the file, with its name.
pub(super) fn apply(mut command: Command, line: &CommandLine) -> Result<(Command, Origins, SecretTables), String> {
    let (mut origins, mut secrets) = (Origins::new(), SecretTables::default());
    if let (Some(path), Some(role)) = (&line.config, line.words.first()) {
        let own = command.find_subcommand(role).map(Flag::of).unwrap_or_default();
        let flags = Flags { own, shared: Flag::of(&command) };
        let (values, tables) = read(path, role, &flags)?;
        secrets = tables;
        for (key, values) in values {
            command = set_default(command, role, &flags, &key, values, path)
                .map_err(|why| format!("{}: {why}", path.display()))?;
            origins.insert(format!("--{key}"), path.display().to_string());
        }
    }
    let command = environment(command, &mut origins);
    origins.retain(|flag, _| !line.gives(flag));
    Ok((command, origins, secrets))
}

/// The same command without required arguments, and with any value allowed.
fn unchecked(command: Command) -> Command {
    command.mut_args(|arg| arg.required(false).value_parser(value_parser!(OsString))).mut_subcommands(unchecked)
}

/// A flag that may be a key of the file.
struct Flag {
    name: String,
    is_list: bool,
    is_path: bool,
    is_command: bool,
}

impl Flag {
    fn of(command: &Command) -> Vec<Self> {
        let flags = command.get_arguments().filter(|arg| !NO_KEYS.contains(&arg.get_id().as_str()));
        let flag = |arg: &Arg| {
            let value = arg.get_value_parser().type_id();
            let (is_path, is_command) = (value == TypeId::of::<PathBuf>(), value == TypeId::of::<HookCommand>());
            Some(Self { name: arg.get_long()?.to_owned(), is_list: is_list(arg), is_path, is_command })
        };
        flags.filter_map(flag).collect()
    }
}

/// The flags of a subcommand, and those of every command.
struct Flags {
    own: Vec<Flag>,
    shared: Vec<Flag>,
}

impl Flags {
    fn all(&self) -> impl Iterator<Item = &Flag> {
        self.own.iter().chain(&self.shared)
    }

    fn find(&self, key: &str) -> Option<&Flag> {
        self.all().find(|flag| flag.name == key)
    }
}

/// The keys of the file, written as flags are, with their values as texts; and the tables of a scraper's secrets.
fn read(path: &Path, role: &str, flags: &Flags) -> Result<(BTreeMap<String, Vec<String>>, SecretTables), String> {
    let bytes = bytes(path, role).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let text = small_file::text(&bytes).map_err(|error| format!("{}, {error}", path.display()))?;
    let mut table: toml::Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        format!("{}, line {line}: {}", path.display(), error.message())
    })?;
    if (role == "agent" || role == DOCTOR) && agent::has_tables(&table) {
        // Before clap misses the keys that a table has swallowed.
        match Inventory::default().config(path.to_owned()) {
            Err(error) if role == "agent" || is_misplaced(&error, flags).is_some() => {
                return Err(is_misplaced(&error, flags).unwrap_or_else(|| Chain(&error).to_string()));
            }
            _ => {}
        }
        table.remove("target"); // no flag can express them: the agent reads them itself
    }
    let secrets = match role {
        "scraper" | DOCTOR => SecretTables::take(&mut table, path)?,
        _ => SecretTables::default(),
    };
    undot(&mut table, flags);
    let mut values = BTreeMap::new();
    for (key, value) in &table {
        let wrong = |why: String| format!("{}: key {key:?} {why}", path.display());
        let items = texts(value).ok_or_else(|| wrong(format!("is a table{}", instead(key, role))))?;
        if values.insert(key.replace('_', "-"), items).is_some() {
            return Err(wrong("is given twice, with - and with _".into()));
        }
    }
    Ok((values, secrets))
}

/// The content of the file. An agent reads its file again, which a pipe gives once only.
fn bytes(path: &Path, role: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    match role {
        "agent" => small_file::read(path, MAX_LEN).map(|(bytes, _)| bytes),
        _ => small_file::open(path)?.read(MAX_LEN),
    }
}

/// What to say of a key that was meant for the agent and stands in a table, as every key below `[[target]]` does in TOML.
fn is_misplaced(error: &TargetFileError, flags: &Flags) -> Option<String> {
    let TargetFileError::Content { path, line, message } = error else { return None };
    let key = message.strip_prefix("unknown field `")?.split('`').next()?;
    flags.find(&key.replace('_', "-"))?;
    Some(format!(
        "{}, line {line}: key {key:?} stands below [[target]], and so belongs to that target; move it above the first [[target]]",
        path.display()
    ))
}

/// Makes the key of a flag of what TOML reads as tables: `web.config.file`.
fn undot(table: &mut toml::Table, flags: &Flags) {
    let is_begin =
        |key: &str| flags.all().any(|flag| flag.name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')));
    while let Some(key) =
        table.iter().find(|(key, value)| value.is_table() && is_begin(key)).map(|(key, _)| key.clone())
    {
        let inner = table.remove(&key).and_then(|value| value.try_into::<toml::Table>().ok()).unwrap_or_default();
        table.extend(inner.into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
    }
}

/// A value of the file as the texts of a command line; an array gives several. A table has no such form.
fn texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Float(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(yes) => Some(vec![yes.to_string()]),
        toml::Value::Datetime(time) => Some(vec![time.to_string()]),
        toml::Value::Table(_) => None,
        toml::Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(texts).collect();
            Some(items?.concat())
        }
    }
}

/// The advice for a table where a value belongs.
fn instead(key: &str, role: &str) -> &'static str {
    match role {
        "agent" if key.starts_with("target") => "; every target is a table [[target]]",
        _ => "; write text, a number or an array of them",
    }
}

/// Makes `values` the default of the flag `key` of subcommand `role`, or of the whole command.
fn set_default(
    command: Command,
    role: &str,
    flags: &Flags,
    key: &str,
    mut values: Vec<String>,
    file: &Path,
) -> Result<Command, String> {
    let Some(flag) = flags.find(key) else {
        if role == DOCTOR {
            return Ok(command); // it reads the files of other roles, and leaves the mistakes in them to those
        }
        let known = flags.all().map(|flag| flag.name.as_str());
        return Err(match nearest(key, known) {
            Some(near) => format!("unknown key {key:?}, did you mean {near:?}?"),
            None => format!("unknown key {key:?}; the keys are the flags of narthex {role}"),
        });
    };
    if values.is_empty() && flag.is_list {
        return Ok(command); // as if it were not there, so that a flag that must be given still must
    }
    if values.len() != 1 && !flag.is_list {
        return Err(format!("key {key:?} takes one value, not an array"));
    }
    if (flag.is_path || flag.is_command) && values.iter().any(|value| value.starts_with('~')) {
        return Err(format!("key {key:?}: ~ is not expanded here, write the whole path"));
    }
    if flag.is_path {
        values.iter_mut().for_each(|value| *value = beside(file, value));
    }
    if flag.is_command {
        values.iter_mut().for_each(|value| *value = run_beside(file, value));
    }
    let id = key.replace('-', "_");
    Ok(if flags.shared.iter().any(|flag| flag.name == key) {
        command.mut_arg(id, |arg| with_default(arg, values))
    } else {
        command.mut_subcommand(role, |role| role.mut_arg(id, |arg| with_default(arg, values)))
    })
}

/// A path in a file, from the file's directory. What may be a secret that was written for its file stays what it is, and is refused as such.
fn beside(file: &Path, path: &str) -> String {
    match file.parent() {
        Some(directory) if !output::may_be_secret(path) && !path.is_empty() => {
            directory.join(path).to_string_lossy().into_owned()
        }
        _ => path.to_owned(),
    }
}

/// A command in a file, whose program is found from the file's directory if it is a path. A bare word is found by `PATH`; what
/// cannot be split is refused later.
fn run_beside(file: &Path, command: &str) -> String {
    let mut words = shlex::split(command).unwrap_or_default();
    match words.first_mut() {
        Some(program) if program.contains('/') => *program = beside(file, program),
        _ => return command.to_owned(),
    }
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| command.to_owned())
}

/// The flag with these defaults, which the help does not show because they may be private.
fn with_default(arg: Arg, values: Vec<String>) -> Arg {
    let shows_values = arg.get_action().takes_values(); // a switch has none to hide, and clap insists on it
    arg.required(false).default_values(values).hide_default_value(shows_values)
}

/// Drops empty variables and splits those with a list.
fn environment(command: Command, origins: &mut Origins) -> Command {
    let command = command.mut_args(|arg| {
        // Help names the variables, without their values, which may be private.
        let arg = arg.hide_env_values(true);
        let Some((name, value)) = arg.get_env().and_then(|name| Some((name.to_owned(), env::var_os(name)?))) else {
            return arg;
        };
        let unset = |arg: Arg| arg.env(Resettable::Reset);
        if value.is_empty() {
            return unset(arg);
        }
        if let Some(flag) = arg.get_long() {
            origins.insert(format!("--{flag}"), name.to_string_lossy().into_owned());
        }
        match (is_list(&arg), value.to_str()) {
            (true, Some(items)) => match split(items) {
                items if items.is_empty() => unset(arg),
                items => with_default(unset(arg), items),
            },
            _ => arg,
        }
    });
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, |inner| environment(inner, origins)))
}

fn split(items: &str) -> Vec<String> {
    items.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// The known key most similar to `key`, if at most a third of it differs.
pub(super) fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (near, far) = known.map(|known| (known, strsim::levenshtein(key, known))).min_by_key(|(_, far)| *far)?;
    (far * 3 <= near.len()).then_some(near)
}
