//! What people mistype, misplace and mix up: each gives one line that names the cause and the change, and asks no network.
//!
//! Every command of a role ends by `--check-config`: a mistake that it does not find ends with `ok`, and fails here.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::Command,
};

use narthex::identity::{self, KeyPair, SharedSecret};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::geteuid,
};

use crate::{
    command::Directory,
    support::{
        SOON, eventually_true,
        process::{Process, Run},
        program::skip,
    },
};

/// Seconds until a command that hangs is ended.
const LIMIT: &str = "60";
/// What stands for the flags that a row does not spoil.
const SCRAPER: &str = "scraper --key scraper.key --secret-file fleet.secret --check-config";
const AGENT: &str = "agent --scraper PEER --secret-file fleet.secret --target a=http://h:1 --check-config";
const BARE: &str = "agent --scraper PEER --secret-file fleet.secret --check-config";
const LOST: &str = "agent --secret-file fleet.secret --target a=http://h:1 --check-config";
const NODE: &str = "node --check-config";
const FILE: &str = "agent --config narthex.toml --check-config";
/// The file's settings that a row does not spoil, and a target.
const SETTINGS: &str = "scraper = \"PEER\"\nsecret-file = \"fleet.secret\"\n";
const TARGET: &str = "[[target]]\nalias = \"a\"\nurl = \"http://h:1\"\n";

