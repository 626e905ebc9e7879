//! How the agent asks an exporter: connections, redirects, queries, limits and headers.

use std::{
    io::{BufReader, Write},
    net::TcpListener,
    thread,
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use http_body_util::BodyExt;
use narthex::{agent::Params, client::SourceError};
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener},
};

use crate::{
    asking::{Asked, failure, pull, request, source, text},
    support::{
        SOON,
        exporter::{Exporter, Reply},
        http::{read_headers, read_line},
    },
};

#[tokio::test]
async fn redirects_are_followed_to_the_same_host_and_port_only() {
    let other = Exporter::start([("/metrics", Reply::text("other 1\n"))]);
    let exporter = Exporter::start([("/metrics", Reply::text("own 1\n"))]);
    let own = exporter.clone();
    let source = |path: &str| plain(&own.url(path));
    exporter.answer("/relative", to("/metrics?a=b"));
    exporter.answer("/absolute", to(&exporter.url("/relative")));
    exporter.answer("/twice", to("absolute"));
    assert_eq!(text(&source("/twice")).await, "own 1\n");
    assert_eq!(exporter.requests("/metrics?a=b").len(), 1);

    exporter.answer("/four", to("/twice"));
    assert!(failure(&source("/four")).await.contains("redirects more than 3 times"));
    exporter.answer("/loop", to("/loop"));
    assert!(failure(&source("/loop")).await.contains("redirects more than 3 times"));
    let port = other.address.port();
    for elsewhere in [
        other.url("/metrics"),
        format!("//127.0.0.1:{port}/metrics"),
        format!("http://{}@127.0.0.1:{port}/metrics", exporter.address),
        exporter.url("/metrics").replace("http:", "https:"),
        exporter.url("/metrics").replace("127.0.0.1", "localhost"),
    ] {
        exporter.answer("/away", to(&elsewhere));
        let failure = failure(&source("/away")).await;
        assert!(failure.contains("302") && failure.contains("own host and port"), "{elsewhere}: {failure}");
    }
    assert!(other.all_requests().is_empty());
}

#[tokio::test]
async fn a_query_reaches_the_exporter_as_far_as_the_target_allows_it() {
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let asked = async |url: &str, params: Params| {
        let source = source(&exporter.url(url), |settings| settings.params = params);
        pull(&source, Some("collect[]=cpu&collect[]=mem&target=evil")).await.expect("an exposition");
        exporter.all_requests().pop().expect("asked").path
    };
    assert_eq!(asked("/metrics", Params::None).await, "/metrics");
    let named = Params::Named(vec!["collect[]".to_owned()]);
    assert_eq!(asked("/metrics", named).await, "/metrics?collect[]=cpu&collect[]=mem");
    assert_eq!(asked("/metrics?target=own", Params::All).await, "/metrics?target=own&collect[]=cpu&collect[]=mem");
}

