//! Real peers: Prometheus and vmagent, as Debian packages them.

#[path = "../support/mod.rs"]
mod support;

mod documents;
mod file_sd;
mod probes;
mod prometheus;
mod proxy_url;
mod socket;
mod tenants;
mod vmagent;
mod web_config;