/// Flags that make no sense: exit 2.
const USAGE: [(&str, &str, &[&str]); 78] = [
    (
        SCRAPER,
        "--http 19960",
        &["a port needs a host: 127.0.0.1:19960 is this host alone, 0.0.0.0:19960 every address"],
    ),
    (SCRAPER, "--http :19960", &["':19960'", "127.0.0.1:19960 is this host alone"]),
    (SCRAPER, "--http 127.0.0.1", &["--http", "expected <host>:<port>"]),
    (SCRAPER, "--http 127.0.0.1:99999", &["--http", "expected <host>:<port>"]),
    (SCRAPER, "--http unix:http.sock", &["expected unix: and an absolute path, as in unix:/run/narthex/http.sock"]),
    (SCRAPER, "--http unix:/x.sock --file-sd t.json", &["--file-sd needs --advertise HOST:PORT", "is a socket"]),
    ("targets --url unix:http.sock", "", &["expected unix: and an absolute path"]),
    (SCRAPER, "--listen 19961", &["--listen", "0.0.0.0:19961 every address"]),
    (SCRAPER, "--advertise scraper", &["--advertise", "expected <host>:<port>"]),
    (SCRAPER, "--external 19961", &["--external", "expected <host>:<port>"]),
    (SCRAPER, "--web.listen-address=:9090", &["a flag of Prometheus", "--http HOST:PORT"]),
    (SCRAPER, "--web.external-url http://h", &["a flag of Prometheus", "--advertise HOST:PORT"]),
    (AGENT, "--web.enable-lifecycle", &["a flag of Prometheus", "a flag of narthex scraper"]),
    (SCRAPER, "--storage.tsdb.path /data", &["a flag of Prometheus", "--data-dir DIR"]),
    (SCRAPER, "--config.file x.yml", &["a flag of Prometheus", "--config FILE", "TOML"]),
    (SCRAPER, "--log.level=debug", &["a flag of Prometheus", "--log-level LEVEL"]),
    (NODE, "--log.format json", &["a flag of Prometheus", "--log-format FORMAT"]),
    (SCRAPER, "--web.route-prefix=/x", &["a flag of Prometheus", "reverse proxy"]),
    (SCRAPER, "--storage.tsdb.retention.time=15d", &["no samples are kept", "--retention is how long a lapsed alias"]),
    (SCRAPER, "-config.file=x", &["-config.file is a flag of Prometheus", "--config FILE"]),
    (NODE, "-relay", &["-relay needs two dashes: --relay"]),
    (AGENT, "--web.listen-address=:9090", &["a flag of Prometheus", "an agent serves no metrics", "leave it out"]),
    (AGENT, "--web.external-url http://h", &["narthex agent has nothing like it: leave it out"]),
    (NODE, "--collector.cpu", &["narthex node has nothing like it: leave it out"]),
    (
        SCRAPER,
        "--http 127.0.0.1:1 --listen 127.0.0.1:1",
        &["--http 127.0.0.1:1 and --listen 127.0.0.1:1 are one TCP port: give one of them another"],
    ),
    (SCRAPER, "--lobby-api 127.0.0.1:19960", &["--http 127.0.0.1:19960 and --lobby-api 127.0.0.1:19960 are one"]),
    (NODE, "--http 127.0.0.1:19961", &["and --listen 0.0.0.0:19961 are one TCP port"]),
    (NODE, "--listen 127.0.0.1:1 --listen-ws 127.0.0.1:1", &["--listen-ws 127.0.0.1:1 are one TCP port"]),
    (SCRAPER, "--config pipe", &["cannot read pipe: a pipe that nobody writes to"]),
    (SCRAPER, "--config binary", &["binary, line 2 is not UTF-8 text"]),
    (SCRAPER, "--log-level inof", &["'inof'", "expected off, error, warn"]),
    (SCRAPER, "--lease 0s", &["--lease", "longer than 0"]),
    (SCRAPER, "--lease 10", &["--lease", "such as 90s, 5m or 3h"]),
    (SCRAPER, "--retention 1d2", &["--retention", "such as 90s, 5m or 3h"]),
    (SCRAPER, "--alias-policy firm", &["live, pinned, overwrite"]),
    (SCRAPER, "--max-body 64M", &["--max-body", "64KiB, 64MiB or 1GiB"]),
    (SCRAPER, "--max-scrapes 0", &["--max-scrapes", "a whole number from 1"]),
    (SCRAPER, "--bootstrap node.example", &["--bootstrap", "<public key>@<host>:<port>"]),
    (SCRAPER, "--bootstrap KEY", &["<public key>@<host>:<port>: where to begin must be known"]),
    (SCRAPER, "--secret-file fleet.secret", &["--secret-file fleet.secret is given twice"]),
    (SCRAPER, "--file-sd t.json --http 0.0.0.0:1", &["--file-sd needs --advertise HOST:PORT", "every address"]),
    (SCRAPER, "--on-change 'x", &["--on-change", "a quote is opened and not closed"]),
    (SCRAPER, "--registration-api 127.0.0.1:1", &["--registration-token-file <FILE>"]),
    (SCRAPER, "--store http://h", &["--store", "expected nats://HOST:PORT"]),
    (SCRAPER, "--store-ca-file x", &["--store <URL>"]),
    (SCRAPER, "--request-header Cookie", &["'Cookie'", "no header that can be passed on"]),
    (SCRAPER, "--target a=http://h", &["--target is a flag of narthex agent"]),
    (SCRAPER, "scraper.toml", &["unexpected argument 'scraper.toml'"]),
    (AGENT, "--advertise h:1", &["--advertise is a flag of narthex scraper"]),
    (AGENT, "--relay", &["--relay is a flag of narthex node"]),
    (LOST, "", &["--scraper PEER", "see 'narthex agent --help'"]),
    (LOST, "--scraper nonsense", &["'nonsense'", "52 characters of z-base-32 or 64 hex digits, got 8 characters"]),
    (LOST, "--scraper http://h:1", &["--scraper", "expected <public key>"]),
    (LOST, "--scraper KEY", &["cannot be found by its key alone: add @<host>:<port>", "--bootstrap or --mdns"]),
    (LOST, "--scraper KEY@127.0.0.1", &["after the @ of a peer: expected <host>:<port>"]),
    (LOST, "--scraper KEY@127.0.0.1:0", &["--scraper", "port 0"]),
    (LOST, "--scraper KEY@0.0.0.0:1", &["0.0.0.0 is not the address of one host"]),
    (LOST, "--scraper PEER --scraper PEER", &["is given twice"]),
    (BARE, "", &["there is nothing to register: give --target ALIAS=URL, --targets-dir DIR, or [[target]]"]),
    (BARE, "--target a", &["expected ALIAS=URL, as in host-1=http://127.0.0.1:9100"]),
    (BARE, "--target a=h:9100", &["expected a URL such as http://127.0.0.1:9100/metrics"]),
    (BARE, "--target a=ftp://h", &["only http://, https:// and unix: URLs"]),
    (BARE, "--target a=http://u:p@h", &["give username and password_file"]),
    (BARE, "--target b/c=http://h", &["alias \"b/c\" is not 1 to 128 of A-Z a-z 0-9 . _ -"]),
    (AGENT, "--target a=http://other", &["alias a is given to two targets"]),
    (AGENT, "--self-alias a", &["alias a is given to a target and to --self-alias"]),
    (AGENT, "--label job=x", &["label job is reserved"]),
    (AGENT, "--label region", &["expected NAME=VALUE, as in region=eu"]),
    (AGENT, "--label 1a=x", &["label name \"1a\" is not of the form"]),
    (AGENT, "--label a=1 --label a=2", &["label a is given twice"]),
    (AGENT, "--on-change x", &["give --lobby too"]),
    (NODE, "--relay-circuits 5", &["--relay-circuits is a limit of --relay, which is not given"]),
    (NODE, "--relay --relay-circuit-bytes 10", &["must be at least 64KiB"]),
    (NODE, "--config none.toml", &["cannot read none.toml"]),
    ("scrapr", "", &["unrecognized subcommand 'scrapr'", "'scraper'"]),
    ("targets --url ftp://h", "", &["expected a URL such as http://", "https://"]),
    ("targets --url http://u:hunter2@h", "", &["a user name or password in a URL is not taken", "--http-config.file"]),
    ("scrape a/b", "", &["alias \"a/b\" is not 1 to 128"]),
];

