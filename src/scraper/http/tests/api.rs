use std::sync::atomic::Ordering;

use serde_json::json;

use super::support::{Scraper, claim, no_pull, peer, request};
use crate::{network::LinkPath, scraper::HttpConfig};

async fn with_alias() -> Scraper {
    let scraper = Scraper::start(HttpConfig::default(), no_pull).await;
    scraper.register_as(1, "host", vec![claim("web-1", "web", &[("env", "prod")])]).await;
    scraper
}

fn delete(alias: &str, headers: &str) -> String {
    request(&format!("DELETE /api/v1/aliases/{alias}"), headers)
}

#[tokio::test]
async fn an_alias_is_listed_with_its_lease() {
    let scraper = with_alias().await;
    // A relayed link, two failed hole punches, and one that succeeded.
    scraper.link(1, LinkPath::Relayed);
    scraper.links().punch_failed(&peer(1));
    scraper.links().punch_failed(&peer(1));
    scraper.link(1, LinkPath::Direct);
    let answer = scraper.get("/api/v1/aliases/web-1").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let mut view = answer.json();
    assert_eq!(scraper.get("/api/v1/aliases").await.json()[0]["alias"], json!("web-1"));

    let lease = scraper.registry.lookup("web-1").expect("loaded").expect("held");
    let change = scraper.links().status(&peer(1)).change.expect("linked a moment ago");
    let left = view["expires_in_seconds"].take();
    assert!(left.as_u64().is_some_and(|left| (500..=600).contains(&left)), "{left}");
    assert_eq!(
        view,
        json!({
            "alias": "web-1",
            "peer": peer(1).to_string(),
            "service": "web",
            "hostname": "host",
            "labels": {"env": "prod"},
            "state": "active",
            "path": "direct",
            "link": {
                "transport": "quic",
                "address": "192.0.2.7:19961",
                "rtt_seconds": 0.025,
                "punches_succeeded": 1,
                "punches_failed": 2,
                "changed_at": humantime::format_rfc3339_seconds(change.at).to_string(),
                "reason": change.reason,
            },
            "registered_at": humantime::format_rfc3339_seconds(lease.registered_at).to_string(),
            "renewed_at": humantime::format_rfc3339_seconds(lease.renewed_at).to_string(),
            "expires_at": humantime::format_rfc3339_seconds(lease.expires_at).to_string(),
            "expires_in_seconds": null,
        })
    );
    assert_eq!(scraper.get("/api/v1/aliases/other").await.status, 404);
}

#[tokio::test]
async fn a_released_alias_is_gone_at_once() {
    let scraper = with_alias().await;
    let answer = scraper.ask(&delete("web-1", "")).await;
    assert_eq!((answer.status, answer.text()), (204, ""));
    assert_eq!(scraper.get("/sd").await.text(), "[]");
    assert_eq!(scraper.ask(&delete("web-1", "")).await.status, 404);
    assert_eq!(scraper.ask(&delete("a%20b", "")).await.status, 404);
}

#[tokio::test]
async fn a_release_that_cannot_be_kept_is_unavailable() {
    let scraper = with_alias().await;
    scraper.store_fails.store(true, Ordering::SeqCst);
    let answer = scraper.ask(&delete("web-1", "")).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("in use by another process"), "{answer:?}");
}

#[tokio::test]
async fn a_web_page_of_another_origin_releases_nothing() {
    let scraper = with_alias().await;
    let ours = format!("http://{}", scraper.addr);
    let port = scraper.addr.port();
    for origin in
        ["null", "http://evil.example", &format!("http://evil.example:{port}"), &format!("https://127.0.0.1:{port}")]
    {
        // With DNS rebinding the page's own name leads here, so that its Host and its Origin agree.
        let rebound = format!(
            "DELETE /api/v1/aliases/web-1 HTTP/1.1\r\nHost: evil.example:{port}\r\nOrigin: {origin}\r\n\
                               Connection: close\r\n\r\n"
        );
        assert_eq!(scraper.ask(&rebound).await.status, 403, "{origin}");
    }
    let two = format!("Origin: {ours}\r\nOrigin: http://evil.example\r\n");
    assert_eq!(scraper.ask(&delete("web-1", &two)).await.status, 403);
    let own =
        delete("web-1", &format!("Origin: {ours}\r\n")).replacen("Host: h", &format!("Host: {}", scraper.addr), 1);
    assert_eq!(scraper.ask(&own).await.status, 204);
}
