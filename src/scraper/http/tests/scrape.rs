use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::{mpsc, oneshot},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::support::{Answer, Pulled, Scraper, body, claim, fed, no_pull, peer, request, within};
use crate::{
    http::PullRequest,
    scraper::{
        HttpConfig, ScrapeConfig,
        pull::{PullBody, PullError},
    },
    wire::{Alias, PullReason},
};

const SCRAPE: &str = "GET /scrape/web-1/metrics";

fn limited(max_body: u64, max_concurrent: usize) -> HttpConfig {
    HttpConfig { scrape: ScrapeConfig { max_body, max_concurrent, ..ScrapeConfig::default() }, ..HttpConfig::default() }
}

async fn scraped<F, A>(config: HttpConfig, pull: F) -> Answer
where
    F: Fn(Alias, PullRequest) -> A + Send + Sync + 'static,
    A: Future<Output = Pulled> + Send + 'static,
{
    let scraper = Scraper::start(config, pull).await;
    scraper.register("web-1").await;
    scraper.get("/scrape/web-1/metrics").await
}

#[tokio::test]
async fn bytes_of_an_exposition_are_handed_on_unchanged_with_the_headers_that_describe_them() {
    let answer = scraped(HttpConfig::default(), async |_, _| {
        let response = Response::builder()
            .header("Content-Type", "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily")
            .header("Content-Encoding", "gzip")
            .header("Vary", "Accept")
            .header("Vary", "Accept-Encoding")
            .header("X-Exporter", "a \"quoted\" word")
            .header("Connection", "keep-alive, X-Hop")
            .header("Keep-Alive", "timeout=5")
            .header("X-Hop", "1")
            .header("Set-Cookie", "a=b")
            .header("Clear-Site-Data", "*")
            .header("Strict-Transport-Security", "max-age=63072000")
            .header("Refresh", "0; url=http://evil.example")
            .header("Cache-Control", "public")
            .header("Access-Control-Allow-Origin", "*");
        Ok(response.body(body([Ok(b"\x1f\x8b\0\xff"), Ok(b""), Ok(b"\r\n0\r\n\r\nend")])).expect("fine"))
    })
    .await;
    assert!(answer.status == 200 && answer.complete, "{answer:?}");
    assert_eq!(answer.body, b"\x1f\x8b\0\xff\r\n0\r\n\r\nend");
    let mut headers = answer.headers;
    headers.retain(|(name, _)| !["date", "connection", "transfer-encoding"].contains(&name.as_str()));
    headers.sort();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        headers,
        [
            ("cache-control", "no-store"),
            ("content-encoding", "gzip"),
            ("content-type", "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily"),
            ("vary", "Accept"),
            ("vary", "Accept-Encoding"),
            ("x-content-type-options", "nosniff"),
        ]
    );
}

#[tokio::test]
async fn a_content_length_is_kept() {
    let scraper = Scraper::start(HttpConfig::default(), async |_, _| {
        Ok(Response::builder().header("Content-Length", "4").body(body([Ok(b"m 1\n")])).expect("fine"))
    })
    .await;
    scraper.register("web-1").await;
    let answer = scraper.get("/scrape/web-1/metrics").await;
    assert!(answer.complete && answer.header("transfer-encoding").is_none());
    assert_eq!((answer.header("content-length"), answer.text()), (Some("4"), "m 1\n"));
    scraper.counted("narthex_scrapes_total{outcome=\"ok\"} 1").await;
}

