//! Flags of an agent that concern all its targets: compression, the largest exposition, metrics of its own.

use std::time::Duration;

use clap::ValueEnum;

use super::{
    defaults,
    value::{self, Label},
};
use crate::{
    client::{ClientBuilder, Compression, TargetBuilder},
    wire::Alias,
};

/// The flags.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Flags {
    /// Compress metrics that the exporter did not compress, if the scrape accepts gzip: for slow or metered links
    #[arg(long, value_name = "HOW", value_enum, default_value_t = How::from(Compression::default()))]
    compression: How,
    /// The shortest answer that the agent compresses, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Compression::DEFAULT_MIN_SIZE)]
    compression_min_size: usize,
    /// Largest exposition, before compression; the agent refuses or cuts a longer one, which fails the scrape
    #[arg(long, value_name = "BYTES", value_parser = value::bytes, default_value = defaults::bytes(ClientBuilder::DEFAULT_MAX_BODY))]
    max_body: u64,
    /// Longest wait at the end for a scraper to release the aliases, one that restarts meanwhile included
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = defaults::duration(ClientBuilder::DEFAULT_RELEASE_TIMEOUT))]
    release_timeout: Duration,
    /// Register the agent's own metrics under this alias, with service narthex and the labels of --label
    #[arg(long, value_name = "ALIAS")]
    pub(super) self_alias: Option<Alias>,
}

/// The choices of [`Compression`] on a command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum How {
    Off,
    Gzip,
}

impl From<Compression> for How {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Off => Self::Off,
            Compression::Gzip { .. } => Self::Gzip,
        }
    }
}

impl Flags {
    /// Applies the flags to a client.
    pub(super) fn apply(self, builder: ClientBuilder, labels: &[Label]) -> ClientBuilder {
        let compression = match self.compression {
            How::Off => Compression::Off,
            How::Gzip => Compression::gzip().min_size(self.compression_min_size),
        };
        let builder = builder.compression(compression).max_body(self.max_body).release_timeout(self.release_timeout);
        let Some(alias) = self.self_alias else { return builder };
        let own = TargetBuilder::new(alias.as_str()).service("narthex");
        builder.self_target(labels.iter().fold(own, |own, Label { name, value }| own.label(name, value)))
    }
}