const KEYLESS: &str = "scraper --secret-file fleet.secret --check-config";
const SECRETLESS: &str = "scraper --key scraper.key --check-config";

/// Files that cannot be used: exit 1.
const FILES: [(&str, &str, &[&str]); 44] = [
    (KEYLESS, "--key none.key", &["make it with: narthex keygen --out none.key"]),
    (KEYLESS, "--key wide.key", &["(mode 0644); mend it with: chmod 600 wide.key"]),
    (KEYLESS, "--key cut.key", &["got 18 characters", "copy the file anew"]),
    (KEYLESS, "--key empty.key", &["got 0 characters", "copy the file anew"]),
    (KEYLESS, "--key pipe", &["cannot read pipe: a pipe that nobody writes to"]),
    (KEYLESS, "--key binary", &["cannot read binary: line 2 is not UTF-8 text"]),
    (KEYLESS, "--key directory", &["cannot read directory", "s a directory"]),
    (KEYLESS, "--key fleet.secret", &["holds a shared secret, not a private key", "narthex keygen"]),
    (SECRETLESS, "--secret-file scraper.key", &["holds a private key, not a shared secret", "narthex secret"]),
    (SECRETLESS, "--secret-file password", &["got 7 characters", "copy the file anew"]),
    (SECRETLESS, "--secret-file none", &["make it with: narthex secret --out none"]),
    (SCRAPER, "--secret-file copy.secret", &["copy.secret holds a secret that another --secret-file has given"]),
    (SCRAPER, "--web.config.file none.yml", &["cannot read none.yml", "see --web.config.file"]),
    (
        SCRAPER,
        "--web.users-file broken/t.toml",
        &["broken/t.toml: line 1: ", "see --web.config.file and --web.users-file"],
    ),
    (SCRAPER, "--http 0.0.0.0:1", &["is for everybody who reaches it: set passwords", "--web.insecure"]),
    ("targets", "--http-config.file none.yml", &["none.yml cannot be used: No such file"]),
    (
        "targets",
        "--http-config.file broken/t.toml",
        &["broken/t.toml cannot be used: line 1: not as http_config of Prometheus"],
    ),
    (SCRAPER, "--peers none", &["cannot read none: No such file"]),
    (SCRAPER, "--peers password", &["password has no rule for keys: line 1: a line begins with allow or block"]),
    (SCRAPER, "--data-dir open", &["chmod 0700 open", "--data-dir open/scraper"]),
    (SCRAPER, "--data-dir password", &["the data directory password cannot be used; give another with --data-dir"]),
    (SCRAPER, "--registration-api 127.0.0.1:1 --registration-token-file none", &["cannot read none"]),
    (SCRAPER, "--lobby-api 127.0.0.1:1 --lobby-token-file wide.key", &["chmod 600 wide.key"]),
    (SCRAPER, "--store nats://h --store-ca-file none", &["cannot read none", "--store-ca-file"]),
    (SCRAPER, "--store nats://h --store-ca-file password", &["password holds no certificates", "--store-ca-file"]),
    (SCRAPER, "--store nats://h --store-credentials-file none", &["cannot read none"]),
    (SCRAPER, "--store nats://h --store-credentials-file wide.key", &["(mode 0644); mend it with: chmod 600 wide.key"]),
    (
        SCRAPER,
        "--store nats://h --store-credentials-file password",
        &["password holds no credentials of a NATS user", "--store-credentials-file"],
    ),
    (SCRAPER, "--bootstrap OWN@127.0.0.1:1", &["is this peer's own key: give another node, or none", "--bootstrap"]),
    (SCRAPER, "--file-sd none/t.json", &["cannot write none/t.json: No such file or directory", "see --file-sd"]),
    (SCRAPER, "--file-sd directory", &["cannot write directory", "is a directory", "see --file-sd"]),
    (SCRAPER, "--on-change no-such-program", &["cannot run no-such-program: no such program in PATH", "--on-change"]),
    (SCRAPER, "--on-change ./password", &["cannot run ./password: Permission denied"]),
    (AGENT, "--lobby --on-change /nowhere/x", &["cannot run /nowhere/x: No such file", "--on-change"]),
    (AGENT, "--key scraper.key --bootstrap OWN@127.0.0.1:1", &["is this peer's own key", "--bootstrap"]),
    (AGENT, "--key wide.key", &["chmod 600 wide.key"]),
    (AGENT, "--targets-dir none", &["cannot read the directory none of --targets-dir"]),
    (AGENT, "--targets-dir broken", &["broken/t.toml, line 1"]),
    (AGENT, "--key other.key", &["is this client's own key: give the scraper's"]),
    (NODE, "--key scraper.key --bootstrap OWN@127.0.0.1:1", &["is this peer's own key", "--bootstrap"]),
    (NODE, "--key none", &["make it with: narthex keygen --out none"]),
    (NODE, "--data-dir password/x", &["give another with --data-dir"]),
    ("keygen --out scraper.key", "", &["exists already", "--out"]),
    ("export --data-dir none", "", &["there is no directory none; see --data-dir"]),
];

