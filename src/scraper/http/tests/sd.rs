use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use ::http::Response;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::support::{Scraper, body, claim, no_pull, peer, request, within};
use crate::{
    network::LinkPath,
    registry::Damage,
    scraper::{
        HttpConfig,
        http::sd_list::{SdList, is_same},
    },
    wire::Claim,
};

async fn started() -> Scraper {
    Scraper::start(HttpConfig::default(), no_pull).await
}

async fn aliases(scraper: &Scraper, query: &str) -> Vec<String> {
    let answer = scraper.get(&format!("/sd{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    let groups = answer.json();
    let alias = |group: &Value| group["labels"]["instance"].as_str().expect("an instance").to_owned();
    groups.as_array().expect("a list").iter().map(alias).collect()
}

#[tokio::test]
async fn a_group_is_unchanged_since_v1() {
    let scraper = started().await;
    scraper.link(1, LinkPath::Relayed);
    let labels = [("region", "eu \"1\" \u{17e}"), ("tier", "a"), ("gone", "")];
    scraper.register_as(1, "host.example", vec![claim("web-1", "web", &labels)]).await;
    let answer = scraper.get("/sd").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let golden = format!(
        r#"[{{"targets":["{}"],"labels":{{"__metrics_path__":"/scrape/web-1/metrics","instance":"web-1","#,
        scraper.addr
    ) + r#""service":"web","__meta_narthex_service":"web","hostname":"host.example","#
        + r#""__meta_narthex_hostname":"host.example","region":"eu \"1\" ž","#
        + r#""__meta_narthex_label_region":"eu \"1\" ž","tier":"a","__meta_narthex_label_tier":"a","#
        + &format!(r#""__meta_narthex_alias":"web-1","__meta_narthex_public_key":"{}","#, peer(1))
        + r#""__meta_narthex_path":"relayed","__meta_narthex_state":"active"}}]"#;
    assert_eq!(answer.text(), golden);
}

#[tokio::test]
async fn prometheus_can_take_every_key_label_and_value() {
    let scraper = started().await;
    scraper.register_as(1, "", vec![claim("a", "", &[("x", "1")]), claim("b", "s", &[("y", "2")])]).await;
    scraper.register_as(2, "h", vec![claim("c", "", &[])]).await;
    let groups = scraper.get("/sd").await.json();
    for group in groups.as_array().expect("a list") {
        let keys: BTreeSet<_> = group.as_object().expect("a group").keys().map(String::as_str).collect();
        assert_eq!(keys, BTreeSet::from(["labels", "targets"]));
        assert_eq!(group["targets"], json!([scraper.addr.to_string()]));
        for (name, value) in group["labels"].as_object().expect("labels") {
            assert!(name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'), "{name}");
            assert!(name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'), "{name}");
            assert!(value.as_str().is_some_and(|value| !value.is_empty()), "{name} is {value}");
        }
    }
}

#[tokio::test]
async fn the_list_is_empty_only_if_the_table_is_known_to_be() {
    let scraper = Scraper::loading(HttpConfig::default(), no_pull).await;
    for path in ["/sd", "/sd?service=web", "/-/ready", "/api/v1/aliases"] {
        assert_eq!(scraper.get(path).await.status, 503, "{path}");
    }
    assert_eq!(scraper.get("/-/healthy").await.status, 200);
    scraper.load().await;
    assert_eq!(scraper.get("/sd").await.text(), "[]");
    assert_eq!(scraper.get("/-/ready").await.status, 200);
    scraper.counted("narthex_sd_requests_total{outcome=\"unavailable\"} 2").await;
}

#[tokio::test]
async fn a_failing_store_keeps_prometheus_at_the_list_it_has() {
    let scraper = started().await;
    scraper.register("a").await;
    scraper.store_fails.store(true, Ordering::SeqCst);
    let alias = "a".parse().expect("an alias");
    scraper.registry.release(&alias).await.expect_err("the store fails");
    assert_eq!(scraper.get("/sd").await.status, 503);
    assert_eq!(scraper.get("/-/ready").await.status, 503);
    scraper.counted("narthex_store_failing 1").await;
    scraper.store_fails.store(false, Ordering::SeqCst);
    within(async { while scraper.get("/sd").await.status != 200 {} }).await;
    assert_eq!(scraper.get("/sd").await.text(), "[]");
}

#[tokio::test]
async fn a_store_that_has_lost_aliases_keeps_prometheus_at_the_list_it_has() {
    let scraper = Scraper::loading(HttpConfig::default(), async |_, _| Ok(Response::new(body([Ok(b"x 1\n")])))).await;
    scraper.load_with(Some(Damage { noted: Some(2), found: 0, awaited: None })).await;
    scraper.register("a").await;
    for path in ["/sd", "/sd?alias=a"] {
        let answer = scraper.get(path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.text().contains("damaged"), "{answer:?}");
    }
    assert_eq!(scraper.get("/-/ready").await.status, 200);
    assert_eq!(scraper.get("/scrape/a/metrics").await.status, 200);
    assert_eq!(scraper.get("/api/v1/aliases/a").await.status, 200);
    scraper.counted("narthex_store_damaged_total 1").await;
}

#[tokio::test]
async fn an_acknowledged_alias_is_in_the_very_next_list() {
    let scraper = started().await;
    let mut expected = Vec::new();
    for n in 0..50 {
        let alias = format!("a{n:02}");
        scraper.register_as(n, "", vec![claim(&alias, "", &[])]).await;
        expected.push(alias.clone());
        assert_eq!(aliases(&scraper, "").await, expected);
        assert_eq!(aliases(&scraper, &format!("?alias={alias}")).await, [alias]);
    }
    // Not in order, and with one that goes.
    scraper.register_as(3, "", vec![claim("a00b", "", &[])]).await;
    expected.insert(1, "a00b".into());
    expected.retain(|alias| alias != "a03");
    assert_eq!(aliases(&scraper, "").await, expected);
}

#[tokio::test]
async fn changed_labels_and_paths_are_listed() {
    let scraper = started().await;
    scraper.register_as(1, "h", vec![claim("a", "", &[("v", "1")])]).await;
    let labels = async || scraper.get("/sd").await.json()[0]["labels"].clone();
    assert_eq!((&labels().await["v"], &labels().await["__meta_narthex_path"]), (&json!("1"), &json!("none")));
    scraper.register_as(1, "h", vec![claim("a", "", &[("v", "2")])]).await;
    assert_eq!(labels().await["v"], json!("2"));
    scraper.link(1, LinkPath::Direct);
    within(async { while labels().await["__meta_narthex_path"] != json!("direct") {} }).await;
    scraper.counted("narthex_links{path=\"direct\"} 1").await;
    scraper.counted("narthex_aliases{state=\"active\"} 1").await;
}

#[tokio::test]
async fn an_alias_that_is_not_listed_is_scraped_and_shown_by_the_api_alone() {
    let scraper = Scraper::start(HttpConfig::default(), async |_, _| Ok(Response::new(body([Ok(b"x 1\n")])))).await;
    let unlisted = |unlisted| Claim { unlisted, ..claim("probe", "", &[]) };
    scraper.register_as(1, "", vec![claim("a", "", &[]), unlisted(true)]).await;
    assert_eq!(aliases(&scraper, "").await, ["a"]);
    assert!(aliases(&scraper, "?alias=probe").await.is_empty());
    assert_eq!(scraper.get("/scrape/probe/metrics").await.status, 200);
    let shown = scraper.get("/api/v1/aliases").await.json();
    assert_eq!((&shown[0]["listed"], &shown[1]["listed"]), (&json!(true), &json!(false)));
    scraper.register_as(1, "", vec![claim("a", "", &[]), unlisted(false)]).await;
    assert_eq!(aliases(&scraper, "").await, ["a", "probe"]);
}

#[tokio::test]
async fn filters_of_one_name_give_a_choice_and_those_of_several_names_all_hold() {
    let scraper = started().await;
    let claims = vec![
        claim("a", "web", &[("env", "prod"), ("url", "x:y z")]),
        claim("b", "web", &[("env", "test")]),
        claim("c", "db", &[("env", "prod")]),
    ];
    scraper.register_as(1, "h", claims).await;
    let cases: [(&str, &[&str]); 21] = [
        ("", &["a", "b", "c"]),
        ("?service=web", &["a", "b"]),
        ("?alias=b", &["b"]),
        ("?label=env:prod", &["a", "c"]),
        ("?label=env:prod&service=web", &["a"]),
        ("?label=env:prod&label=env:test", &["a", "b", "c"]),
        ("?label=env:prod&label=url:x%3Ay+z", &["a"]),
        ("?alias=b&alias=c&alias=none", &["b", "c"]),
        ("?service=web&service=db&label=env:prod", &["a", "c"]),
        ("?service=!web", &["c"]),
        ("?service=!web&service=!db", &[]),
        ("?service=web&alias=!a", &["b"]),
        ("?label=env:!prod", &["b"]),
        ("?label=url:!", &["a"]),
        ("?kind=!nodes&alias=%21c", &["a", "b"]),
        ("?label=url:x%3Ay+z", &["a"]),
        ("?label=url:", &["b", "c"]),
        ("?service=none", &[]),
        // As they are listed.
        ("?label=service:web&label=instance:!a", &["b"]),
        ("?label=instance:b&label=instance:c", &["b", "c"]),
        ("?label=hostname:!h", &[]),
    ];
    for (query, expected) in cases {
        assert_eq!(aliases(&scraper, query).await, expected, "{query}");
    }
    let answer = scraper.get("/sd?job=x").await;
    assert_eq!(
        (answer.status, answer.text()),
        (400, "unknown parameter \"job\": there are service, alias, kind and label; service=!web negates\n")
    );
}

#[tokio::test]
async fn the_target_is_the_host_that_was_asked_or_the_advertised_one() {
    let target = async |scraper: &Scraper, host: &str| {
        let request = format!("GET /sd HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        scraper.ask(&request).await.json()[0]["targets"][0].clone()
    };
    let scraper = started().await;
    scraper.register("a").await;
    assert_eq!(target(&scraper, "Host: scraper.example:1234\r\n").await, json!("scraper.example:1234"));
    let own = json!(scraper.addr.to_string());
    assert_eq!(target(&scraper, "").await, own);
    assert_eq!(target(&scraper, "Host: a\"b\r\n").await, own);
    assert_eq!(target(&scraper, &format!("Host: {}\r\n", "a".repeat(1000))).await, own);

    let advertise = Some("public.example:80".parse().expect("an address"));
    let scraper = Scraper::start(HttpConfig { advertise, ..HttpConfig::default() }, no_pull).await;
    scraper.register("a").await;
    assert_eq!(target(&scraper, "Host: other:1\r\n").await, json!("public.example:80"));
}

#[tokio::test]
async fn an_unchanged_list_is_not_rendered_again_and_a_changed_one_shares_the_rest() {
    let scraper = started().await;
    scraper.register("a").await;
    let list = SdList::new(scraper.registry.clone(), scraper.links().clone());
    let current = async || list.current().await.expect("loaded");
    let first = current().await;
    // A plain renewal changes nothing that is listed.
    scraper.register("a").await;
    assert!(Arc::ptr_eq(&first, &current().await));
    scraper.register_as(2, "", vec![claim("b", "", &[])]).await;
    let second = current().await;
    let third = current().await;
    assert!(!is_same(&first.list, &second.list) && is_same(&second.list, &third.list));
    assert!(Arc::ptr_eq(&first.list[0].json, &second.list[0].json));
}

#[tokio::test]
async fn a_list_of_many_chunks_is_whole_for_each_host_and_has_its_length() {
    let scraper = started().await;
    for n in 0..100 {
        let labels = [("a", "x".repeat(900)), ("b", "y".repeat(900))];
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        scraper.register_as(n, "", vec![claim(&format!("fat-{n:03}"), "web", &labels)]).await;
    }
    for host in ["one.example:1", "another.example:65535"] {
        for (path, count) in [("/sd", 100), ("/sd?service=web", 100), ("/sd?service=none", 0), ("/sd?alias=fat-050", 1)]
        {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = scraper.ask(&request).await;
            let length = answer.header("content-length").and_then(|length| length.parse().ok());
            assert_eq!((answer.complete, length), (true, Some(answer.body.len())), "{path} {host}");
            let groups = answer.json();
            let groups = groups.as_array().expect("a list");
            assert_eq!(groups.len(), count, "{path} {host}");
            assert!(groups.iter().all(|group| group["targets"] == json!([host])), "{path} {host}");
        }
    }
}

/// With a table of which no answer fits into the buffers between us and a reader that reads nothing.
async fn with_large_table(max_sd_readers: usize) -> Scraper {
    let scraper = Scraper::start(HttpConfig { max_sd_readers, ..HttpConfig::default() }, no_pull).await;
    let labels: Vec<(String, String)> = (0..3).map(|n| (format!("l{n}"), "x".repeat(600))).collect();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for seed in 0..50 {
        let claims = (0..60).map(|n| claim(&format!("a-{seed}-{n}"), "", &labels)).collect();
        scraper.register_as(seed, "", claims).await;
    }
    scraper
}

#[tokio::test]
async fn a_reader_that_stalls_makes_room_for_the_next_and_its_connection_ends() {
    let scraper = with_large_table(1).await;
    for (path, asked) in [("/sd", "/sd"), ("/api/v1/aliases", "/sd"), ("/sd", "/api/v1/aliases")] {
        let mut stalled = scraper.send(&request(&format!("GET {path}"), "")).await;
        within(stalled.read_u8()).await.expect("the answer begins");
        let answer = scraper.get(asked).await;
        assert!(answer.status == 200 && answer.complete, "{asked} while {path} is stalled: {}", answer.status);
        assert_eq!(answer.json().as_array().map(Vec::len), Some(3000));
        let mut rest = Vec::new();
        // A reset is one way for a connection to be broken off.
        let _ = within(stalled.read_to_end(&mut rest)).await;
        assert!(!rest.ends_with(b"}]"), "the stalled answer was cut");
    }
    scraper.counted("narthex_limit_refusals_total{limit=\"max_sd_readers\"} 3").await;
}
