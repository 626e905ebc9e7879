use http::Response;

use super::support::{Scraper, body, claim, request};
use crate::{scraper::HttpConfig, wire::Alias};

/// Answers with the alias that was asked for.
async fn scraper() -> Scraper {
    let pull = async |alias: Alias, _| {
        Ok(Response::new(body([Ok(if alias.as_str() == "web-1" { b"web-1" } else { b"other" })])))
    };
    let scraper = Scraper::start(HttpConfig::default(), pull).await;
    let aliases = ["web-1", "127.0.0.1", "UPPER_case"];
    scraper.register_as(1, "", aliases.map(|alias| claim(alias, "", &[])).into()).await;
    scraper
}

#[tokio::test]
async fn prometheus_proxy_url_scrapes_aliases() {
    let scraper = scraper().await;
    for target in ["web-1", "web-1:80", "web-1:9100"] {
        let answer = scraper.ask(&request(&format!("GET http://{target}/metrics"), "")).await;
        assert_eq!((answer.status, answer.text()), (200, "web-1"), "{target}");
    }
    for path in ["/probe?target=x", "/", "/sd", "/api/v1/aliases", "/scrape/UPPER_case/metrics"] {
        let answer = scraper.ask(&request(&format!("GET http://web-1{path}"), "")).await;
        assert_eq!((answer.status, answer.text()), (200, "web-1"), "{path}");
    }
    assert_eq!(scraper.ask(&request("GET http://UPPER_case/metrics?x=1", "")).await.text(), "other");
    // An alias that looks like our own address is one, unless the port is ours too.
    assert_eq!(scraper.ask(&request("GET http://127.0.0.1:9100/metrics", "")).await.text(), "other");
}

#[tokio::test]
async fn our_own_address_in_absolute_form_is_answered_as_by_path() {
    let scraper = scraper().await;
    for host in [scraper.addr.to_string(), format!("localhost:{}", scraper.addr.port())] {
        let answer = scraper.ask(&request(&format!("GET http://{host}/metrics"), "")).await;
        assert!(answer.text().contains("narthex_build_info"), "{host}: {answer:?}");
        let answer = scraper.ask(&request(&format!("GET http://{host}/scrape/web-1/metrics"), "")).await;
        assert_eq!(answer.text(), "web-1", "{host}");
    }
}

#[tokio::test]
async fn it_is_no_proxy_to_anywhere_else() {
    let scraper = scraper().await;
    let cases = [
        ("GET http://example.org/metrics", 404, "no peer holds alias example.org"),
        ("GET http://example.org/sd", 404, "no peer holds alias example.org"),
        ("GET https://web-1/metrics", 400, "scheme http"),
        ("GET ftp://web-1/metrics", 400, "scheme http"),
        ("POST http://web-1/metrics", 405, "only GET"),
        ("DELETE http://web-1/api/v1/aliases/web-1", 405, "only GET"),
        ("CONNECT web-1:443", 405, "scheme http"),
    ];
    for (line, status, reason) in cases {
        let answer = scraper.ask(&request(line, "")).await;
        assert_eq!(answer.status, status, "{line}: {answer:?}");
        assert!(answer.text().contains(reason), "{line}: {answer:?}");
    }
}