/// The last lines of a scraper's file, behind its key.
const SECRETS: [(&str, i32, &[&str]); 14] = [
    (
        "file = \"none.secret\"",
        1,
        &["[[secret]] \"a\": there is no file none.secret", "narthex secret --out none.secret"],
    ),
    ("file = \"scraper.key\"", 1, &["[[secret]] \"a\"", "holds a private key, not a shared secret"]),
    ("file = []", 1, &["[[secret]] \"a\": file names no file"]),
    ("alises = [\"x\"]", 2, &["[[secret]] \"a\": unknown field `alises`", "above the first [[secret]]"]),
    (FLEET_AND_ALIAS, 2, &["[[secret]] \"a\": expected an alias, in which *"]),
    ("file = \"fleet.secret\"\nlabels = { job = \"x\" }", 1, &["label job is reserved"]),
    ("file = \"fleet.secret\"\nalias-policy = \"mine\"", 1, &["expected one of live, pinned, overwrite"]),
    ("file = \"fleet.secret\"\nmax-bytes = \"many\"", 1, &["max_bytes: expected a number of bytes"]),
    ("file = \"fleet.secret\"\nmax-aliases = 0", 1, &["max_aliases is 0: nobody could register"]),
    ("file = \"fleet.secret\"\nnot-after = \"tomorrow\"", 1, &["\"tomorrow\" is no time such as"]),
    ("labels = {}", 2, &["[[secret]] \"a\": missing field `file`"]),
    (
        "file = \"fleet.secret\"\n[[secret]]\nname = \"b\"\nfile = \"copy.secret\"",
        1,
        &["secret b is the same as secret a"],
    ),
    ("file = \"fleet.secret\"\n[[secret]]\nname = \"a\"\nfile = \"x\"", 1, &["[[secret]] \"a\" is there twice"]),
    (
        "file = \"fleet.secret\"\n[[secret]]\nname = \"b b\"\nfile = \"x\"",
        1,
        &["\"b b\": a name of a secret is 1 to 64"],
    ),
];
const FLEET_AND_ALIAS: &str = "file = \"fleet.secret\"\naliases = [\"x y\"]";

