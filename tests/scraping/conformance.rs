//! What Prometheus and vmagent make of the scraper's answers, beside what they make of the exporter's own:
//! docs/conformance.md has a row for each case.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
};

use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};

use crate::support::{
    PROMETHEUS_NOTICES, SOON, eventually_true,
    exporter::{Exporter, Reply, generate},
    fleet::{Fleet, Scraper, scrape_path},
    http::{self, read_headers, read_line},
    peers::Monitor,
    ports::{free_port, loopback},
    process::Process,
};

/// What an exporter may answer, good or bad, and how Prometheus takes it from the exporter itself. The narthex side
/// must be taken in the same way.
const CASES: [(&str, &str); 14] = [
    ("plain", UP),
    ("no-type", UP),
    ("json-type", UP),
    ("empty", UP),
    ("no-last-line-end", UP),
    ("open-metrics", UP),
    ("open-metrics-no-eof", "data does not end with # EOF"),
    ("gzip", UP),
    ("deflate", "invalid"),
    ("crlf", "invalid syntax"),
    ("cut-length", "unexpected EOF"),
    ("cut-chunked", "unexpected EOF"),
    ("unfinished-line", "expected label value"),
    ("moved", UP),
];

/// Answers that are no exposition: Prometheus receives 502 (or 504), not the exporter's own status.
const FAILURES: [(&str, &str); 6] = [
    ("no-content", "502 Bad Gateway"),
    ("not-found", "502 Bad Gateway"),
    ("unavailable", "502 Bad Gateway"),
    ("elsewhere", "502 Bad Gateway"),
    ("hangs", "504 Gateway Timeout"),
    ("nobody", "502 Bad Gateway"),
];

/// Every kind of character that an alias may have, where path encodings differ.
const ALIASES: [&str; 5] = ["...", "-", "_", "A.b_c-D.9", LONGEST];
const LONGEST: &str = "a123456789b123456789c123456789d123456789e123456789f123456789g123456789h123456789i123456789j123456789k123456789l123456789m1234567";
const UP: &str = "";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Every kind of character.
const LABELS: [(&str, &str); 3] =
    [("city", "Žluťoučký \"kůň\""), ("odd", "a\\b\u{1f525} {x=1}, %41 é"), ("_under9", "http://h/?a=b&c=d")];
const SERVICE: &str = "web/é %41";

#[test]
fn prometheus_takes_answers_through_narthex_as_it_takes_the_exporters_own() {
    let stage = Stage::new();
    let limited = format!(
        "  - job_name: limited\n    body_size_limit: 100KB\n    http_sd_configs:\n      \
         - url: http://{}/sd?alias=large\n    relabel_configs:\n      - target_label: instance\n        replacement: limited\n",
        stage.scraper.http
    );
    let configs = format!("{}{limited}", stage.configs("        refresh_interval: 1s\n"));
    let Some(prometheus) = Monitor::prometheus_on(stage.fleet.path(), &configs, &[]) else { return };

    for (case, error) in CASES {
        let health = if error == UP { "up" } else { "down" };
        let direct = prometheus.wait_health(&format!("direct-{case}"), health);
        assert!(direct.last_error.contains(error), "{case}: {direct:?}");
        eventually_true(&format!("{case} is as it is without narthex"), PROMETHEUS_NOTICES, || {
            let through = prometheus.targets().remove(case);
            through.is_some_and(|through| {
                (through.health, through.last_error) == (health.into(), direct.last_error.clone())
            })
        });
    }
    for (case, error) in FAILURES {
        let target = prometheus.wait_error(case, error);
        assert_eq!(target.last_error, format!("server returned HTTP status {error}"), "{case}");
    }
    prometheus.wait_error("limited", "body size limit exceeded");
    prometheus.wait_health("large", "up");
    for alias in ALIASES {
        prometheus.wait_health(alias, "up");
    }

    let target = prometheus.wait_health("plain", "up");
    for (name, value) in LABELS {
        assert_eq!(target.labels[name], value, "{target:?}");
    }
    assert_eq!((target.labels["service"].as_str(), target.labels["job"].as_str()), (SERVICE, "narthex"));
    assert!(target.labels.keys().all(|name| !name.starts_with("__")), "{target:?}");
    assert!(!target.labels.contains_key("left_out"), "{target:?}");
    assert!(prometheus.process.log_line(&["unable to refresh target groups"]).is_none());
    stage.redirects_stayed_at_the_exporter();

    // Every target is one, though all have the same address.
    prometheus.wait_value("count(up{job=\"narthex\"})", stage.targets.len() as f64);
}

