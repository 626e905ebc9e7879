use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use super::support::{Scraper, claim, no_pull, peer, request, within};
use crate::{
    network::LinkPath,
    scraper::{HttpConfig, http::table_list::TableList},
};

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
            "listed": true,
            "key_kept": false,
            "secret": "abababababababab",
            "secret_name": null,
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
            "last_scrape": null,
            "last_error": null,
            "registered_at": humantime::format_rfc3339_seconds(lease.registered_at).to_string(),
            "renewed_at": humantime::format_rfc3339_seconds(lease.renewed_at).to_string(),
            "expires_at": humantime::format_rfc3339_seconds(lease.expires_at).to_string(),
            "expires_in_seconds": null,
        })
    );
    assert_eq!(scraper.get("/api/v1/aliases/other").await.status, 404);
}

#[tokio::test]
async fn requests_at_once_share_one_view_of_the_table_which_is_forgotten_soon() {
    let scraper = with_alias().await;
    let (rendered, max_age) = (Arc::new(AtomicUsize::new(0)), Duration::from_millis(300));
    let count = Arc::clone(&rendered);
    let view = TableList::new(scraper.registry.clone(), scraper.links().clone(), Some(max_age), move |leases, _, _| {
        count.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(10));
        leases.len()
    });
    let readers = futures::future::join_all((0..100).map(|_| view.current())).await;
    let lists: Vec<_> = readers.into_iter().map(|list| list.expect("loaded")).collect();
    assert!(rendered.load(Ordering::SeqCst) == 1 && lists.iter().all(|list| list.list == 1));
    scraper.register_as(2, "", vec![claim("db-1", "", &[])]).await;
    let newer = view.current().await.expect("loaded");
    assert_eq!((newer.list, rendered.load(Ordering::SeqCst)), (2, 2));
    let forgotten = Arc::downgrade(&newer);
    drop(newer);
    let is_forgotten = async {
        while forgotten.strong_count() > 0 {
            tokio::time::sleep(max_age / 10).await;
        }
    };
    within(is_forgotten).await;
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
async fn the_aliases_of_a_peer_or_a_secret_are_released_together() {
    let scraper = with_alias().await;
    scraper.register_as(2, "host", vec![claim("db-1", "", &[]), claim("db-2", "", &[])]).await;
    let delete_all = |query: &str, headers: &str| request(&format!("DELETE /api/v1/aliases{query}"), headers);
    for query in ["", "?", "?peer=nobody", "?secret=12", "?secret=xy", "?alias=web-1"] {
        assert_eq!(scraper.ask(&delete_all(query, "")).await.status, 400, "{query}");
    }
    let of_peer = format!("?peer={}", peer(2));
    assert_eq!(scraper.ask(&delete_all(&of_peer, "Origin: http://evil.example\r\n")).await.status, 403);
    assert_eq!(scraper.ask(&delete_all(&of_peer, "")).await.json(), json!({ "released": 2 }));
    assert_eq!(scraper.ask(&delete_all(&of_peer, "")).await.json(), json!({ "released": 0 }));
    assert_eq!(scraper.ask(&delete_all("?secret=0000000000000000", "")).await.json(), json!({ "released": 0 }));
    assert_eq!(scraper.ask(&delete_all("?secret=abababababababab", "")).await.json(), json!({ "released": 1 }));
    assert_eq!(scraper.get("/sd").await.text(), "[]");
}

#[tokio::test]
async fn a_release_that_cannot_be_kept_is_unavailable() {
    let scraper = with_alias().await;
    scraper.store_fails.store(true, Ordering::SeqCst);
    let answer = scraper.ask(&delete("web-1", "")).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("registry store"), "{answer:?}");
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