#[tokio::test]
async fn a_missing_content_type_is_repaired_only_where_that_is_asked_for() {
    let bare = |headers: Vec<(&'static str, &'static str)>| Reply::Whole { status: "200 OK", headers, body: vec![] };
    let exporter = Exporter::start([
        ("/bare", bare(vec![])),
        ("/empty", bare(vec![("Content-Type", "")])),
        ("/text", Reply::text("")),
    ]);
    let content_type = async |path: &str, fallback: Option<&'static str>| {
        let fallback = fallback.map(HeaderValue::from_static);
        let source = source(&exporter.url(path), |settings| settings.fallback_content_type = fallback);
        let (headers, _) = pull(&source, None).await.expect("an exposition");
        headers.get("content-type").map(|value| value.to_str().expect("text").to_owned())
    };
    assert_eq!(content_type("/bare", None).await, None);
    assert_eq!(
        content_type("/bare", Some("text/plain; version=0.0.4")).await.as_deref(),
        Some("text/plain; version=0.0.4")
    );
    assert_eq!(content_type("/empty", Some("text/plain")).await.as_deref(), Some("text/plain"));
    let own = content_type("/text", Some("application/json")).await;
    assert_eq!(own.as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_s_own_timeout_ends_a_pull_and_is_sent_to_the_exporter() {
    let exporter = Exporter::start([("/hang", Reply::Hang), ("/metrics", Reply::text("m 1\n"))]);
    let limited = |path: &str, timeout| source(&exporter.url(path), |settings| settings.timeout = Some(timeout));
    let ended = pull(&limited("/hang", Duration::from_millis(100)), None).await;
    assert!(matches!(ended, Err(SourceError::Deadline)), "{ended:?}");
    exporter.wait_abandoned("/hang");

    for (timeout, expected) in [(Duration::from_millis(2500), "2.5"), (Duration::from_secs(60), "10")] {
        pull(&limited("/metrics", timeout), None).await.expect("an exposition");
        let asked = exporter.all_requests().pop().expect("asked");
        assert_eq!(asked.header("x-prometheus-scrape-timeout-seconds"), Some(expected));
    }
}

#[tokio::test]
async fn the_body_of_a_failed_exporter_is_reported_if_it_is_text() {
    let reply = |headers: &[(&'static str, &'static str)], body: &str| Reply::Whole {
        status: "400 Bad Request",
        headers: headers.to_vec(),
        body: body.into(),
    };
    let go = "Client sent an HTTP request to an HTTPS server.\n";
    let exporter = Exporter::start([
        ("/go", reply(&[], go)),
        ("/colour", reply(&[("Content-Type", "text/plain")], "\u{1b}[31mred\nstack")),
        ("/page", reply(&[("Content-Type", "text/html")], "<html>")),
        ("/gzip", reply(&[("Content-Encoding", "gzip")], "\u{1f}")),
        ("/nothing", reply(&[], "")),
    ]);
    for (path, end) in [
        ("/go", ": Client sent an HTTP request to an HTTPS server."),
        ("/colour", ": \\u001b[31mred"),
        ("/page", ""),
        ("/gzip", ""),
        ("/nothing", ""),
    ] {
        let url = exporter.url(path);
        assert_eq!(failure(&plain(&url)).await, format!("exporter {url} answered 400 Bad Request{end}"));
    }
}

#[tokio::test]
async fn an_exporter_never_gets_more_time_than_the_pull_has() {
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let source = plain(&exporter.url("/metrics"));
    for asked_for in ["1000", "nonsense", ""] {
        let mut request = request(None);
        request.headers.insert("x-prometheus-scrape-timeout-seconds", HeaderValue::from_static(asked_for));
        if asked_for.is_empty() {
            request.headers.clear();
        }
        source.pull(request).await.expect("an exposition");
        let asked = exporter.all_requests().pop().expect("asked");
        let timeout =
            asked.header("x-prometheus-scrape-timeout-seconds").expect("the header").parse::<f64>().expect("seconds");
        assert!(timeout > 0.0 && timeout <= SOON.as_secs_f64(), "{timeout}");
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_cut_at_the_target_s_own_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/metrics", listener.local_addr().expect("bound"));
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
        read_request(&mut reader);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nm 1\n").expect("writes");
        let _ = read_line(&mut reader); // until the agent gives up
    });
    let source = source(&url, |settings| settings.timeout = Some(Duration::from_millis(200)));
    let exposition = source.pull(request(None)).await.expect("a head");
    let cut = exposition.body.collect().await.expect_err("cut");
    assert!(cut.to_string().contains("deadline"), "{cut}");
}