#[tokio::test]
async fn the_peer_gets_prometheus_own_headers_and_query() {
    let (asked, mut seen) = mpsc::channel(1);
    let scraper = Scraper::start(HttpConfig::default(), move |alias, request| {
        asked.try_send((alias, request)).expect("room");
        async { Ok(Response::new(body([]))) }
    })
    .await;
    scraper.register("web-1").await;
    let before = Instant::now();
    let request = "GET /scrape/web%2D1/metrics?m=a+b&m=%2F HTTP/1.1\r\nHost: h\r\nAccept: a, b\r\nAccept-Encoding: gzip\r\n\
                   X-Prometheus-Scrape-Timeout-Seconds: 2.5\r\nAuthorization: Bearer secret\r\nCookie: a=b\r\n\
                   Connection: close, x-hop\r\nX-Hop: 1\r\n\r\n";
    assert_eq!(scraper.ask(request).await.status, 200);

    let (alias, request) = seen.recv().await.expect("pulled");
    assert_eq!((alias.as_str(), request.query.as_deref()), ("web-1", Some("m=a+b&m=%2F")));
    let mut headers: Vec<_> = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    headers.sort_unstable();
    let expected: [(&str, &[u8]); 3] =
        [("accept", b"a, b"), ("accept-encoding", b"gzip"), ("x-prometheus-scrape-timeout-seconds", b"2.5")];
    assert_eq!(headers, expected);
    let given = request.deadline - before;
    assert!(given >= Duration::from_millis(2250) && request.deadline < Instant::now() + Duration::from_millis(2250));
}

#[tokio::test]
async fn what_a_reverse_proxy_adds_to_a_scrape_stays_at_the_scraper_unless_it_is_named() {
    let (asked, mut seen) = mpsc::channel(1);
    let named = ["x-scope-orgid", "authorization"].map(HeaderName::from_static).to_vec();
    let scrape = ScrapeConfig { request_headers: named, ..ScrapeConfig::default() };
    let scraper = Scraper::start(HttpConfig { scrape, ..HttpConfig::default() }, move |_, request: PullRequest| {
        asked.try_send(request).expect("room");
        async { Ok(Response::new(body([]))) }
    })
    .await;
    scraper.register("web-1").await;
    let of_a_proxy = [
        "Authorization",
        "Cookie",
        "Proxy-Authorization",
        "X-Auth-Token",
        "X-Api-Key",
        "X-Forwarded-User",
        "X-Forwarded-Access-Token",
        "X-Forwarded-Client-Cert",
        "X-Amzn-Oidc-Data",
        "X-Scope-OrgID",
        "Cf-Access-Jwt-Assertion",
        "Forwarded",
        "If-None-Match",
        "Range",
    ];
    let of_a_proxy: String = of_a_proxy.iter().map(|name| format!("{name}: secret\r\n")).collect();
    let request = format!("GET /scrape/web-1/metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{of_a_proxy}");
    let of_prometheus = "Accept: text/plain\r\nAccept-Encoding: gzip\r\nUser-Agent: Prometheus/3\r\n\
                         X-Prometheus-Scrape-Timeout-Seconds: 9\r\nTraceparent: 00-1-2-01\r\nTracestate: a=b\r\n\r\n";
    assert_eq!(scraper.ask(&(request + of_prometheus)).await.status, 200);
    let mut names: Vec<_> = seen.recv().await.expect("pulled").headers.keys().map(ToString::to_string).collect();
    names.sort_unstable();
    let of_prometheus = ["accept", "accept-encoding", "traceparent", "tracestate", "user-agent"];
    assert_eq!(names, [&of_prometheus[..], &["x-prometheus-scrape-timeout-seconds", "x-scope-orgid"]].concat());
}

#[tokio::test]
async fn a_reader_that_stalls_has_little_of_an_exposition_pulled() {
    const PART: usize = 64 << 10;
    let pulled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pulled);
    let scraper = Scraper::start(HttpConfig::default(), move |_, _| {
        let count = Arc::clone(&count);
        let parts = stream::repeat_with(move || {
            count.fetch_add(PART, Ordering::SeqCst);
            Ok(Frame::data(Bytes::from_static(&[b'x'; PART])))
        });
        async { Ok(Response::new(StreamBody::new(parts.take(512)).boxed_unsync())) }
    })
    .await;
    scraper.register("web-1").await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(PART as u32).expect("a size");
    let mut stalled = socket.connect(scraper.addr).await.expect("connects");
    stalled.write_all(b"GET /scrape/web-1/metrics HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("sends");
    within(stalled.read_u8()).await.expect("the answer begins");
    let mut before = 0;
    while before != pulled.load(Ordering::SeqCst) {
        before = pulled.load(Ordering::SeqCst);
        time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < 2 << 20, "{before} bytes were pulled for a reader of none");
}

