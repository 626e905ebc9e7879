//! Texts of an agent's settings and of its exporters, for the fuzz targets of these names.

use std::path::Path;

use super::{
    ExporterUrl, Params,
    spec::TargetSpec,
    target_file::{TargetFileError, parse_config, parse_targets},
    url::Endpoint,
};
use crate::telemetry::Chain;

/// A file of targets, behind a line with its name: `x.toml`, `x.json`, or anything else for an agent's configuration.
/// Aliases are distinct.
pub fn target_file(bytes: &[u8]) {
    let Some((name, text)) = std::str::from_utf8(bytes).ok().and_then(|bytes| bytes.split_once('\n')) else { return };
    let path = Path::new(name);
    let read: Result<Vec<TargetSpec>, TargetFileError> = match path.extension().and_then(|end| end.to_str()) {
        Some("json" | "toml") => parse_targets(path, text),
        _ => parse_config(path, text),
    };
    match read {
        Ok(specs) => {
            let mut aliases: Vec<&str> = specs.iter().map(|spec| spec.target.alias.as_str()).collect();
            aliases.sort_unstable();
            aliases.dedup();
            assert_eq!(aliases.len(), specs.len());
        }
        Err(error) => assert!(!Chain(&error).to_string().is_empty()),
    }
}

/// Lines: an exporter's URL, the path of its setting, the `Location` of its answer, the query of a scrape. No redirect
/// leaves the endpoint, and no query changes what the URL has.
pub fn url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.splitn(4, '\n');
    let [url, path, location, query] = [(); 4].map(|()| lines.next().unwrap_or_default());
    let url = match url.parse::<ExporterUrl>() {
        Ok(url) => url,
        Err(error) => return assert!(!error.to_string().contains(char::is_control)),
    };
    // The path of a socket may contain what separates the two, so that its text may mean another socket.
    if let Endpoint::Tcp { .. } = url.endpoint() {
        let again: Result<ExporterUrl, _> = url.to_string().trim_end_matches("?..").parse();
        assert_eq!(again.as_ref().map(ExporterUrl::endpoint), Ok(url.endpoint()), "{url}");
    }
    if let Some(to) = url.redirected(url.path(), location) {
        assert!(to.to_string().starts_with('/'), "{to:?}");
    }
    let named = Params::Named(query.split(['&', '=']).map(str::to_owned).collect());
    assert_eq!(Params::None.applied(url.path(), Some(query)), *url.path());
    for params in [named, Params::All] {
        let asked = params.applied(url.path(), Some(query));
        assert!(asked.to_string().starts_with(&url.path().to_string()), "{asked} is not {url}");
    }
    if let Ok(with_path) = url.clone().with_path(path) {
        assert_eq!(with_path.endpoint(), url.endpoint());
        assert_eq!(with_path.host_header(), url.host_header());
    }
}
