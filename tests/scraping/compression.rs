//! Metrics that their source left plain are compressed on the link when that is asked for, and only then.

use std::io::Read;

use flate2::read::GzDecoder;
use narthex::{
    TargetBuilder,
    client::{Compression, EventKind, Exposition, Text},
};

use crate::support::{
    exporter::{Exporter, Reply, generate},
    fleet::Fleet,
    http,
    linked::Linked,
    peers::{Monitor, node_exporter},
};

const GZIP: &[(&str, &str)] = &[("Accept-Encoding", "gzip")];

#[test]
fn an_agent_compresses_long_plain_answers_for_scrapes_that_accept_gzip() {
    let long = lines(300_000);
    let text = [("Content-Type", "text/plain; version=0.0.4"), ("X-Exporter-Says", "kept")];
    let whole = |headers: &[(&'static str, &'static str)], body: &[u8]| Reply::Whole {
        status: "200 OK",
        headers: headers.to_vec(),
        body: body.to_vec(),
    };
    let pieces = long.chunks(1000).map(<[u8]>::to_vec).collect();
    let exporter = Exporter::start([
        ("/long", whole(&text, &long)),
        ("/chunked", Reply::Chunked { headers: text.to_vec(), chunks: pieces }),
        ("/short", whole(&text, &long[..4999])),
        (
            "/short-chunked",
            Reply::Chunked { headers: text.to_vec(), chunks: vec![b"a 1\n".to_vec(), b"b 2\n".to_vec()] },
        ),
        ("/encoded", whole(&[text[0], ("Content-Encoding", "gzip")], &long)),
    ]);
    let (fleet, scraper) = Fleet::with_scraper();
    let paths = ["/long", "/chunked", "/short", "/short-chunked", "/encoded"];
    let targets = paths.map(|path| (&path[1..], exporter.url(path)));
    let flags = ["--compression", "gzip", "--compression-min-size", "5000"];
    let _agent = fleet.agent_of(&scraper, "agent", targets, &flags);
    scraper.wait_listed("short");

    for path in ["/long", "/chunked"] {
        let answer = scraper.ask(&path[1..], GZIP);
        assert_eq!(answer.header("content-encoding"), Some("gzip"), "{path}");
        assert_eq!((answer.header("content-length"), answer.header("vary")), (None, Some("Accept-Encoding")), "{path}");
        assert_eq!(answer.header("x-exporter-says"), None, "{path}");
        assert!(answer.complete && answer.body.len() < long.len() / 4, "{path}: {} bytes", answer.body.len());
        assert!(unzipped(&answer.body) == long, "{path}");
    }
    // What is short, encoded already or not to be encoded comes as it would from the exporter itself.
    let plain = ["short", "short-chunked", "encoded"].map(|alias| (alias, GZIP));
    for (alias, headers) in plain.into_iter().chain(["long", "chunked"].map(|alias| (alias, &[][..]))) {
        let through = scraper.ask(alias, headers);
        let direct = http::get(exporter.address, &format!("/{alias}"), headers).expect("the exporter answers");
        assert_eq!(through.body_headers(), direct.body_headers(), "{alias}");
        assert!(through.complete && through.body == direct.body, "{alias}");
    }
}

#[test]
fn a_client_compresses_its_own_metrics_and_reports_both_lengths() {
    let (fleet, scraper) = Fleet::with_scraper();
    let long = String::from_utf8(lines(100_000)).expect("text");
    let given = long.clone();
    let mut linked = Linked::start(&fleet, &scraper, |builder| {
        let source = Text::new(Exposition::TEXT, move || Ok(given.clone()));
        builder.compression(Compression::gzip()).target(TargetBuilder::new("long").metrics(source))
    });
    scraper.wait_listed("long");
    let answer = scraper.ask("long", GZIP);
    assert!(unzipped(&answer.body) == long.as_bytes());
    let lengths = linked.wait_event(|kind| match kind {
        EventKind::PullSucceeded { bytes, uncompressed_bytes, .. } => Some((*bytes, *uncompressed_bytes)),
        _ => None,
    });
    assert_eq!(lengths, (answer.body.len() as u64, long.len() as u64));
}

#[test]
fn prometheus_and_vmagent_read_what_the_agent_compressed() {
    let (fleet, scraper) = Fleet::with_scraper();
    let Some(prometheus) = Monitor::prometheus(fleet.path(), scraper.http, &[]) else { return };
    let Some((exporter, _process)) = node_exporter(fleet.path()) else { return };
    let plain = Exporter::start([("/metrics", Reply::text(&format!("answer 42\n{}", "# filler\n".repeat(1000))))]);
    let targets = [("node-1", format!("http://{exporter}/metrics")), ("plain", plain.url("/metrics"))];
    let _agent = fleet.agent_of(&scraper, "agent", targets, &["--compression", "gzip"]);
    prometheus.wait_value("answer{instance=\"plain\"}", 42.0);
    prometheus.wait_value("up{instance=\"node-1\"}", 1.0);
    assert_eq!(scraper.ask("plain", GZIP).header("content-encoding"), Some("gzip"));
    let Some(vmagent) = Monitor::vmagent(fleet.path(), scraper.http) else { return };
    vmagent.wait_health("plain", "up");
}

fn lines(len: usize) -> Vec<u8> {
    let mut lines = Vec::new();
    generate(len, |block| {
        lines.extend_from_slice(block);
        Ok(())
    })
    .expect("memory takes it");
    lines
}

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).expect("whole gzip");
    plain
}
