use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time;

use super::support::{Scraper, claim, no_pull, within};
use crate::{
    network::LinkPath,
    scraper::{
        HttpConfig, ScraperError,
        http::{FileSd, table_list::LINKS_PAUSE},
    },
};

const WRITTEN: &str = "narthex_file_sd_writes_total{outcome=\"ok\"}";

fn temporary() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("sd.json");
    (dir, path)
}

fn keeping(path: &Path) -> HttpConfig {
    HttpConfig { file_sd: Some(path.to_owned()), ..HttpConfig::default() }
}

/// Waits until the file holds what `is_it` looks for.
async fn until(path: &Path, is_it: impl Fn(&str) -> bool) {
    let reads = async {
        while !fs::read_to_string(path).is_ok_and(|content| is_it(&content)) {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(reads).await;
}

#[tokio::test]
async fn the_file_equals_the_sd_answer() {
    let (_dir, path) = temporary();
    let scraper = Scraper::start(keeping(&path), no_pull).await;
    until(&path, |content| content == "[]").await;
    scraper.register_as(1, "h", vec![claim("a", "web", &[("v", "1")])]).await;
    until(&path, |content| content.contains("\"a\"")).await;
    assert_eq!(fs::read_to_string(&path).expect("reads"), scraper.get("/sd").await.text());
    scraper.register_as(1, "h", vec![claim("a", "web", &[("v", "2")])]).await;
    until(&path, |content| content.contains("\"v\":\"2\"")).await;
    scraper.link(1, LinkPath::Direct);
    until(&path, |content| content.contains("\"__meta_narthex_path\":\"direct\"")).await;
    assert_eq!(fs::read_to_string(&path).expect("reads"), scraper.get("/sd").await.text());
    scraper.register_as(1, "h", vec![]).await;
    until(&path, |content| content == "[]").await;
}

#[tokio::test]
async fn what_is_not_listed_writes_nothing() {
    let (_dir, path) = temporary();
    let scraper = Scraper::start(keeping(&path), no_pull).await;
    scraper.register("a").await;
    until(&path, |content| content.contains("\"a\"")).await;
    let written = fs::metadata(&path).and_then(|there| there.modified()).expect("there");
    // Plain renewals, and a link of somebody who holds nothing.
    for _ in 0..20 {
        scraper.register("a").await;
    }
    scraper.link(9, LinkPath::Direct);
    // A write that must not come gives nothing else to wait for.
    time::sleep(LINKS_PAUSE * 3).await;
    assert_eq!(fs::metadata(&path).and_then(|there| there.modified()).expect("there"), written);
}

#[tokio::test]
async fn a_file_of_the_last_run_is_kept_until_the_table_is_loaded() {
    let (_dir, path) = temporary();
    fs::write(&path, "of the last run").expect("writes");
    let scraper = Scraper::loading(keeping(&path), no_pull).await;
    for _ in 0..20 {
        assert_eq!(scraper.get("/sd").await.status, 503);
        assert_eq!(fs::read_to_string(&path).expect("reads"), "of the last run");
    }
    scraper.load().await;
    until(&path, |content| content == "[]").await;
}

#[tokio::test]
async fn the_file_is_kept_while_the_store_fails() {
    let (_dir, path) = temporary();
    let scraper = Scraper::start(keeping(&path), no_pull).await;
    scraper.register("a").await;
    until(&path, |content| content.contains("\"a\"")).await;
    scraper.store_fails.store(true, Ordering::SeqCst);
    scraper.registry.release(&"a".parse().expect("an alias")).await.expect_err("the store fails");
    // Long enough to be written if it were: the store has been tried again.
    scraper.counted("narthex_store_flush_failures_total 2").await;
    assert!(fs::read_to_string(&path).expect("reads").contains("\"a\""));
    scraper.store_fails.store(false, Ordering::SeqCst);
    until(&path, |content| content == "[]").await;
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_tried_again() {
    let (dir, _) = temporary();
    let path = dir.path().join("later/sd.json");
    let scraper = Scraper::start(keeping(&path), no_pull).await;
    scraper.counted("narthex_file_sd_writes_total{outcome=\"failed\"} 1").await;
    fs::create_dir(dir.path().join("later")).expect("makes");
    until(&path, |content| content == "[]").await;
    scraper.counted(&format!("{WRITTEN} 1")).await;
}

#[tokio::test]
async fn the_advertised_address_stands_in_the_file() {
    let (_dir, path) = temporary();
    let advertise = Some("scraper.example:80".parse().expect("an address"));
    let scraper = Scraper::start(HttpConfig { advertise, ..keeping(&path) }, no_pull).await;
    scraper.register("a").await;
    until(&path, |content| content.starts_with(r#"[{"targets":["scraper.example:80"]"#)).await;
}

#[test]
fn every_address_is_no_target() {
    let (_dir, path) = temporary();
    let check = |config: &HttpConfig, local: &str| FileSd::new(config, local.parse().ok());
    for every in ["0.0.0.0:19960", "[::]:19960"] {
        let error = check(&keeping(&path), every).expect_err("refused");
        assert!(matches!(error, ScraperError::NoTarget { .. }) && error.to_string().contains(every));
        let advertise = Some("h:1".parse().expect("an address"));
        check(&HttpConfig { advertise, ..keeping(&path) }, every).expect("fine");
        check(&HttpConfig::default(), every).expect("fine");
    }
    check(&keeping(&path), "127.0.0.1:1").expect("fine");
    let error = check(&keeping(&path), "a socket").expect_err("refused");
    assert!(error.to_string().contains("nobody can scrape a Unix socket"), "{error}");
}