#[tokio::test]
async fn an_exporter_on_a_unix_socket_is_asked_there() {
    let exporter = Exporter::start([("/m", Reply::text("m 1\n"))]);
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("x.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let behind = exporter.address;
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut inside = TcpStream::connect(behind).await.expect("the exporter");
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    let path_of_socket = socket.display();
    let encoded = path_of_socket.to_string().replace('/', "%2F");
    for url in [format!("unix:{path_of_socket}:/m"), format!("http+unix://{encoded}/m")] {
        assert_eq!(text(&plain(&url)).await, "m 1\n", "{url}");
        assert_eq!(exporter.all_requests().pop().expect("asked").header("host"), Some("localhost"));
    }
    let nobody = failure(&plain(&format!("unix:{path_of_socket}-not:/m"))).await;
    assert!(nobody.contains("cannot connect to exporter unix:"), "{nobody}");
}

#[tokio::test]
async fn a_pull_that_a_kept_connection_loses_is_asked_once_more() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/metrics", listener.local_addr().expect("bound"));
    let exporter = thread::spawn(move || {
        // Answers one request on each connection. The next one on the first connection is taken and lost.
        let mut lost = 0;
        for number in 0..3 {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
            if number < 2 {
                read_request(&mut reader);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nm 1\n").expect("writes");
            }
            read_request(&mut reader);
            lost += 1;
        }
        lost
    });
    let source = plain(&url);
    assert_eq!(text(&source).await, "m 1\n");
    assert_eq!(text(&source).await, "m 1\n", "asked again on a fresh connection");
    // The kept one dies, and so does the fresh one: that is the end of it.
    assert!(failure(&source).await.contains("broke off"));
    assert_eq!(exporter.join().expect("no panic"), 3);
}

#[tokio::test]
async fn an_exporter_receives_prometheus_headers_and_those_that_are_named() {
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let named = ["x-own", "content-length", "expect", "host"].map(HeaderName::from_static);
    let source = source(&exporter.url("/metrics"), |settings| settings.request_headers = named.to_vec());
    let mut request = request(None);
    for (name, value) in [
        ("host", "evil"),
        ("authorization", "Bearer theirs"),
        ("cookie", "a=b"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("expect", "100-continue"),
        ("x-original-url", "/secret"),
        ("x-rewrite-url", "/secret"),
        ("x-forwarded-host", "evil"),
        ("x-http-method-override", "POST"),
        ("connection", "x-listed"),
        ("x-listed", "1"),
        ("x-webauth-user", "admin"),
        ("x-forwarded-user", "admin"),
        ("x-remote-user", "admin"),
        ("x-auth-request-user", "admin"),
        ("true-client-ip", "127.0.0.1"),
        ("x-client-ip", "127.0.0.1"),
        ("range", "bytes=0-0"),
        ("if-none-match", "*"),
        ("accept", "text/plain"),
        ("accept-encoding", "gzip"),
        ("user-agent", "Prometheus/3"),
        ("traceparent", "00-1-2-01"),
        ("x-prometheus-remote-read-version", "1"),
        ("x-own", "named"),
    ] {
        request.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    source.pull(request).await.expect("an exposition");
    let asked = exporter.all_requests().pop().expect("asked");
    let mut names: Vec<String> = asked.headers.iter().map(|(name, _)| name.to_lowercase()).collect();
    names.sort();
    let prometheus = ["x-prometheus-remote-read-version", "x-prometheus-scrape-timeout-seconds"];
    let expected = ["accept", "accept-encoding", "host", "traceparent", "user-agent", "x-own"];
    assert!(names.iter().eq(expected.iter().chain(&prometheus)), "{names:?}");
    assert_eq!(asked.header("host"), Some(exporter.address.to_string().as_str()));
}

fn plain(url: &str) -> Asked {
    source(url, |_| {})
}

fn to(location: &str) -> Reply {
    let location: &'static str = location.to_owned().leak();
    Reply::Whole { status: "302 Found", headers: vec![("Location", location)], body: b"Found".to_vec() }
}

fn read_request(reader: &mut BufReader<std::net::TcpStream>) {
    read_line(reader).expect("a request");
    read_headers(reader).expect("its headers");
}
