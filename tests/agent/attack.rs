//! A scraper that means harm can name an alias, and never a URL, a host, a port, a path or a method.
//!
//! The agent is linked to a scraper that is nobody's code but the test's, so that every byte of its requests is its own.

use narthex::identity::{KeyPair, PeerAddr};
use tokio::time::timeout;

use crate::support::{
    SOON,
    exporter::{Exporter, Reply},
    fleet::{Fleet, scrape_path},
    http,
    ports::free_port,
    stranger,
};

/// What only a request that went astray could bring back.
const SECRET: &str = "hunter2";

fn exporters() -> (Exporter, Exporter) {
    let secret = || Reply::text(SECRET);
    let own = Exporter::start([("/metrics", Reply::text("m 1\n")), ("/secret", secret()), ("/", secret())]);
    let other = Exporter::start([("/metrics", secret()), ("/web-1", secret()), ("/", secret())]);
    (own, other)
}

/// Asserts that the exporter was asked for nothing but its configured path, as itself, and without what could lead it
/// elsewhere.
#[track_caller]
fn only_asked_as_configured(own: &Exporter, other: &Exporter) {
    assert!(other.all_requests().is_empty(), "{:?}", other.all_requests());
    let host = own.address.to_string();
    for asked in own.all_requests() {
        assert_eq!((asked.path.as_str(), asked.header("host")), ("/metrics", Some(host.as_str())), "{asked:?}");
        for header in ["x-original-url", "x-rewrite-url", "x-forwarded-host", "forwarded", "content-length"] {
            assert_eq!(asked.header(header), None, "{asked:?}");
        }
        for header in ["transfer-encoding", "authorization", "cookie", "expect", "x-http-method-override"] {
            assert_eq!(asked.header(header), None, "{asked:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_scraper_reaches_nothing_but_the_aliases() {
    let fleet = Fleet::new();
    let (own, other) = exporters();
    let (evil, port) = (other.address, free_port());
    let hostile = KeyPair::generate();
    let peer = PeerAddr::at(hostile.public(), "127.0.0.1", port).to_string();
    let _agent = fleet.agent("agent", &["--scraper", &peer, "--target", &format!("web-1={}", own.url("/metrics"))]);

    let get =
        |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
    let mut requests = vec![get("/web-1", "")];
    // Paths and URLs instead of an alias, in every form that a request line has.
    for target in [
        &format!("http://{evil}/"),
        &format!("http://{evil}/metrics"),
        &format!("http://web-1@{evil}/metrics"),
        &format!("//{evil}/web-1"),
        &format!("/{evil}/metrics"),
        &format!("/http://{evil}/metrics"),
        &format!("/http:%2F%2F{evil}%2Fmetrics"),
        &format!("/web-1@{evil}"),
        &format!("/web-1:{}", evil.port()),
        "*",
        &evil.to_string(),
        "/",
        "",
    ] {
        requests.push(get(target, ""));
    }
    // Paths beyond the alias.
    for target in [
        "/web-1/secret",
        "/web-1/../secret",
        "/web-1%2F..%2Fsecret",
        "/web-1%2fsecret",
        "/../secret",
        "/./web-1",
        "//web-1",
        "/web-1/",
        "/web-1;/secret",
        "/web-1\\secret",
        "/web-1%00/secret",
        "/web-1%0d%0aGET%20/secret",
        "/%77eb-1",
        "/WEB-1",
        "/web-1#/secret",
        "/scrape/web-1/metrics",
        "/secret",
    ] {
        requests.push(get(target, ""));
    }
    // The alias is right, and something else is asked for in passing. These may be answered, by the alias's exporter.
    for target in [
        &format!("http://{evil}/web-1"),
        "/web-1?/secret",
        "/web-1?target=http://evil/&path=/secret",
        "/web-1?x=/../secret#",
        "/web-1?a%0d%0aX-Injected:%201",
    ] {
        requests.push(get(target, ""));
    }
    for headers in [
        "X-Original-URL: /secret\r\nX-Rewrite-URL: /secret\r\n",
        "X-HTTP-Method-Override: DELETE\r\n",
        "Authorization: Bearer theirs\r\nCookie: a=b\r\n",
        "Expect: 100-continue\r\n",
        "Connection: host, authorization\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        &format!("Forwarded: host={evil}\r\nX-Forwarded-Host: {evil}\r\n"),
        &format!("Host: {evil}\r\n"),
        "Content-Length: 0\r\n",
    ] {
        requests.push(get("/web-1", headers));
    }
    // A second request in the body of the first; an exporter that accepted its framing would answer it.
    let smuggled = "GET /secret HTTP/1.1\r\nHost: x\r\n\r\n";
    for (framing, body) in [
        (format!("Content-Length: {}\r\n", smuggled.len()), smuggled.to_owned()),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len())),
        (
            format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", smuggled.len()),
            format!("0\r\n\r\n{smuggled}"),
        ),
    ] {
        requests.push(get("/web-1", &framing) + &body);
    }
    for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PRI", "get"] {
        let target = if method == "CONNECT" { evil.to_string() } else { "/web-1".to_owned() };
        requests.push(get(&target, "").replacen("GET", method, 1));
    }
    requests.push(format!("GET /web-1 HTTP/1.0\r\nHost: {evil}\r\n\r\n"));
    requests.push("\u{0}\u{1}\u{2}nonsense\r\n\r\n".to_owned());
    requests.push(get("/web-1", "")); // after all that it is served as before

    let answers =
        timeout(SOON * 2, stranger::ask_whoever_connects(&hostile, port, &requests)).await.expect("all answered");
    for (request, answer) in requests.iter().zip(&answers) {
        let answer = String::from_utf8_lossy(answer);
        let line = request.lines().next().unwrap_or_default();
        assert!(!answer.contains(SECRET), "{line}: {answer}");
        let status = answer.find("HTTP/1.").map(|at| &answer[at + 9..at + 12]);
        if status == Some("200") {
            assert!(answer.contains("m 1\n") && line.contains("/web-1") && line.starts_with("GET"), "{line}: {answer}");
        }
        if ["HEAD", "POST", "PUT", "DELETE"].iter().any(|method| line.starts_with(method)) {
            assert_eq!(status, Some("405"), "{line}: {answer}");
        }
    }
    for served in [answers.first(), answers.last()] {
        assert!(String::from_utf8_lossy(served.expect("an answer")).contains("m 1\n"), "an alias is served");
    }
    only_asked_as_configured(&own, &other);
}