/// Faults of a configuration file of an agent, by what stands in it: exit 2.
const CONFIGURATION: [(&[&str], &[&str]); 21] = [
    (&[TARGET, SETTINGS], &["line 4: key \"scraper\" stands below [[target]]", "move it above the first [[target]]"]),
    (&[SETTINGS, TARGET, "data_dir = \"d\""], &["line 6: key \"data_dir\" stands below [[target]]"]),
    (&[SETTINGS, "targt = 1"], &["unknown key \"targt\", did you mean \"target\"?"]),
    (&["scrapers = \"x\"\n", TARGET], &["unknown key \"scrapers\", did you mean \"scraper\"?"]),
    (&[SETTINGS, TARGET, "urll = \"x\""], &["line 6", "`urll`", "`url`"]),
    (&[SETTINGS, TARGET, "listed = 1"], &["line 6", "expected a boolean"]),
    (&[SETTINGS, TARGET, "ca-file = \"x\""], &["target a: ca_file needs an https:// URL"]),
    (&[SETTINGS, TARGET, "ca-file = \"x\"\nca_file = \"x\""], &["line 3", "duplicate field `ca_file`"]),
    (&[SETTINGS, TARGET, "password-file = \"p\""], &["target a: password_file needs username"]),
    (&[SETTINGS, TARGET, "keep = \"(\""], &["target a: ( is not a regular expression"]),
    (&[SETTINGS, TARGET, "timeout = \"0s\""], &["target a: timeout must be longer than 0"]),
    (&[SETTINGS, TARGET, TARGET], &["alias a is given twice"]),
    (&[SETTINGS, "target = \"a\""], &["expected ALIAS=URL", "(from narthex.toml)"]),
    (&[SETTINGS, "[target]\nalias = \"a\""], &["every target is a table [[target]]"]),
    (&[SETTINGS, "lease = 5m\n", TARGET], &["line 3: string values must be quoted"]),
    (&[SETTINGS, "[agent]\nx = 1"], &["\"agent\" is a table"]),
    (&["data-dir = \"a\"\ndata_dir = \"b\"\n", SETTINGS, TARGET], &["given twice, with - and with _"]),
    (&["key = \"~/a.key\"\n", SETTINGS, TARGET], &["key \"key\": ~ is not expanded here, write the whole path"]),
    (&["on-change = \"~/x\"\n", SETTINGS, TARGET], &["key \"on-change\": ~ is not expanded here"]),
    (&["check-config = true\n", SETTINGS, TARGET], &["unknown key \"check-config\""]),
    (&["scraper = ["], &["line 1: unclosed array"]),
];

/// Variables: exit 2.
const ENVIRONMENT: [(&str, &str, &[&str]); 8] = [
    ("NARTHEX_SERVCE", "hunter2", &["unknown environment variable NARTHEX_SERVCE, did you mean NARTHEX_SERVICE?"]),
    ("NARTHEX_SCRAPER_KEY", "hunter2", &["NARTHEX_SCRAPER_KEY, did you mean NARTHEX_SCRAPER?"]),
    ("NARTHEX_QWERTYUIOP", "hunter2", &["NARTHEX_QWERTYUIOP", "name it after a flag, as NARTHEX_DATA_DIR is"]),
    ("NARTHEX_HTTP_PORT", "28999", &["NARTHEX_HTTP_PORT, did you mean NARTHEX_HTTP?"]),
    ("NARTHEX_VERSION", "hunter2", &["NARTHEX_VERSION: unset it, or name it after a flag"]),
    ("NARTHEX_LEASE", "soon", &["'soon'", "(from NARTHEX_LEASE)"]),
    ("NARTHEX_HTTP", "19960", &["127.0.0.1:19960 is this host alone", "(from NARTHEX_HTTP)"]),
    ("NARTHEX_MDNS", "yes", &["'yes'", "true, false", "(from NARTHEX_MDNS)"]),
];