#[test]
fn vmagent_takes_answers_through_narthex_as_it_takes_the_exporters_own() {
    let stage = Stage::new();
    let Some(vmagent) = Monitor::vmagent_on(stage.fleet.path(), &stage.configs("")) else { return };
    for (case, _) in CASES {
        eventually_true(&format!("{case} is as it is without narthex"), PROMETHEUS_NOTICES, || {
            let mut targets = vmagent.targets();
            // One that was not scraped yet is down without an error.
            let mut health = |instance: &str| {
                targets.remove(instance).filter(|target| target.health == "up" || !target.last_error.is_empty())
            };
            let (direct, through) = (health(&format!("direct-{case}")), health(case));
            direct.zip(through).is_some_and(|(direct, through)| direct.health == through.health)
        });
    }
    for (case, error) in FAILURES {
        vmagent.wait_error(case, &error[..3]);
    }
    for alias in ALIASES {
        vmagent.wait_health(alias, "up");
    }
    let target = vmagent.wait_health("plain", "up");
    for (name, value) in LABELS {
        assert_eq!(target.labels[name], value, "{target:?}");
    }
    stage.redirects_stayed_at_the_exporter();
}

#[test]
fn the_list_is_plain_json_whoever_asks() {
    let (_fleet, scraper) = Fleet::with_scraper();
    let prometheus = [
        ("User-Agent", "Prometheus/2.42.0+ds"),
        ("Accept", "application/json"),
        ("X-Prometheus-Refresh-Interval-Seconds", "60"),
    ];
    let vmagent = [
        ("User-Agent", "vm_promscrape/discovery"),
        ("Accept-Encoding", "gzip"),
        ("X-Prometheus-Refresh-Interval-Seconds", "1"),
        ("Accept", "application/json"),
    ];
    let caching =
        [("If-None-Match", "*"), ("If-Modified-Since", "Thu, 01 Jan 2099 00:00:00 GMT"), ("Accept", "text/html")];
    let authorized = [("Authorization", "Token sd-token"), ("Range", "bytes=0-0")];
    for headers in [&prometheus[..], &vmagent, &caching, &authorized, &[]] {
        let answer = http::get(scraper.http, "/sd", headers).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, "[]", true), "{headers:?}");
        let sent: Vec<_> = answer.body_headers();
        let expected = [("content-length", "2"), ("content-type", "application/json"), ("vary", "Host")];
        assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())), "{headers:?}");
    }
}

#[test]
fn the_path_is_decoded_once() {
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let _agent = fleet.agent_of(&scraper, "agent", [("web-1.x", exporter.url("/metrics"))], &[]);
    scraper.wait_scraped("web-1.x");
    for (path, status) in [
        ("/scrape/web%2D1%2ex/metrics", 200),
        ("/scrape/web%252D1.x/metrics", 404),
        ("/scrape/y/../web-1.x/metrics", 404),
        ("/scrape/./web-1.x/metrics", 404),
        ("/scrape//web-1.x/metrics", 404),
        ("/scrape/web-1.x/metrics/", 404),
        ("/scrape/web-1.x%00/metrics", 404),
        ("/scrape/%ff/metrics", 404),
        ("/sd/", 404),
    ] {
        let answer = http::get(scraper.http, path, &[]).expect("an answer");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let (_fleet, scraper) = Fleet::with_scraper();
    let mut stream = TcpStream::connect(scraper.http).expect("connects");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
    for path in ["/sd", "/scrape/nobody/metrics", "/sd?service=x", "/sd?odd=1", "/sd"] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).expect("sends");
        read_line(&mut reader).expect("a status line");
        let headers = read_headers(&mut reader).expect("headers");
        let len = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length")).expect("a length");
        let mut body = vec![0; len.1.parse().expect("a number")];
        reader.read_exact(&mut body).expect("a body");
    }
}

/// A scraper, one agent, and an exporter that answers in every way.
struct Stage {
    fleet: Fleet,
    scraper: Scraper,
    exporter: Exporter,
    elsewhere: Exporter,
    /// Aliases and URLs.
    targets: Vec<(&'static str, String)>,
    _agent: Process,
}

impl Stage {
    fn new() -> Self {
        let (fleet, scraper) = Fleet::with_scraper();
        let elsewhere = Exporter::start([("/metrics", Reply::text("elsewhere 1\n"))]);
        let exporter = exporter(elsewhere.url("/metrics").leak());
        let cases = CASES.iter().chain(&FAILURES).map(|(case, _)| *case).filter(|case| *case != "nobody");
        let mut targets: Vec<_> =
            cases.chain(["large"]).map(|case| (case, exporter.url(&format!("/{case}")))).collect();
        targets.push(("nobody", format!("http://{}/metrics", loopback(free_port()))));
        targets.extend(ALIASES.map(|alias| (alias, exporter.url("/plain"))));
        let labels = LABELS.iter().chain(&[("left_out", "")]).map(|(name, value)| format!("--label={name}={value}"));
        let labels: Vec<String> = labels.collect();
        let mut flags = vec!["--service", SERVICE];
        flags.extend(labels.iter().map(String::as_str));
        let agent = fleet.agent_of(&scraper, "agent", targets.clone(), &flags);
        scraper.wait_scraped("plain");
        Self { fleet, scraper, exporter, elsewhere, targets, _agent: agent }
    }

