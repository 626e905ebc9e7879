//! The store that several scrapers share.

use std::time::Duration;

use super::report::Check;
use crate::{
    nats::NatsConfig,
    registry::{ProbedBucket, probe_bucket},
};

/// Checks whether a scraper with this store would find its table.
pub(super) async fn reachable(config: &NatsConfig, patience: Duration) -> Check {
    let (name, url) = ("store", &config.url);
    match probe_bucket(config, patience).await {
        Ok(ProbedBucket::Keys(keys)) => Check::ok(name, format!("{url} has the bucket, with {keys} keys")),
        Ok(ProbedBucket::Missing) => {
            Check::ok(name, format!("{url} answers; it has no such bucket yet, which the first scraper makes"))
        }
        Err(error) => Check::failed(
            name,
            format!("{url}: {error}"),
            "is nats-server there, was it started with --jetstream, do the URL, the credentials and the CA file fit, and \
             has this user the permissions in docs/group.md? A scraper meanwhile serves the copy in its data directory, and refuses registrations",
        ),
    }
}
