use std::{sync::Mutex, time::Duration};

use bytes::Bytes;
use http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{self, Instant},
};

use super::support::{Scraper, claim, fed, no_pull, within};
use crate::{
    http::{HttpLimits, bind},
    network::LinkPath,
    scraper::HttpConfig,
};

fn at_most(connections: usize) -> HttpConfig {
    let connections = HttpLimits { connections, ..HttpLimits::default() };
    HttpConfig { connections, ..HttpConfig::default() }
}

const HEALTHY: &str = "GET /-/healthy HTTP/1.1\r\nHost: h\r\n\r\n";

#[tokio::test]
async fn a_scrape_in_flight_completes_on_shutdown() {
    let (feed, parts) = mpsc::channel(1);
    let parts = Mutex::new(Some(parts));
    let scraper = Scraper::start(HttpConfig::default(), move |_, _| {
        let body = fed(parts.lock().expect("fine").take().expect("one scrape"));
        async { Ok(Response::new(body)) }
    })
    .await;
    scraper.register("web-1").await;
    let idle = scraper.send("").await;
    let mut stream = scraper.send("GET /scrape/web-1/metrics HTTP/1.1\r\nHost: h\r\n\r\n").await;
    within(feed.send(Bytes::from_static(b"m 1\n"))).await.expect("read");
    within(stream.read_u8()).await.expect("an answer begins");

    scraper.stop.cancel();
    within(async { while TcpStream::connect(scraper.addr).await.is_ok() {} }).await;
    assert!(!scraper.serving.is_finished());
    feed.send(Bytes::from_static(b"m 2\n")).await.expect("still read");
    drop(feed);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("reads to a clean end");
    assert!(rest.contains("m 1\n") && rest.contains("m 2\n") && rest.ends_with("0\r\n\r\n"), "{rest:?}");
    within(scraper.serving).await.expect("ends");
    drop(idle);
}

