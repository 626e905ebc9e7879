//! Network namespaces: a host, a router, an internet of one's own each.
//!
//! They are named `nx<pid>-<n>-<what for>`, go away with their handle, also when a test panics, and what a killed run
//! left behind is swept before the next one makes its first. A thread [enters](Namespace::enter) one for a moment;
//! sockets, threads and processes made there stay in it, so that everything else in `support` works inside as it is.

use std::{
    fs::{self, File},
    io::Write,
    os::fd::AsFd,
    panic,
    path::Path,
    process::{self, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::program;

/// Where `ip netns` keeps them.
const DIRECTORY: &str = "/run/netns";

/// A network namespace with its loopback up. Dropping it removes it, with all its links.
pub(crate) struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Whether namespaces can be made here; prints the reason if not.
    #[track_caller]
    pub(crate) fn available() -> bool {
        if program::program("ip", "iproute2").is_none() || program::program("nft", "nftables").is_none() {
            return false;
        }
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let probe = name("probe");
        let made = ip(&["netns", "add", &probe]);
        if let Err(reason) = made {
            program::skip(&format!("network namespaces cannot be made, they want root: {reason}"));
            return false;
        }
        ip(&["netns", "del", &probe]).expect("what was made can be removed");
        true
    }

    #[track_caller]
    pub(crate) fn new(what_for: &str) -> Self {
        let name = name(what_for);
        run_ip(&["netns", "add", &name]);
        let file = File::open(Path::new(DIRECTORY).join(&name)).expect("a namespace has a file");
        let namespace = Self { name, file };
        namespace.ip(&["link set lo up"]);
        namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `act` on a thread in this namespace. Threads and processes that it starts stay there.
    pub(crate) fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may move");
            act()
        };
        let done = thread::scope(|scope| scope.spawn(inside).join());
        done.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Runs `ip` in it, once for all these lines.
    #[track_caller]
    pub(crate) fn ip(&self, lines: &[&str]) {
        feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), &lines.join("\n"));
    }

    /// Adds these tables of nftables; they replace those of the same names.
    #[track_caller]
    pub(crate) fn nft(&self, rules: &str) {
        self.enter(|| feed(Command::new("nft").args(["-f", "-"]), rules));
    }

    /// Sets what stands under `/proc/sys/net` for this namespace.
    #[track_caller]
    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys/net").join(name);
        self.enter(|| fs::write(&path, value)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // An error may stand beside the panic that brought us here; the next run sweeps.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Removes the namespaces of test runs that are no more, and ends what still runs in them.
fn sweep() {
    for entry in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("nx").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            for pid in ip(&["netns", "pids", &name]).unwrap_or_default().split_whitespace() {
                let _ = Command::new("kill").args(["-9", pid]).status();
            }
            // Another run may sweep at the same time.
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

fn name(what_for: &str) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    format!("nx{}-{}-{what_for}", process::id(), MADE.fetch_add(1, Ordering::Relaxed))
}

#[track_caller]
fn run_ip(arguments: &[&str]) {
    ip(arguments).unwrap_or_else(|error| panic!("ip {}: {error}", arguments.join(" ")));
}

/// Its output, or what it complains about.
fn ip(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Runs it with this input, and panics with what it complains about.
#[track_caller]
fn feed(command: &mut Command, input: &str) {
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a program that is there starts");
    // The program may have ended over an early line; its status is checked below.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("a child ends");
    assert!(output.status.success(), "{command:?}: {}\n{input}", String::from_utf8_lossy(&output.stderr));
}
