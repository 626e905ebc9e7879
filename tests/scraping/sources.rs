//! Whatever a service counts with, its metrics arrive at whoever scrapes the scraper.

// The examples themselves, so that what they show is what works.
#[allow(dead_code, reason = "its main is not called")]
#[path = "../../examples/source_async.rs"]
mod source_async;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../../examples/source_axum.rs"]
mod source_axum;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../../examples/source_metrics.rs"]
mod source_metrics;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../../examples/source_text.rs"]
mod source_text;

use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use narthex::{
    TargetBuilder,
    client::{EventKind, Exposition, PullFailure, SourceError, Tower, from_async},
};

use crate::support::{
    fleet::{Fleet, scrape_path},
    http,
    linked::Linked,
    peers::Monitor,
};

/// As Prometheus asks.
const ACCEPT: [(&str, &str); 1] =
    [("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")];

#[test]
fn every_example_of_a_source_is_scraped_in_its_own_content_type() {
    let (fleet, scraper) = Fleet::with_scraper();
    let _linked = Linked::start(&fleet, &scraper, |builder| {
        builder
            .target(TargetBuilder::new("async").metrics(source_async::load()))
            .target(TargetBuilder::new("axum").metrics(Tower::new(source_axum::router())))
            .target(TargetBuilder::new("metrics").metrics(source_metrics::recorder().expect("no other recorder")))
            .target(TargetBuilder::new("text").metrics(source_text::orders()))
    });
    scraper.wait_listed("text");
    metrics::counter!("jobs_total", "kind" => "test").increment(2);

    for (alias, content_type, line) in [
        ("async", Exposition::TEXT, "load1 "),
        ("axum", Exposition::TEXT, "visitors 3"),
        ("metrics", Exposition::TEXT, "jobs_total{kind=\"test\"} 2"),
        ("text", Exposition::OPEN_METRICS, "orders_total "),
    ] {
        let answer = scraper.ask(alias, &ACCEPT);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{alias}");
        assert!(answer.text().lines().any(|l| l.starts_with(line)), "{alias}: {}", answer.text());
    }

    let Some(prometheus) = Monitor::prometheus(fleet.path(), scraper.http, &[]) else { return };
    prometheus.wait_value("visitors{instance=\"axum\"}", 3.0);
    prometheus.wait_value("jobs_total{instance=\"metrics\"}", 2.0);
    for alias in ["async", "text"] {
        prometheus.wait_value(&format!("up{{instance=\"{alias}\"}}"), 1.0);
    }
}

#[test]
fn a_router_is_asked_for_its_metrics_with_the_headers_and_the_query_of_the_scrape() {
    use axum::{Router, extract::RawQuery, http::HeaderMap, routing::get};
    let (fleet, scraper) = Fleet::with_scraper();
    let echo = |RawQuery(query): RawQuery, headers: HeaderMap| async move {
        format!("{} {:?}", query.unwrap_or_default(), headers.get("accept"))
    };
    let router = Router::new().route("/metrics", get(echo)).route("/admin", get(|| async { "secret" }));
    let _linked = Linked::start(&fleet, &scraper, |builder| builder.alias("web").metrics(Tower::new(router)));
    scraper.wait_listed("web");

    let path = format!("{}?collect[]=cpu&x=/admin", scrape_path("web"));
    let answer = http::get(scraper.http, &path, &[("Accept", "text/plain;version=0.0.4")]).expect("an answer");
    assert_eq!(answer.text(), "collect[]=cpu&x=/admin Some(\"text/plain;version=0.0.4\")");
}

#[test]
fn trailers_of_a_source_fall_away_and_the_pull_succeeds() {
    let (fleet, scraper) = Fleet::with_scraper();
    let source = from_async(|_| async {
        let mut trailers = ::http::HeaderMap::new();
        trailers.insert("x-checksum", ::http::HeaderValue::from_static("1"));
        let frames = [Frame::data("m 1\n".into()), Frame::trailers(trailers)].map(Ok);
        let mut exposition = Exposition::new(Exposition::TEXT, "");
        exposition.body = StreamBody::new(futures::stream::iter(frames)).boxed_unsync();
        Ok::<_, std::convert::Infallible>(exposition)
    });
    let mut linked = Linked::start(&fleet, &scraper, |builder| builder.alias("web").metrics(source));
    scraper.wait_listed("web");
    let answer = scraper.ask("web", &ACCEPT);
    assert_eq!((answer.status, answer.complete, answer.text().as_str()), (200, true, "m 1\n"));
    let failed = linked.wait_event(|kind| match kind {
        EventKind::PullSucceeded { bytes: 4, .. } => Some(None),
        EventKind::PullFailed { error, .. } => Some(Some(error.to_string())),
        _ => None,
    });
    assert_eq!(failed, None);
}

#[test]
fn a_source_that_panics_or_fails_is_a_502_and_the_next_pull_succeeds() {
    let (fleet, scraper) = Fleet::with_scraper();
    let moody = from_async(|request| async move {
        match request.query.as_deref() {
            Some("panic") => panic!("as the test wants"),
            Some("fail") => Err("no database"),
            _ => Ok("mood 1\n".to_owned()),
        }
    });
    let mut linked = Linked::start(&fleet, &scraper, |builder| builder.alias("moody").metrics(moody));
    scraper.wait_listed("moody");
    let mut failure = |query: &str| {
        let answer = http::get(scraper.http, &format!("{}?{query}", scrape_path("moody")), &[]).expect("an answer");
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(!answer.text().contains("database"), "the scraper receives the pull's id, and no more");
        linked.wait_event(|kind| match kind {
            EventKind::PullFailed { error, .. } => Some(error.clone()),
            _ => None,
        })
    };
    assert!(matches!(&*failure("panic"), PullFailure::Source(SourceError::Panicked)));
    assert!(
        matches!(&*failure("fail"), PullFailure::Source(SourceError::Failed(error)) if error.to_string() == "no database")
    );
    assert_eq!(scraper.ask("moody", &ACCEPT).text(), "mood 1\n");
}
