//! What passes through arrives as it was sent, byte for byte, or visibly broken.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use crate::support::{
    PROMETHEUS_NOTICES, SOON, eventually,
    exporter::{Exporter, Reply, generate},
    fleet::{Fleet, Scraper, scrape_path},
    http::{self, Exchange, end_to_end},
    noise,
    peers::Monitor,
    process::Process,
    protobuf,
};

/// As Prometheus 2.42 asks, with native histograms on.
const PROMETHEUS_HEADERS: [(&str, &str); 4] = [
    ("User-Agent", "Prometheus/2.42.0+ds"),
    (
        "Accept",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
         application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    ),
    ("Accept-Encoding", "gzip"),
    ("X-Prometheus-Scrape-Timeout-Seconds", "30"),
];

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

#[test]
fn answers_and_requests_pass_through_unchanged() {
    let text = "# HELP m Ünïcödé \\n kept\n# TYPE m gauge\nm{l=\"a b\"} 1e-5 1700000000000\r\nodd line kept\n\n";
    let open_metrics = "# TYPE m counter\nm_total 1 # {trace_id=\"x\"} 0.5\n# EOF\n";
    let replies = [
        ("/text", whole("text/plain; version=0.0.4; charset=utf-8", text)),
        ("/open-metrics", whole(OPEN_METRICS, open_metrics)),
        ("/gzip", gzipped(&noise(300_000))),
        ("/protobuf", whole(PROTOBUF, protobuf::native_histogram("h", &[1, 300, 70_000, 2]))),
        ("/empty", whole("text/plain", "")),
        // As Prometheus 3 asks for it, and as the exporters of its libraries answer.
        (
            "/utf-8",
            whole("text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8", "{\"a.b é\",\"l.m\"=\"v\"} 1\n"),
        ),
        (
            "/chunked",
            Reply::Chunked {
                headers: vec![("Content-Type", "text/plain"), ("Vary", "Accept"), ("Vary", "Accept-Encoding")],
                chunks: vec![b"a 1\n".to_vec(), noise(100_000), b"z 1\n".to_vec()],
            },
        ),
    ];
    let paths: Vec<&str> = replies.iter().map(|(path, _)| *path).collect();
    let exporter = Exporter::start(replies);
    let (fleet, scraper) = Fleet::with_scraper();
    let _agent = agent_for(&fleet, &scraper, &exporter, &paths);

    for path in paths {
        let alias = alias_of(path);
        scraper.wait_listed(alias);
        let direct = http::get(exporter.address, path, &PROMETHEUS_HEADERS).expect("the exporter answers");
        let through = http::get(scraper.http, &scrape_path(alias), &PROMETHEUS_HEADERS).expect("the scraper answers");
        assert!(direct.complete && through.complete, "{path}");
        assert_eq!(through.status, direct.status, "{path}: {}", through.text());
        assert_eq!(through.body_headers(), direct.body_headers(), "{path}");
        assert!(through.body == direct.body, "{path}: {} bytes, not {}", through.body.len(), direct.body.len());

        let requests = exporter.requests(path);
        let [asked_directly, asked_through] = &requests[..] else { panic!("{path}: {requests:?}") };
        // The exporter has as long as the pull has: less than Prometheus waits, and not by much.
        let sent = |headers: &[(String, String)]| end_to_end(headers, &["host", "x-prometheus-scrape-timeout-seconds"]);
        let header = asked_through.header("x-prometheus-scrape-timeout-seconds").expect("the header");
        assert!((15.0..30.0).contains(&header.parse::<f64>().expect("seconds")), "{path}: {header}");
        assert_eq!(sent(&asked_through.headers), sent(&asked_directly.headers), "{path}: what the exporter was asked");
    }
}

#[test]
fn native_histograms_arrive_in_prometheus() {
    let (fleet, scraper) = Fleet::with_scraper();
    let flags = ["--enable-feature=native-histograms"];
    let Some(prometheus) = Monitor::prometheus(fleet.path(), scraper.http, &flags) else { return };
    let body = protobuf::native_histogram("latency_seconds", &[1, 300, 70_000, 2]);
    let exporter = Exporter::start([("/native", whole(PROTOBUF, body))]);
    let _agent = agent_for(&fleet, &scraper, &exporter, &["/native"]);

    prometheus.wait_value("histogram_count(latency_seconds{instance=\"native\"})", 70_303.0);
    prometheus.wait_value("histogram_sum(latency_seconds)", 42.5);
    let asked = exporter.wait_asked("/native");
    let accept = asked.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("accept")).expect("asked for");
    assert!(accept.1.starts_with("application/vnd.google.protobuf"), "{accept:?}");
}

#[test]
fn exemplars_arrive_in_prometheus() {
    let (fleet, scraper) = Fleet::with_scraper();
    let Some(prometheus) = Monitor::prometheus(fleet.path(), scraper.http, &["--enable-feature=exemplar-storage"])
    else {
        return;
    };
    let body = "# TYPE latency_seconds histogram\n\
                latency_seconds_bucket{le=\"1.0\"} 1 # {trace_id=\"4bf92f35\"} 0.67\n\
                latency_seconds_bucket{le=\"+Inf\"} 1\n\
                latency_seconds_count 1\nlatency_seconds_sum 0.67\n# EOF\n";
    let exporter = Exporter::start([("/open-metrics", whole(OPEN_METRICS, body))]);
    let _agent = agent_for(&fleet, &scraper, &exporter, &["/open-metrics"]);

    let expression = "latency_seconds_bucket{instance=\"open-metrics\"}";
    let (labels, value) =
        eventually("the exemplar is stored", PROMETHEUS_NOTICES, || prometheus.exemplars(expression).pop());
    assert_eq!((labels["trace_id"].as_str(), value.as_str()), ("4bf92f35", "0.67"));
    let accept = exporter.wait_asked("/open-metrics").header("accept").map(str::to_owned);
    assert!(accept.is_some_and(|accept| accept.starts_with("application/openmetrics-text")));
}

