//! Real peers: Prometheus and vmagent, as Debian packages them.

#[path = "../support/mod.rs"]
mod support;

mod file_sd;
mod prometheus;
mod proxy_url;
mod vmagent;

#[test]
#[ignore = "the service that the other tests scrape: they run it as a process of its own"]
fn linked_service() {
    support::service::run();
}