/// The flags of a start that asks no network, and what a row does not spoil.
const START: &str = "scraper --key scraper.key --secret-file fleet.secret --advertise h:1 --web.insecure";
const QUIET: &str = "--http 0.0.0.0:0 --listen 0.0.0.0:0";

/// What only a start shows: exit 1.
const STARTS: [(&str, &str, &[&str]); 7] = [
    (
        START,
        "--data-dir d --http 0.0.0.0:0 --listen 203.0.113.1:1",
        &["this host has no such address: give --listen one"],
    ),
    (
        START,
        "--data-dir d --http 203.0.113.1:1 --listen 0.0.0.0:0",
        &["this host has no such address: give --http one"],
    ),
    (START, "--data-dir d --http 0.0.0.0:0 --listen no-such.invalid:1", &["no-such.invalid:1", "see --listen"]),
    (START, "--data-dir d --http unix:/none/x --listen 0.0.0.0:0", &["unix:/none/x", "its directory must be there"]),
    (START, "--data-dir d --http unix:/dev/null --listen 0.0.0.0:0", &["the file there is no socket: give --http"]),
    ("node --data-dir d", "--listen 203.0.113.1:1", &["this host has no such address"]),
    ("node --data-dir d", "--listen no-such.invalid:1", &["see --listen"]),
];

/// Data directories on a file system that takes nothing, by the options of its tmpfs: exit 1.
const DISKS: [(&str, &str, &[&str]); 7] = [
    ("mode=700,ro", "scraper --check-config", &["the data directory disk cannot be used", "Read-only file system"]),
    ("mode=700,ro", "node --check-config", &["the data directory disk cannot be used", "Read-only file system"]),
    ("mode=700,ro", "node", &["cannot write disk/lock", "--data-dir", "Read-only file system"]),
    ("mode=700,size=4k", "scraper --check-config", &["the data directory disk cannot be used", "No space left"]),
    ("mode=700,size=4k", "node --check-config", &["the data directory disk cannot be used", "No space left"]),
    ("mode=700,size=4k", "node", &["cannot write disk/node.key", "No space left"]),
    ("mode=700,size=4k", "keygen --out disk/x.key", &["cannot write disk/x.key", "No space left"]),
];

/// The files that rows name.
struct Stage {
    dir: Directory,
    key: String,
}