#[tokio::test]
async fn on_shutdown_a_connection_without_a_whole_request_is_closed_at_once() {
    for (before, half) in [("", ""), ("", "GET /-/ready HT"), (HEALTHY, ""), (HEALTHY, "GET /-/ready HT")] {
        let scraper = Scraper::start(HttpConfig::default(), no_pull).await;
        let mut stream = scraper.send(before).await;
        if !before.is_empty() {
            while within(stream.read_u8()).await.expect("an answer") != b'\n' {}
        }
        stream.write_all(half.as_bytes()).await.expect("sends");
        // Answered on a later connection: the scraper has seen what the first one sent.
        assert_eq!(scraper.get("/-/ready").await.status, 200);

        scraper.stop.cancel();
        within(scraper.serving).await.expect("ends");
    }
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let (_taken, addr) = bind(&"127.0.0.1:0".parse().expect("an address")).await.expect("binds");
    let addr = addr.to_string();
    let error = bind(&addr.parse().expect("an address")).await.expect_err("taken");
    assert!(error.to_string().contains(&addr));
    assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_connection_that_asks_nothing_makes_room_for_the_next() {
    let scraper = Scraper::start(at_most(1), no_pull).await;
    let mut silent = scraper.send("").await;
    let mut answered = scraper.send(HEALTHY).await;
    within(answered.read_u8()).await.expect("an answer");
    within(silent.read_to_end(&mut Vec::new())).await.expect("closed");
    assert_eq!(scraper.get("/sd").await.status, 200);
}

#[tokio::test]
async fn while_every_connection_is_being_answered_probes_are_and_nothing_is_cut() {
    let (feed, parts) = mpsc::channel(1);
    let parts = Mutex::new(Some(parts));
    let scraper = Scraper::start(at_most(1), move |_, _| {
        let body = fed(parts.lock().expect("fine").take().expect("one scrape"));
        async { Ok(Response::new(body)) }
    })
    .await;
    scraper.register("web-1").await;
    let mut stream = scraper.send("GET /scrape/web-1/metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    within(feed.send(Bytes::from_static(b"m 1\n"))).await.expect("read");
    within(stream.read_u8()).await.expect("an answer begins");
    for (path, status) in [("/-/healthy", 200), ("/sd", 503), ("/-/ready", 200)] {
        assert_eq!(scraper.get(path).await.status, status, "{path}");
    }
    drop(feed);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("reads to a clean end");
    assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
}

#[tokio::test]
async fn the_link_of_the_holder_of_each_alias_is_exported() {
    let scraper = Scraper::loading(HttpConfig::default(), no_pull).await;
    assert_eq!(scraper.get("/metrics/aliases").await.status, 503);
    scraper.load().await;
    for (seed, alias) in [(1, "direct"), (2, "gone"), (3, "relayed")] {
        scraper.register_as(seed, "", vec![claim(alias, "", &[])]).await;
    }
    scraper.link(1, LinkPath::Direct);
    scraper.link(3, LinkPath::Relayed);
    let expected = "\
# HELP narthex_alias_link_up 1 while the peer that holds the alias is linked.
# TYPE narthex_alias_link_up gauge
narthex_alias_link_up{alias=\"direct\"} 1
narthex_alias_link_up{alias=\"gone\"} 0
narthex_alias_link_up{alias=\"relayed\"} 1
# HELP narthex_alias_link_relayed 1 while that link goes through a relay.
# TYPE narthex_alias_link_relayed gauge
narthex_alias_link_relayed{alias=\"direct\"} 0
narthex_alias_link_relayed{alias=\"gone\"} 0
narthex_alias_link_relayed{alias=\"relayed\"} 1
";
    assert_eq!(scraper.get("/metrics/aliases").await.text(), expected);
}

#[tokio::test]
async fn own_metrics_come_in_the_format_asked_for() {
    let scraper = Scraper::start(HttpConfig::default(), no_pull).await;
    let accepts = [
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        // Prometheus 3
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
         text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    ];
    for accept in accepts {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAccept: {accept}\r\n\r\n");
        let answer = scraper.ask(&request).await;
        let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(answer.header("content-type"), Some(open_metrics));
        assert!(answer.text().ends_with("# EOF\n"));
    }

    let answer = scraper.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(answer.text().contains("# TYPE narthex_scrapes_total counter\n") && !answer.text().contains("# EOF"));
}

#[tokio::test]
async fn health_answers_get_and_head_and_what_is_not_there_lists_what_is() {
    let scraper = Scraper::start(HttpConfig::default(), no_pull).await;
    for path in ["/-/healthy", "/-/ready"] {
        assert_eq!(scraper.get(path).await.status, 200, "{path}");
        let head = scraper.ask(&format!("HEAD {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
    assert!(scraper.get("/").await.text().contains("/sd"));
    let answer = scraper.get("/targets").await;
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("text/plain; charset=utf-8")));
    assert!(answer.text().contains("/scrape/{alias}/metrics"));
    let answer = scraper.ask("POST /sd HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")));
    assert_eq!(answer.text(), "POST is not served here\n");
}

#[tokio::test]
async fn a_request_is_waited_for_for_seconds_and_the_next_one_for_minutes() {
    let scraper = Scraper::start(HttpConfig::default(), no_pull).await;
    let mut answered = scraper.send(HEALTHY).await;
    time::pause();
    for half in [String::new(), "G".to_owned(), format!("{HEALTHY}GET /-/rea")] {
        let began = Instant::now();
        let mut stream = scraper.send(&half).await;
        // Closed, with or without a reset.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        assert!(began.elapsed() < Duration::from_secs(15), "{half:?}: {:?}", began.elapsed());
    }
    time::sleep(Duration::from_secs(280)).await;
    answered.write_all(b"GET /-/ready HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.expect("sends");
    let mut answer = String::new();
    answered.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.contains("scraper is ready"), "{answer:?}");
}

#[tokio::test]
async fn a_head_may_have_16_kib() {
    let scraper = Scraper::start(HttpConfig::default(), no_pull).await;
    for (len, statuses) in [(15 << 10, [200, 200]), (17 << 10, [431, 0])] {
        let long = "a".repeat(len);
        let answer =
            scraper.ask(&format!("GET /-/ready HTTP/1.1\r\nConnection: close\r\nX-Long: {long}\r\n\r\n")).await;
        assert!(statuses.contains(&answer.status), "{len}: {answer:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_or_none_does_no_harm() {
    let scraper = Scraper::start(HttpConfig::default(), no_pull).await;
    let long = "a".repeat(100_000);
    for request in [
        format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"),
        format!("GET /sd HTTP/1.1\r\nHost: h\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /sd HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(1000)),
        "\0\0\0\0\r\n\r\n".to_owned(),
    ] {
        let answer = scraper.ask(&request).await;
        assert!((400..500).contains(&answer.status) || answer.status == 0, "{answer:?}");
    }
    assert_eq!(scraper.get("/-/healthy").await.status, 200);
}