#[test]
fn a_body_that_is_cut_never_ends_cleanly() {
    let (fleet, scraper) = Fleet::with_scraper();
    let long = noise(200_000);
    let exporter = Exporter::start([
        ("/cut-length", Reply::CutLength { len: 400_000, sent: long.clone() }),
        ("/cut-length-early", Reply::CutLength { len: 20, sent: b"m 1\n".to_vec() }),
        ("/cut-chunked", Reply::CutChunked { sent: long }),
        ("/cut-chunked-early", Reply::CutChunked { sent: b"m 1\n".to_vec() }),
        ("/fine", Reply::text("fine 1\n")),
    ]);
    let cut = ["/cut-length", "/cut-length-early", "/cut-chunked", "/cut-chunked-early"];
    let _agent = agent_for(&fleet, &scraper, &exporter, &[&cut[..], &["/fine"]].concat());
    scraper.wait_scraped("fine");

    for path in cut {
        let answer = http::get(scraper.http, &scrape_path(alias_of(path)), &PROMETHEUS_HEADERS);
        // A connection that breaks before the head is as good as one that breaks after it.
        if let Ok(answer) = answer {
            let clean = answer.status == 200 && answer.complete;
            assert!(!clean, "{path}: {} bytes were passed off as a whole exposition", answer.body.len());
        }
    }
    assert_eq!(scraper.scrape("fine", SOON).status, 200, "the link goes on");
}

#[test]
fn a_large_body_streams_while_other_scrapes_go_on() {
    const LEN: usize = 64_000_000;
    const MAY_GROW_KIB: u64 = 12 * 1024;
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/huge", Reply::Generated { len: LEN }), ("/small", Reply::text("small 1\n"))]);
    let agent = agent_for(&fleet, &scraper, &exporter, &["/huge", "/small"]);
    scraper.wait_scraped("small");
    let processes = [&scraper.process, &agent];
    for process in processes {
        process.forget_peak();
    }
    let before = processes.map(Process::peak_memory_kib);

    let mut huge =
        Exchange::begin("GET", scraper.http, &scrape_path("huge"), &PROMETHEUS_HEADERS).expect("an answer begins");
    assert_eq!(huge.status, 200);
    // Nobody reads the large body for now: it waits at the exporter, in nobody's memory, and holds nobody up.
    for _ in 0..20 {
        assert_eq!(scraper.scrape("small", SOON).text(), "small 1\n");
    }
    let mut expected = Vec::with_capacity(LEN);
    generate(LEN, |block| expected.write_all(block)).expect("memory takes it");
    let mut position = 0;
    let complete = huge.read_body(|bytes| {
        assert!(expected[position..].starts_with(bytes), "the body differs after byte {position}");
        position += bytes.len();
    });
    assert!(complete && position == LEN, "ended after {position} bytes");

    for (process, before) in processes.iter().zip(before) {
        let grown = process.peak_memory_kib().saturating_sub(before);
        assert!(grown < MAY_GROW_KIB, "memory grew by {grown} KiB");
    }
}

#[test]
fn what_an_agent_holds_of_each_body_is_bounded() {
    const AT_ONCE: u64 = 48;
    const EACH_MAY_HOLD_KIB: u64 = 800;
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/huge", Reply::Generated { len: 64_000_000 }), ("/small", Reply::text("m 1\n"))]);
    let agent = agent_for(&fleet, &scraper, &exporter, &["/huge", "/small"]);
    scraper.wait_scraped("small");
    agent.forget_peak();
    let before = agent.peak_memory_kib();

    // Nobody reads them: every buffer on the way fills up, and stays full while others are scraped.
    let path = scrape_path("huge");
    let begin = || Exchange::begin("GET", scraper.http, &path, &PROMETHEUS_HEADERS).expect("an answer begins");
    let unread: Vec<_> = (0..AT_ONCE).map(|_| begin()).collect();
    assert!(unread.iter().all(|exchange| exchange.status == 200));
    for _ in 0..50 {
        assert_eq!(scraper.scrape("small", SOON).text(), "m 1\n");
    }
    let grown = agent.peak_memory_kib() - before;
    assert!(grown < AT_ONCE * EACH_MAY_HOLD_KIB, "memory grew by {grown} KiB");
}

/// An agent with a target for each path, under the path's name.
fn agent_for(fleet: &Fleet, scraper: &Scraper, exporter: &Exporter, paths: &[&str]) -> Process {
    fleet.agent_of(scraper, "agent", paths.iter().map(|path| (alias_of(path), exporter.url(path))), &[])
}

fn whole(content_type: &'static str, body: impl Into<Vec<u8>>) -> Reply {
    let headers = vec![("Content-Type", content_type), ("X-Exporter-Says", "a \"quoted\" word; q=0.5")];
    Reply::Whole { status: "200 OK", headers, body: body.into() }
}

fn alias_of(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn gzipped(body: &[u8]) -> Reply {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes it");
    let headers = vec![("Content-Type", "text/plain; version=0.0.4"), ("Content-Encoding", "gzip")];
    Reply::Whole { status: "200 OK", headers, body: encoder.finish().expect("memory takes it") }
}