#[tokio::test]
async fn a_cut_exposition_never_ends_cleanly() {
    let cut: [fn() -> Response<PullBody>; 4] = [
        || Response::new(body([Ok(b"m 1\n"), Err("link lost")])),
        || Response::new(body([Err("link lost")])),
        || Response::builder().header("Content-Length", "20").body(body([Ok(b"m 1\n")])).expect("fine"),
        || Response::builder().header("Content-Length", "20").body(body([])).expect("fine"),
    ];
    for pull in cut {
        let scraper = Scraper::start(HttpConfig::default(), move |_, _| std::future::ready(Ok(pull()))).await;
        scraper.register("web-1").await;
        // Kept alive on our part: only an end by the scraper ends the connection.
        let answer = scraper.ask("GET /scrape/web-1/metrics HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(!answer.complete, "{answer:?}");
        scraper.counted("narthex_scrapes_total{outcome=\"cut\"} 1").await;
    }
}

#[tokio::test]
async fn an_exposition_over_the_limit_is_refused_or_cut() {
    let answer = scraped(limited(8, 1), async |_, _| {
        Ok(Response::builder().header("Content-Length", "9").body(body([Ok(b"123456789")])).expect("fine"))
    })
    .await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("limit of 8 bytes"), "{answer:?}");

    let answer = scraped(limited(8, 1), async |_, _| Ok(Response::new(body([Ok(b"12345"), Ok(b"6789")])))).await;
    assert!(answer.status == 0 || !answer.complete, "{answer:?}");
    let answer = scraped(limited(8, 1), async |_, _| Ok(Response::new(body([Ok(b"12345"), Ok(b"678")])))).await;
    assert!(answer.complete, "{answer:?}");
}

#[tokio::test]
async fn failures_have_the_status_that_names_who_failed() {
    type Failure = fn(Alias) -> PullError;
    let failures: [(u16, &str, &str, Failure); 6] = [
        (502, "not_connected", "is not connected", |alias| PullError::NotConnected { alias, peer: peer(1) }),
        (502, "broken", "before answering: stream\\nreset", |alias| PullError::Broken {
            alias,
            peer: peer(1),
            source: "stream\nreset".into(),
        }),
        (502, "refused", "answered 500 Internal Server Error: exporter\\r\\ndown", |alias| PullError::Refused {
            alias,
            peer: peer(1),
            status: StatusCode::INTERNAL_SERVER_ERROR,
            reason: None,
            message: "exporter\r\ndown".into(),
        }),
        (502, "refused", "nothing listens at the exporter's address (refused): pull 4", |alias| PullError::Refused {
            alias,
            peer: peer(1),
            status: StatusCode::BAD_GATEWAY,
            reason: Some(PullReason::Refused),
            message: "pull 4".into(),
        }),
        (504, "deadline", "answered 504", |alias| PullError::Refused {
            alias,
            peer: peer(1),
            status: StatusCode::GATEWAY_TIMEOUT,
            reason: None,
            message: String::new(),
        }),
        (504, "deadline", "did not answer within 3s", |alias| PullError::Deadline {
            alias,
            peer: peer(1),
            limit: Duration::from_secs(3),
        }),
    ];
    for (status, outcome, reason, failure) in failures {
        let scraper =
            Scraper::start(HttpConfig::default(), move |alias, _| std::future::ready(Err(failure(alias)))).await;
        scraper.register("web-1").await;
        let answer = scraper.get("/scrape/web-1/metrics").await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        let text = answer.text();
        assert!(text.contains("web-1") && text.contains(reason) && text.lines().count() == 1, "{text:?}");
        scraper.counted(&format!("narthex_scrapes_total{{outcome=\"{outcome}\"}} 1")).await;
    }
}