impl Stage {
    fn new() -> Self {
        let dir = Directory::new();
        let other = KeyPair::from_seed(&[5; 32]);
        identity::create_key(&dir.path("scraper.key"), &KeyPair::from_seed(&[9; 32])).expect("writes");
        identity::create_key(&dir.path("other.key"), &other).expect("writes");
        for name in ["fleet.secret", "copy.secret"] {
            identity::create_secret(&dir.path(name), &SharedSecret::from_bytes([7; 32])).expect("writes");
        }
        let whole = fs::read_to_string(dir.path("scraper.key")).expect("there");
        let write = |name: &str, text: &str, mode| {
            fs::write(dir.path(name), text).expect("writes");
            fs::set_permissions(dir.path(name), Permissions::from_mode(mode)).expect("chmod");
        };
        write("wide.key", &whole, 0o644);
        write("cut.key", &whole[..40], 0o600);
        write("empty.key", "", 0o600);
        write("password", "hunter2\n", 0o600);
        fs::write(dir.path("binary"), b"# narthex\n\xff\n").expect("writes");
        fs::set_permissions(dir.path("binary"), Permissions::from_mode(0o600)).expect("chmod");
        mknodat(CWD, dir.path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("makes");
        for (name, file) in [("open", "of-others"), ("broken", "t.toml"), ("directory", "x")] {
            fs::create_dir(dir.path(name)).expect("makes");
            write(&format!("{name}/{file}"), "x", 0o600);
        }
        fs::set_permissions(dir.path("open"), Permissions::from_mode(0o777)).expect("chmod");
        Self { dir, key: other.public().to_string() }
    }

    fn fill(&self, text: &str) -> String {
        let own = KeyPair::from_seed(&[9; 32]).public().to_string();
        let text = text.replace("OWN", &own);
        text.replace("PEER", &format!("{}@127.0.0.1:1", self.key)).replace("KEY", &self.key)
    }

    /// Runs the command where there is no network at all, if that is possible. One that hangs ends by another exit code.
    fn run(&self, words: &str, env: &[(&str, &str)]) -> Run {
        let mut command = Command::new("timeout");
        command.arg(LIMIT);
        if geteuid().is_root() {
            command.args(["unshare", "--net", "--"]);
        }
        self.finish(command.arg(env!("CARGO_BIN_EXE_narthex")), words, env)
    }

    /// Runs the command among this host's addresses.
    fn run_at_home(&self, words: &str) -> Run {
        self.finish(Command::new("timeout").args([LIMIT, env!("CARGO_BIN_EXE_narthex")]), words, &[])
    }

    /// Runs the command where the directory `disk` is a file system of its own, which is full.
    fn run_on_disk(&self, options: &str, words: &str) -> Run {
        let mount = format!("mkdir -p disk && mount -t tmpfs -o {options} tmpfs disk || exit 9");
        let fill = "(cat /dev/zero >disk/aliases) 2>/dev/null; exec \"$@\"";
        let mount = format!("{mount}; {fill}");
        let mut command = Command::new("timeout");
        command.args([LIMIT, "unshare", "--net", "--mount", "--", "sh", "-c", &mount, "sh"]);
        self.finish(command.arg(env!("CARGO_BIN_EXE_narthex")), words, &[("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")])
    }

    fn finish(&self, command: &mut Command, words: &str, env: &[(&str, &str)]) -> Run {
        let home = self.dir.path("");
        command.current_dir(&home).env_clear().env("HOME", &home).envs(env.iter().copied());
        Run::of(command.args(self.fill(words).split_whitespace()))
    }
}

#[test]
fn each_mistake_is_one_line_with_the_cause_and_the_change() {
    let stage = Stage::new();
    for (command, spoilt, parts) in USAGE {
        stage.run(&format!("{command} {spoilt}"), &[]).exits(2, parts);
    }
    for (command, spoilt, parts) in FILES {
        stage.run(&format!("{command} {spoilt}"), &[]).exits(1, parts);
    }
    for (lines, parts) in CONFIGURATION {
        stage.dir.config(&stage.fill(&lines.concat()));
        stage.run(FILE, &[]).exits(2, &[parts, &["narthex.toml"]].concat());
    }
    for (lines, code, parts) in SECRETS {
        stage.dir.config(&format!("key = \"scraper.key\"\n[[secret]]\nname = \"a\"\n{lines}\n"));
        stage.run("scraper --config narthex.toml --check-config", &[]).exits(code, parts);
    }
    for (name, value, parts) in ENVIRONMENT {
        let run = stage.run(SCRAPER, &[(name, value)]);
        run.exits(2, parts);
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    }
}

#[test]
fn each_mistake_that_only_a_start_shows_is_one_line_at_its_end() {
    let stage = Stage::new();
    for (command, spoilt, parts) in STARTS {
        let words = format!("{command} {spoilt} --log-level off");
        let run = if spoilt.contains(".invalid") { stage.run(&words, &[]) } else { stage.run_at_home(&words) };
        run.exits(1, parts);
    }
    // A copied directory is another host's: a clone on this one is seen by the lock.
    let first = format!("{START} {QUIET} --data-dir clone");
    let mut command = Command::new(env!("CARGO_BIN_EXE_narthex"));
    command.current_dir(stage.dir.path("")).args(first.split_whitespace());
    let _first = Process::spawn("first", &stage.dir.path(""), &mut command);
    eventually_true("the first has its table", SOON, || stage.dir.path("clone/aliases").exists());
    let second = format!("{first} --log-level off");
    stage.run(&second, &[]).exits(1, &["clone/aliases is in use by another narthex: stop that one", "--data-dir"]);
}

#[test]
fn a_disk_that_takes_nothing_is_one_line() {
    if !geteuid().is_root() {
        return skip("only root can mount a file system");
    }
    let stage = Stage::new();
    for (options, words, parts) in DISKS {
        let flags = match words.split(' ').next() {
            Some("scraper") => "--key scraper.key --secret-file fleet.secret --data-dir disk --log-level off",
            Some("node") => "--data-dir disk --log-level off --listen 0.0.0.0:0",
            _ => "",
        };
        stage.run_on_disk(options, &format!("{words} {flags}")).exits(1, parts);
    }
}

/// Before: keys were read from pipes, and that must go on: a password manager writes to one.
#[test]
fn a_key_is_read_from_a_pipe() {
    let stage = Stage::new();
    let key = KeyPair::from_seed(&[9; 32]).public();
    for shell in ["narthex key <(sleep 0.1; cat scraper.key)", "cat scraper.key | narthex key /dev/stdin"] {
        let line = shell.replace("narthex", &format!("'{}'", env!("CARGO_BIN_EXE_narthex")));
        let run = Run::of(Command::new("bash").current_dir(stage.dir.path("")).args(["-c", &line]));
        assert_eq!((run.code, run.stdout), (Some(0), format!("{key}\n")), "{shell}: {}", run.stderr);
    }
}

#[test]
fn a_configuration_without_a_mistake_is_ok_and_changes_nothing() {
    let stage = Stage::new();
    stage
        .dir
        .config(&stage.fill(&[SETTINGS, TARGET, "request-headers = [\"X-Scope-OrgID\"]\nlisted = false\n"].concat()));
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(stage.dir.path("")).expect("lists").map(|file| file.expect("a file").file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let kubernetes = [("NARTHEX_PORT", "tcp://10.0.0.1:19960"), ("NARTHEX_SERVICE_HOST", "10.0.0.1")];
    for command in [
        SCRAPER,
        AGENT,
        NODE,
        FILE,
        "scraper --key scraper.key --secret-file fleet.secret --data-dir d/e --check-config",
    ] {
        let run = stage.run(command, &kubernetes);
        assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "ok\n", ""), "{command}");
    }
    assert_eq!(names(), before, "neither data directories nor keys were made");
}

