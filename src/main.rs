//! The `narthex` command.

use std::{env, process::ExitCode};

use narthex::cli::{self, log};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let outcome = cli::parse(env::args_os()).and_then(|cli| {
        log::start(cli.log_format, &cli.log_level);
        cli::run(cli.command)
    });
    cli::report(outcome)
}