#[tokio::test]
async fn the_scraper_answers_before_prometheus_gives_up() {
    let scraper = Scraper::start(HttpConfig::default(), |_, _| std::future::pending()).await;
    scraper.register("web-1").await;
    let answer = scraper.ask(&request(SCRAPE, "X-Prometheus-Scrape-Timeout-Seconds: 0.2\r\n")).await;
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("did not answer within 180ms"), "{answer:?}");
}

#[tokio::test]
async fn a_timeout_that_makes_no_sense_is_refused() {
    let scraper = Scraper::start(HttpConfig::default(), no_pull).await;
    scraper.register("web-1").await;
    let answer = scraper.ask(&request(SCRAPE, "X-Prometheus-Scrape-Timeout-Seconds: soon\r\n")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("soon"), "{answer:?}");
}

#[tokio::test]
async fn unknown_and_impossible_aliases_are_not_found() {
    let scraper = Scraper::start(HttpConfig::default(), no_pull).await;
    for path in ["/scrape/other/metrics", "/scrape/%2e%2e/metrics", "/scrape/a%0Ab/metrics", "/scrape/%FF/metrics"] {
        let answer = scraper.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        assert_eq!(answer.text().lines().count(), 1, "{path}");
    }
    scraper.counted("narthex_scrapes_total{outcome=\"unknown_alias\"} 4").await;
}

#[tokio::test]
async fn before_the_table_is_loaded_a_scrape_is_unavailable_not_unknown() {
    let scraper = Scraper::loading(HttpConfig::default(), no_pull).await;
    assert_eq!(scraper.get("/scrape/web-1/metrics").await.status, 503);
}

#[tokio::test]
async fn only_get_scrapes() {
    let scraper = Scraper::start(HttpConfig::default(), no_pull).await;
    scraper.register("web-1").await;
    for method in ["HEAD", "POST", "DELETE", "OPTIONS"] {
        let answer = scraper.ask(&request(&format!("{method} /scrape/web-1/metrics"), "")).await;
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{method}: {answer:?}");
    }
}

