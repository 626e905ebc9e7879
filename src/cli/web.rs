//! `--web.config.file` and what belongs to it: TLS, users and rights of the scraper's HTTP side.

use std::path::PathBuf;

use crate::scraper::WebSecurity;

/// TLS, users and rights.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Web {
    /// A web configuration file of Prometheus, YAML: TLS, client certificates, passwords, headers, a rate; read again when it
    /// changes
    #[arg(long = "web.config.file", id = "web.config.file", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Users with tokens, rights (sd, scrape, api, admin) and some of the targets, TOML; read again when it changes
    #[arg(long = "web.users-file", id = "web.users_file", value_name = "FILE")]
    users_file: Option<PathBuf>,
    /// Let everybody who reaches --http read everything and release aliases, also from other hosts
    #[arg(long = "web.insecure", id = "web.insecure", env = "NARTHEX_WEB_INSECURE")]
    insecure: bool,
    /// Let POST /-/reload do what SIGHUP does: read secrets and rules for keys again
    #[arg(long = "web.enable-lifecycle", id = "web.enable_lifecycle", env = "NARTHEX_WEB_ENABLE_LIFECYCLE")]
    pub(super) enable_lifecycle: bool,
}

impl From<Web> for WebSecurity {
    fn from(flags: Web) -> Self {
        Self { config_file: flags.config_file, users_file: flags.users_file, insecure: flags.insecure }
    }
}