#[test]
fn a_check_names_every_file_that_cannot_be_used() {
    let stage = Stage::new();
    let run = stage.run("scraper --key wide.key --secret-file none --data-dir open --check-config", &[]);
    let lines: Vec<&str> = run.stderr.lines().collect();
    let [key, secret, directory] = lines[..] else { panic!("{}", run.stderr) };
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    assert!(lines.iter().all(|line| line.starts_with("error: ")), "{}", run.stderr);
    assert!(key.contains("wide.key") && secret.contains("none") && directory.contains("open"), "{}", run.stderr);
}

#[test]
fn a_path_in_the_file_starts_at_the_file() {
    let stage = Stage::new();
    fs::create_dir(stage.dir.path("etc")).expect("makes");
    fs::rename(stage.dir.path("fleet.secret"), stage.dir.path("etc/fleet.secret")).expect("moves");
    fs::create_dir(stage.dir.path("etc/targets")).expect("makes");
    fs::write(stage.dir.path("etc/targets/t.toml"), TARGET).expect("writes");
    fs::write(stage.dir.path("etc/hook.sh"), "#!/bin/sh\n").expect("writes");
    fs::set_permissions(stage.dir.path("etc/hook.sh"), Permissions::from_mode(0o700)).expect("chmod");
    let settings = stage.fill(SETTINGS) + "targets_dir = \"targets\"\ndata-dir = \"../data\"\n";
    let settings = settings + "lobby = true\non-change = \"./hook.sh 'two words'\"\n";
    fs::write(stage.dir.path("etc/agent.toml"), settings).expect("writes");
    let run = stage.run("agent --config etc/agent.toml --check-config", &[]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "ok\n", ""));
    fs::write(stage.dir.path("data"), "no directory").expect("writes");
    stage
        .run("agent --config etc/agent.toml --check-config", &[])
        .exits(1, &["the data directory etc/../data cannot be used"]);
}
