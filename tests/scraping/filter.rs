//! Families that a filter drops are not on the link; what is kept arrives as the exporter wrote it.

use narthex::{
    TargetBuilder,
    agent::Exporter as Source,
    client::{EventKind, Filter},
};

use crate::support::{
    exporter::{Exporter, Reply},
    fleet::{Fleet, NO_TARGETS, scrape_path, text},
    http,
    linked::Linked,
    peers::{Monitor, node_exporter},
    protobuf,
};

const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// As Prometheus asks with native histograms on.
const PROMETHEUS_HEADERS: [(&str, &str); 2] = [
    (
        "Accept",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
         application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    ),
    ("Accept-Encoding", "gzip"),
];

#[test]
fn kept_families_arrive_whole_and_byte_identical_and_no_others_do() {
    let kept = "# HELP http_seconds Ünïcödé \\n kept\n# TYPE http_seconds histogram\n\
                http_seconds_bucket{le=\"+Inf\"} 3 # {trace_id=\"x\"} 0.5\nhttp_seconds_sum 1e-5\nhttp_seconds_count 3\n";
    let dropped = "# HELP go_gc Dropped.\n# TYPE go_gc summary\ngo_gc{quantile=\"1\"} 1\ngo_gc_sum 1\ngo_gc_count 1\n";
    let headers = vec![("Content-Type", "application/openmetrics-text; version=1.0.0"), ("Vary", "Accept")];
    let pieces = |text: &str| text.as_bytes().chunks(7).map(<[u8]>::to_vec).collect();
    let exporter = Exporter::start([
        ("/some", Reply::Chunked { headers, chunks: pieces(&format!("{dropped}{kept}go_threads 7\n# EOF\n")) }),
        ("/cut", Reply::CutLength { len: 4000, sent: format!("{kept}{dropped}http_up 1").into() }),
        ("/binary", protobuf_reply()),
    ]);
    let (fleet, scraper) = Fleet::with_scraper();
    let mut linked = Linked::start(&fleet, &scraper, |builder| {
        ["some", "cut", "binary"].into_iter().fold(builder, |builder, alias| {
            let source = Source::new(exporter.url(&format!("/{alias}")).parse().expect("a URL")).expect("an http URL");
            let filter = Filter::new(Some("http_.*|go_threads"), Some("go_.*")).expect("patterns");
            builder.target(TargetBuilder::new(alias).metrics(source).filter(filter))
        })
    });
    scraper.wait_listed("some");

    let answer = scraper.ask("some", &PROMETHEUS_HEADERS);
    assert_eq!((answer.status, answer.complete), (200, true));
    assert_eq!(answer.text(), format!("{kept}# EOF\n"));
    assert_eq!(answer.header("vary"), Some("Accept"));
    let asked = exporter.wait_asked("/some").headers;
    let header =
        |name: &str| asked.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value);
    let text = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!((header("accept"), header("accept-encoding")), (Some(text), Some("identity")));

    // A cut body is cut behind the filter, too.
    if let Ok(answer) = http::get(scraper.http, &scrape_path("cut"), &PROMETHEUS_HEADERS) {
        assert!(answer.status != 200 || !answer.complete, "{}", answer.text());
    }
    // What cannot be read is not let through unfiltered.
    assert_eq!(scraper.ask("binary", &PROMETHEUS_HEADERS).status, 502);
    let failure = linked.wait_event(|kind| match kind {
        EventKind::PullFailed { alias, error, .. } if alias.as_str() == "binary" => Some(error.clone()),
        _ => None,
    });
    let why = std::error::Error::source(&*failure).expect("a cause").to_string();
    assert!(why.contains("a metric filter reads text"), "{why}");
}

#[test]
fn an_agents_table_keeps_and_drops() {
    let body = "# TYPE a counter\na_total 1\nb 2\n";
    let exporter = Exporter::start([("/metrics", Reply::text(body))]);
    let (fleet, scraper) = Fleet::with_scraper();
    let table = |alias: &str, key: &str| {
        format!("[[target]]\nalias = \"{alias}\"\nurl = \"{}\"\n{key}\n", exporter.url("/metrics"))
    };
    let config = fleet.path().join("agent.toml");
    let tables = [table("kept", "keep = \"a|c\""), table("dropped", "drop = \"a\""), table("all", "")].concat();
    std::fs::write(&config, tables).expect("writes");
    let _agent = fleet.agent_of(&scraper, "agent", NO_TARGETS, &["--config", &text(&config)]);
    scraper.wait_listed("all");
    assert_eq!(scraper.ask("kept", &PROMETHEUS_HEADERS).text(), "# TYPE a counter\na_total 1\n");
    assert_eq!(scraper.ask("dropped", &PROMETHEUS_HEADERS).text(), "b 2\n");
    let all = scraper.ask("all", &PROMETHEUS_HEADERS);
    assert_eq!((all.text().as_str(), all.header("content-length")), (body, Some(body.len().to_string().as_str())));
}

#[test]
fn prometheus_sees_what_a_filter_left_of_node_exporter_in_either_format() {
    let (fleet, scraper) = Fleet::with_scraper();
    let Some(prometheus) = Monitor::prometheus(fleet.path(), scraper.http, &[]) else { return };
    let Some((exporter, _process)) = node_exporter(fleet.path()) else { return };
    let source = || Source::new(format!("http://{exporter}/metrics").parse().expect("a URL")).expect("an http URL");
    let target = |alias: &str, keep| {
        TargetBuilder::new(alias)
            .metrics(source())
            .filter(Filter::new(keep, Some("node_cpu_guest.*")).expect("patterns"))
    };
    let _linked = Linked::start(&fleet, &scraper, |builder| {
        builder
            .target(target("node", Some("node_cpu_.*|node_load1|go_gc_duration_seconds")))
            .target(target("most", None))
    });

    prometheus.wait_value("up{instance=\"node\"}", 1.0);
    prometheus.wait_value("up{instance=\"most\"}", 1.0);
    let names = |alias: &str| -> Vec<String> {
        let series =
            prometheus.query(&format!("count by (__name__) ({{instance=\"{alias}\",__name__=~\"node_.*|go_.*\"}})"));
        series.into_iter().map(|(labels, _)| labels["__name__"].clone()).collect()
    };
    let kept = [
        "go_gc_duration_seconds",
        "go_gc_duration_seconds_count",
        "go_gc_duration_seconds_sum",
        "node_cpu_seconds_total",
        "node_load1",
    ];
    let mut left = names("node");
    left.sort();
    assert_eq!(left, kept);
    let most = names("most");
    assert!(most.len() > 100 && !most.iter().any(|name| name.starts_with("node_cpu_guest")), "{most:?}");
}

fn protobuf_reply() -> Reply {
    let body = protobuf::native_histogram("http_seconds", &[1, 2]);
    Reply::Whole { status: "200 OK", headers: vec![("Content-Type", PROTOBUF)], body }
}
