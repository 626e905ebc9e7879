//! Flags that a scraper and a node share: how many HTTP connections they hold.

use super::value;
use crate::http::HttpLimits;

/// How many HTTP connections may be open.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct HttpConnections {
    /// Most HTTP connections; for a further one an idle one of the source that has most is closed, or a busy one if it has more
    /// than its share
    #[arg(long, value_name = "N", value_parser = value::count, default_value_t = HttpLimits::default().connections)]
    max_http_connections: usize,
    /// Most HTTP connections from one IP address (IPv6: one /56); for a further one its own that is idle longest is closed
    #[arg(
        long, value_name = "N", value_parser = value::count, default_value_t = HttpLimits::default().connections_per_ip
    )]
    max_http_connections_per_ip: usize,
}

impl From<HttpConnections> for HttpLimits {
    fn from(flags: HttpConnections) -> Self {
        Self { connections: flags.max_http_connections, connections_per_ip: flags.max_http_connections_per_ip }
    }
}