#[test]
fn whoever_asks_the_scraper_reaches_nothing_but_the_aliases() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let (own, other) = exporters();
    let _agent = fleet.agent_of(&scraper, "agent", [("web-1", own.url("/metrics"))], &[]);
    scraper.wait_scraped("web-1");
    let evil = other.address;
    for path in [
        &format!("/scrape/{evil}/metrics"),
        &format!("/scrape/http:%2F%2F{evil}%2F/metrics"),
        &format!("/scrape/web-1@{evil}/metrics"),
        &format!("//{evil}/metrics"),
        &format!("http://{evil}/metrics"),
        "/scrape/web-1%2F..%2Fsecret/metrics",
        "/scrape/web-1/secret",
        "/scrape/web-1/metrics/../../secret",
        "/scrape/web-1/../secret/metrics",
        "/scrape/web-1%3Fx/metrics",
    ] {
        if let Ok(answer) = http::get(scraper.http, path, &[]) {
            let (status, text) = (answer.status, answer.text());
            assert!(!text.contains(SECRET) && status >= 400, "{path}: {status} {text}");
        }
    }
    let tricks = [
        ("Authorization", "Bearer theirs"),
        ("Cookie", "a=b"),
        ("X-Original-URL", "/secret"),
        ("X-Forwarded-Host", "evil"),
        ("Connection", "x-listed"),
    ];
    let path = scrape_path("web-1") + "?target=http://evil/&x=/../secret";
    assert_eq!(http::get(scraper.http, &path, &tricks).expect("an answer").text(), "m 1\n");
    for method in ["HEAD", "POST", "DELETE"] {
        let answer = http::request(method, scraper.http, &scrape_path("web-1"), &[]);
        assert!(answer.is_ok_and(|answer| answer.status == 405), "{method}");
    }
    only_asked_as_configured(&own, &other);
}
