//! Whoever reaches the scraper's HTTP side, and keeps its connections instead of asking something.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use narthex::{KeyPair, identity};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, deafened, scrape_path, text},
    honest::Honest,
    http::{self, Exchange},
    noise,
    ports::{free_port, loopback},
    process::Process,
};

fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).expect("connects")).collect()
}

/// Sends `request` as it is, and gives the status of the answer.
#[track_caller]
fn status(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(SOON)).expect("a socket has timeouts");
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).expect("a status line").to_owned()
}

/// Before: whatever came after the last place waited up to 330 s. Among 10 300 silent connections `/-/healthy` had no answer
/// within 60 s, as seen with the version before.
#[test]
fn silent_connections_keep_out_neither_prometheus_nor_probes() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&["--max-http-connections", "200", "--max-http-connections-per-ip", "150"]);
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let _agent = fleet.agent_of(&scraper, "agent", [("web-1", exporter.url("/metrics"))], &[]);
    scraper.wait_scraped("web-1");

    let mut honest = Honest::scraping(&scraper, &["web-1"]);
    let flood = silent(scraper.http, 300);
    for path in ["/-/healthy", "/-/ready", "/sd", "/metrics", &scrape_path("web-1")] {
        assert_eq!(scraper.get(path).status, 200, "{path}");
    }
    // The last of them wait for a moment before others are closed for them.
    let refused = || scraper.count(&["limit_refusals", "max_http_connections_per_ip"]) >= 150.0;
    eventually_true("the first half was closed for the second", SOON, refused);
    scraper.process.wait_log(&["max-http-connections-per-ip"]);
    let joined = honest.newcomer(&fleet, &scraper);
    assert_eq!(honest.report("300 silent HTTP connections", &scraper, joined, flood), 0, "honest scrapes failed");
}

#[test]
fn probes_are_answered_while_every_connection_is_busy_and_no_answer_is_cut() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&["--max-http-connections", "5"]);
    let exporter = Exporter::start([("/metrics", Reply::Gated(Box::new(Reply::text("m 1\n"))))]);
    let _agent = fleet.agent_of(&scraper, "agent", [("slow", exporter.url("/metrics"))], &[]);
    scraper.wait_listed("slow");

    let timeout = [("X-Prometheus-Scrape-Timeout-Seconds", "60")];
    let slow: Vec<_> =
        (0..5).map(|_| http::send("GET", scraper.http, &scrape_path("slow"), &timeout).expect("sent")).collect();
    eventually_true("all five are being answered", SOON, || exporter.requests("/metrics").len() == 5);
    for (path, expected) in [("/-/healthy", 200), ("/sd", 503), ("/-/ready", 200)] {
        assert_eq!(scraper.get(path).status, expected, "{path}");
    }
    let _flood = silent(scraper.http, 300);
    assert_eq!(scraper.get("/-/healthy").status, 200);
    exporter.open_gate();
    for mut stream in slow {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("m 1\n"), "{answer}");
    }
}

/// Sends the head of a GET request from 127.0.0.`host`.
async fn ask_from(host: u8, address: SocketAddr, path: &str) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, host], 0).into()).expect("an address of loopback");
    let mut stream = socket.connect(address).await.expect("connects");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nX-Prometheus-Scrape-Timeout-Seconds: 60\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("sends");
    stream
}

/// Before: a source that came fourth got 503 as long as three others kept all connections busy.
#[tokio::test(flavor = "multi_thread")]
async fn sources_that_keep_every_connection_busy_leave_room_for_another_source() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&["--max-http-connections", "6"]);
    let slow = Reply::Gated(Box::new(Reply::text("m 1\n")));
    let exporter = Exporter::start([("/slow", slow), ("/metrics", Reply::text("m 2\n"))]);
    let targets = [("slow", exporter.url("/slow")), ("web-1", exporter.url("/metrics"))];
    let _agent = fleet.agent_of(&scraper, "agent", targets, &[]);
    scraper.wait_scraped("web-1");

    let mut busy = Vec::new();
    for host in [2, 3, 4, 2, 3, 4] {
        busy.push(ask_from(host, scraper.http, &scrape_path("slow")).await);
        eventually_true("it is being answered", SOON, || exporter.requests("/slow").len() == busy.len());
    }
    for path in ["/sd", "/metrics", &scrape_path("web-1")] {
        let mut answer = String::new();
        ask_from(5, scraper.http, path).await.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    exporter.open_gate();
    let mut answered = 0;
    for mut stream in busy {
        let mut answer = String::new();
        // A connection that made room ends without an answer.
        let _ = stream.read_to_string(&mut answer).await;
        answered += usize::from(answer.starts_with("HTTP/1.1 200") && answer.ends_with("m 1\n"));
    }
    // A request may come before the scraper has seen the end of the one before, and need one more place.
    assert!((3..6).contains(&answered), "{answered} of the six were answered, and each source keeps its share");
}