    /// The list, and each case straight from the exporter.
    fn configs(&self, refresh: &str) -> String {
        let mut configs = format!(
            "  - job_name: narthex\n    http_sd_configs:\n      - url: http://{}/sd\n{refresh}",
            self.scraper.http
        );
        for (case, _) in CASES {
            configs += &format!(
                "  - job_name: direct-{case}\n    metrics_path: /{case}\n    static_configs:\n      - targets: ['{}']\n        \
                 labels: {{instance: direct-{case}}}\n",
                self.exporter.address
            );
        }
        configs
    }

    /// A redirect is followed by the agent, at the exporter's own host and port; to another one neither by the agent
    /// nor by whoever scrapes.
    fn redirects_stayed_at_the_exporter(&self) {
        let moved = self.scraper.scrape("moved", SOON);
        assert_eq!((moved.status, moved.header("location")), (200, None), "{}", moved.text());
        assert!(!self.exporter.requests("/elsewhere").is_empty());
        assert!(self.elsewhere.requests("/metrics").is_empty());
        let answer = self.scraper.scrape("elsewhere", SOON);
        assert_eq!((answer.status, answer.header("location")), (502, None));
        assert!(http::get(self.scraper.http, &scrape_path("elsewhere"), &[]).expect("an answer").complete);
    }
}

fn exporter(elsewhere: &'static str) -> Exporter {
    let typed = |content_type, body: &[u8]| Reply::Whole {
        status: "200 OK",
        headers: vec![("Content-Type", content_type)],
        body: body.to_vec(),
    };
    let encoded = |coding, body| Reply::Whole {
        status: "200 OK",
        headers: vec![("Content-Type", TEXT), ("Content-Encoding", coding)],
        body,
    };
    let failed = |status, headers| Reply::Whole { status, headers, body: Vec::new() };
    let mut large = Vec::new();
    generate(500_000, |block| large.write_all(block)).expect("memory takes it");
    large.truncate(large.iter().rposition(|byte| *byte == b'\n').expect("lines") + 1);
    Exporter::start([
        ("/plain", Reply::text("# TYPE m gauge\nm 1\n")),
        ("/no-type", Reply::Whole { status: "200 OK", headers: vec![], body: b"m 1\n".to_vec() }),
        ("/json-type", typed("application/json", b"m 1\n")),
        ("/empty", typed(TEXT, b"")),
        ("/no-last-line-end", typed(TEXT, b"m 1")),
        ("/open-metrics", typed(OPEN_METRICS, b"# TYPE m gauge\nm 1\n# EOF\n")),
        ("/open-metrics-no-eof", typed(OPEN_METRICS, b"# TYPE m gauge\nm 1\n")),
        ("/gzip", encoded("gzip", compressed(GzEncoder::new(Vec::new(), Compression::fast()), GzEncoder::finish))),
        (
            "/deflate",
            encoded("deflate", compressed(ZlibEncoder::new(Vec::new(), Compression::fast()), ZlibEncoder::finish)),
        ),
        ("/crlf", typed(TEXT, b"m 1\r\nn 1\r\n")),
        ("/cut-length", Reply::CutLength { len: 100, sent: b"m 1\n".to_vec() }),
        ("/cut-chunked", Reply::CutChunked { sent: b"m 1\n".to_vec() }),
        ("/unfinished-line", typed(TEXT, b"m 1\nm{a=\"")),
        ("/no-content", failed("204 No Content", vec![])),
        ("/not-found", failed("404 Not Found", vec![])),
        ("/unavailable", failed("503 Service Unavailable", vec![])),
        ("/moved", failed("302 Found", vec![("Location", "/plain?moved=1")])),
        ("/elsewhere", failed("302 Found", vec![("Location", elsewhere)])),
        ("/hangs", Reply::Hang),
        ("/large", typed(TEXT, &large)),
    ])
}

fn compressed<W: Write>(mut encoder: W, finish: impl Fn(W) -> std::io::Result<Vec<u8>>) -> Vec<u8> {
    encoder.write_all(b"m 1\n").expect("memory takes it");
    finish(encoder).expect("memory takes it")
}