#[tokio::test]
async fn whoever_goes_away_ends_the_pull_before_and_within_the_answer() {
    let (began, mut begins) = mpsc::unbounded_channel();
    let scraper = Scraper::start(HttpConfig::default(), move |alias: Alias, _| {
        let dropped = CancellationToken::new();
        began.send(dropped.clone()).expect("the test listens");
        let guard = dropped.drop_guard();
        async move {
            if alias.as_str() == "silent" {
                std::future::pending::<()>().await;
            }
            let (feed, parts) = mpsc::channel(1);
            feed.send(Bytes::from_static(b"m 1\n")).await.expect("room");
            // The body holds the guard and its own end open, so it goes on for ever.
            let kept = (feed, guard);
            Ok(Response::new(fed(parts).map_frame(move |frame| (&kept, frame).1).boxed_unsync()))
        }
    })
    .await;
    scraper.register_as(1, "", ["silent", "endless"].map(|alias| claim(alias, "", &[])).into()).await;

    let silent = scraper.send("GET /scrape/silent/metrics HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let dropped = begins.recv().await.expect("pulled");
    scraper.counted("narthex_scrapes_in_flight 1").await;
    drop(silent);
    within(dropped.cancelled()).await;

    let mut endless = scraper.send("GET /scrape/endless/metrics HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let dropped = begins.recv().await.expect("pulled");
    within(endless.read_u8()).await.expect("an answer begins");
    drop(endless);
    within(dropped.cancelled()).await;
    scraper.counted("narthex_scrapes_total{outcome=\"client_gone\"} 2").await;
    scraper.counted("narthex_scrapes_in_flight 0").await;
}

#[tokio::test]
async fn scrapes_over_the_limit_are_turned_away_until_one_ends() {
    let (feed, parts) = mpsc::channel(1);
    let first = Mutex::new(Some(parts));
    let scraper = Scraper::start(limited(1000, 1), move |_, _| {
        let body = first.lock().expect("fine").take().map_or_else(|| body([]), fed);
        async { Ok(Response::new(body)) }
    })
    .await;
    scraper.register("web-1").await;
    let mut slow = scraper.send("GET /scrape/web-1/metrics HTTP/1.1\r\nHost: h\r\n\r\n").await;
    within(feed.send(Bytes::from_static(b"m 1\n"))).await.expect("read");
    within(slow.read_u8()).await.expect("an answer begins");

    assert_eq!(scraper.get("/scrape/web-1/metrics").await.status, 503);
    assert_eq!(scraper.get("/sd").await.status, 200, "the rest is answered all the same");
    scraper.counted("narthex_scrapes_total{outcome=\"overloaded\"} 1").await;
    scraper.counted("narthex_limit_refusals_total{limit=\"max_scrapes\"} 1").await;
    drop(feed);
    scraper.counted("narthex_scrapes_total{outcome=\"ok\"} 1").await;
    assert_eq!(scraper.get("/scrape/web-1/metrics").await.status, 200);
}

/// Before: whoever came after the last place got 503, whosever scrapes hung.
#[tokio::test]
async fn peers_whose_scrapes_hang_leave_room_for_the_scrape_of_another() {
    let scraper = Scraper::start(limited(1000, 2), async |alias: Alias, _| {
        if alias.as_str() == "web-1" {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(body([Ok(b"m 1\n")])))
    })
    .await;
    for (seed, alias) in [(1, "web-1"), (2, "web-2")] {
        scraper.register_as(seed, "", vec![claim(alias, "", &[])]).await;
    }
    let hangs = "GET /scrape/web-1/metrics HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut first = scraper.send(hangs).await;
    scraper.counted("narthex_scrapes_in_flight 1").await;
    let _second = scraper.send(hangs).await;
    scraper.counted("narthex_scrapes_in_flight 2").await;

    assert_eq!(scraper.get("/scrape/web-2/metrics").await.status, 200);
    let mut status = [0; 12];
    within(first.read_exact(&mut status)).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 503");
    scraper.counted("narthex_limit_refusals_total{limit=\"max_scrapes\"} 1").await;
    scraper.counted("narthex_scrapes_in_flight 1").await;
}

#[tokio::test]
async fn http_1_0_gets_only_bodies_whose_end_it_finds() {
    let scraper = Scraper::start(HttpConfig::default(), async |alias: Alias, _| {
        let mut response = Response::new(body([Ok(b"m 1\n")]));
        if alias.as_str() == "long" {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("4"));
        }
        Ok(response)
    })
    .await;
    scraper.register_as(1, "", ["long", "open"].map(|alias| claim(alias, "", &[])).into()).await;
    assert_eq!(scraper.ask("GET /scrape/long/metrics HTTP/1.0\r\n\r\n").await.text(), "m 1\n");
    assert_eq!(scraper.ask("GET /scrape/open/metrics HTTP/1.0\r\n\r\n").await.status, 505);
}

#[tokio::test]
async fn a_page_made_by_a_peer_is_sandboxed_in_a_browser() {
    let scraper = Scraper::start(HttpConfig::default(), async |_, _| {
        Ok(Response::builder().header("Content-Type", "text/html").body(body([Ok(b"<script>")])).expect("fine"))
    })
    .await;
    scraper.register("web-1").await;
    let browser = request(SCRAPE, "Accept: text/html,*/*;q=0.8\r\n");
    assert_eq!(scraper.ask(&browser).await.header("content-security-policy"), Some("sandbox"));
    assert_eq!(scraper.get("/scrape/web-1/metrics").await.header("content-security-policy"), None);
}

#[tokio::test]
async fn a_body_of_many_megabytes_streams() {
    const PARTS: usize = 64;
    let (feed, parts) = mpsc::channel(1);
    let (signal, half_read) = oneshot::channel();
    let parts = Mutex::new(Some(parts));
    let scraper = Scraper::start(HttpConfig::default(), move |_, _| {
        let body = fed(parts.lock().expect("fine").take().expect("one scrape"));
        async { Ok(Response::new(body)) }
    })
    .await;
    scraper.register("web-1").await;
    let feeding = tokio::spawn(async move {
        let part = Bytes::from(vec![b'x'; 256 << 10]);
        for _ in 0..PARTS / 2 {
            feed.send(part.clone()).await.expect("read");
        }
        half_read.await.expect("signalled");
        for _ in 0..PARTS / 2 {
            feed.send(part.clone()).await.expect("read");
        }
    });
    let mut stream = scraper.send(&request(SCRAPE, "")).await;
    let mut first = vec![0; 4 << 20];
    within(stream.read_exact(&mut first)).await.expect("the first half comes before the second is made");
    signal.send(()).expect("waited for");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("reads");
    assert!(rest.ends_with(b"\r\n0\r\n\r\n") && first.len() + rest.len() > PARTS * (256 << 10));
    feeding.await.expect("fed");
}

#[tokio::test]
async fn an_exposition_that_the_peer_breaks_off_at_the_end_of_its_time_was_too_slow() {
    let late = Arc::new(Mutex::new(true));
    let scraper = Scraper::start(HttpConfig::default(), {
        let late = Arc::clone(&late);
        move |_, request: PullRequest| {
            let sooner = Duration::from_millis(if *late.lock().expect("sound") { 100 } else { 1500 });
            let broken = async move {
                time::sleep_until(request.deadline - sooner).await;
                Err("broken off".into())
            };
            let begun = stream::iter([Ok(Frame::data(Bytes::from("m 1\n")))]);
            async { Ok(Response::new(StreamBody::new(begun.chain(stream::once(broken))).boxed_unsync())) }
        }
    })
    .await;
    scraper.register("web-1").await;
    let reason = async || {
        scraper.ask(&request(SCRAPE, "X-Prometheus-Scrape-Timeout-Seconds: 2\r\n")).await;
        scraper.get("/api/v1/aliases/web-1").await.json()["last_error"]["reason"].clone()
    };
    assert_eq!(reason().await, "deadline");
    *late.lock().expect("sound") = false;
    assert_eq!(reason().await, "cut");
}

#[tokio::test]
async fn a_scrape_is_noted_of_the_holder_that_was_asked() {
    let (ask, mut asked) = mpsc::channel(1);
    let (fail, failing) = mpsc::channel::<()>(1);
    let failing = Arc::new(tokio::sync::Mutex::new(failing));
    let scraper = Scraper::start(HttpConfig::default(), move |alias, _| {
        ask.try_send(()).expect("room");
        let failing = Arc::clone(&failing);
        async move {
            failing.lock().await.recv().await;
            Err(PullError::NotConnected { alias, peer: peer(1) })
        }
    })
    .await;
    for (name, goes_on_to, noted) in [("web-1", 1, true), ("web-2", 2, false)] {
        let alias: Alias = name.parse().expect("an alias");
        scraper.register_as(1, "", vec![claim(name, "", &[])]).await;
        let path = format!("/scrape/{name}/metrics");
        tokio::join!(scraper.get(&path), async {
            asked.recv().await.expect("asked");
            scraper.registry.release(&alias).await.expect("released");
            scraper.register_as(goes_on_to, "", vec![claim(name, "", &[])]).await;
            fail.send(()).await.expect("the pull waits");
        });
        let last_error = scraper.get(&format!("/api/v1/aliases/{name}")).await.json()["last_error"].clone();
        assert_eq!(last_error.is_null(), !noted, "{last_error}");
    }
}