/// Before: four of these readers used up the window of the agent's QUIC connection, 64 its streams, 32 of each of two
/// aliases, too; the other alias was not answered, and then the scraper closed the link.
#[test]
fn readers_that_stall_cost_the_other_aliases_of_the_agent_nothing() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let large = Reply::Whole { status: "200 OK", headers: vec![("Content-Type", "text/plain")], body: noise(19 << 20) };
    let exporter = Exporter::start([("/large", large), ("/small", Reply::text("m 1\n"))]);
    let targets = [("large-0", "/large"), ("large-1", "/large"), ("small", "/small")];
    let targets = targets.map(|(alias, path)| (alias, exporter.url(path)));
    let _agent = fleet.agent_of(&scraper, "agent", targets, &[]);
    scraper.wait_scraped("small");

    let mut honest = Honest::scraping(&scraper, &["small"]);
    let timeout = [("X-Prometheus-Scrape-Timeout-Seconds", "18")];
    let stalled: Vec<_> = (0..80)
        .map(|number| scrape_path(&format!("large-{}", number % 2)))
        .map(|path| http::send("GET", scraper.http, &path, &timeout).expect("sent"))
        .collect();
    eventually_true("most of them are being pulled", SOON, || exporter.requests("/large").len() >= 64);
    for _ in 0..5 {
        // Less than the readers have.
        let answer = scraper.scrape("small", Duration::from_secs(15));
        assert_eq!((answer.status, answer.text().as_str()), (200, "m 1\n"));
    }
    let joined = honest.newcomer(&fleet, &scraper);
    assert_eq!(honest.report("80 readers that stall at two aliases", &scraper, joined, ()), 0, "honest scrapes failed");
    // Their deadline ends them at the agent, although nobody reads.
    exporter.wait_abandoned("/large");
    eventually_true("the scraper gives up all of them", SOON, || {
        let unanswered =
            scraper.count(&["narthex_scrapes_total"]) - scraper.count(&["narthex_scrapes_total", "\"ok\""]);
        scraper.count(&["narthex_scrapes_in_flight"]) == 0.0 && unanswered >= 80.0
    });
    assert_eq!(scraper.process.log_line(&["its connection is closed"]), None);
    assert_eq!(scraper.scrape("small", Duration::from_secs(5)).status, 200);
    drop(stalled);
}

/// Before: 20 connections that asked like this cost the agent its link within seconds, and its other scrapes were 502.
#[test]
fn scrapes_that_leave_no_time_cost_the_agent_no_link() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let agent = fleet.agent_of(&scraper, "agent", [("web-1", exporter.url("/metrics"))], &[]);
    scraper.wait_scraped("web-1");

    let mut honest = Honest::scraping(&scraper, &["web-1"]);
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: h\r\nX-Prometheus-Scrape-Timeout-Seconds: 0.001\r\n\r\n",
        scrape_path("web-1")
    );
    let end = Instant::now() + Duration::from_secs(8);
    thread::scope(|scope| {
        for _ in 0..60 {
            scope.spawn(|| {
                let (mut stream, mut answer) = (TcpStream::connect(scraper.http).expect("connects"), [0; 4096]);
                while Instant::now() < end {
                    stream.write_all(request.as_bytes()).expect("sends");
                    assert_ne!(stream.read(&mut answer).expect("an answer"), 0);
                }
            });
        }
    });
    let joined = honest.newcomer(&fleet, &scraper);
    assert_eq!(honest.report("60 askers that leave no time", &scraper, joined, ()), 0, "honest scrapes failed");
    assert_eq!((agent.log_line(&["link lost"]), scraper.process.log_line(&["its connection is closed"])), (None, None));
}

/// Before: any page whose name leads to the scraper read everything, as seen with the version before.
#[test]
fn a_page_whose_name_was_made_to_lead_here_reads_nothing() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&["--http-allowed-host", "metrics.example.org"]);
    let port = scraper.http.port();
    let get = |host: &str, headers: &str| {
        status(scraper.http, &format!("GET /sd HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"))
    };
    for header in [
        "Accept-Language: en\r\n",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n",
        "Sec-Fetch-Site: same-origin\r\n",
        "Origin: http://evil.example\r\n",
        "Referer: http://evil.example/\r\n",
    ] {
        for host in [&format!("evil.example:{port}"), "evil.example", "", "localhost.evil.example"] {
            assert_eq!(get(host, header), "403", "{host} {header}");
        }
        for host in [&format!("127.0.0.1:{port}"), "[::1]", "localhost", "LOCALHOST:1", "metrics.example.org"] {
            assert_eq!(get(host, header), "200", "{host} {header}");
        }
    }
    assert_eq!(get("scraper.example:9", "User-Agent: Prometheus/3.5.0\r\nAccept: */*\r\n"), "200");
}

/// Before: nothing was said, and whoever took the last descriptor kept probes out.
#[test]
fn connections_beyond_the_open_files_are_said_at_the_start_and_probes_are_answered_without_a_free_one() {
    let fleet = Fleet::new();
    identity::create_key(&fleet.path().join("scraper.key"), &KeyPair::generate()).expect("the key is written");
    let (address, p2p) = (loopback(free_port()), loopback(free_port()));
    let mut command = deafened(Command::new("sh"));
    command.args(["-c", "ulimit -n 400 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_narthex"), "scraper"]);
    command.args(["--key", &text(&fleet.path().join("scraper.key"))]);
    command.args(["--secret-file", &text(&fleet.secret_file())]);
    command.args(["--data-dir", &text(&fleet.path().join("data"))]);
    command.args(["--http", &address.to_string(), "--listen", &p2p.to_string()]);
    let scraper = Process::spawn("scraper", fleet.path(), &mut command);
    scraper.wait_log(&["open_files=400", "max_connections=16384", "max_http_connections=10240", "--max-connections"]);

    let healthy = || http::get(address, "/-/healthy", &[]).is_ok_and(|answer| answer.status == 200);
    eventually_true("the scraper answers", SOON, healthy);
    let mut kept = Exchange::begin("GET", address, "/-/healthy", &[]).expect("an answer");
    assert!(kept.read_body(|_| {}));
    let (_peers, _flood) = (silent(p2p, 600), silent(address, 600));
    for _ in 0..10 {
        assert!(healthy());
    }
}
