use std::{fs, path::Path, sync::atomic::Ordering, time::Duration};

use super::support::{Scraper, no_pull, within};
use crate::{hook::Hook, scraper::HttpConfig};

/// Appends each list to the file `runs` in the directory, a line each.
fn appending(dir: &Path) -> HttpConfig {
    let script = dir.join("script");
    fs::write(&script, format!("cat >> '{0}/runs'\necho >> '{0}/runs'\n", dir.display())).expect("writes");
    let mut hook = Hook::new(format!("sh '{}'", script.display()).parse().expect("a command"));
    hook.cooldown = Duration::ZERO;
    HttpConfig { on_change: Some(hook), ..HttpConfig::default() }
}

fn runs(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("runs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

async fn until_ran(dir: &Path, times: usize) {
    within(async {
        while runs(dir).len() < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_runs_while_the_table_is_not_known() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let scraper = Scraper::loading(appending(dir.path()), no_pull).await;
    for _ in 0..20 {
        assert_eq!(scraper.get("/sd").await.status, 503);
    }
    assert!(runs(dir.path()).is_empty());
    scraper.load().await;
    until_ran(dir.path(), 1).await;
    scraper.register("a").await;
    until_ran(dir.path(), 2).await;

    scraper.store_fails.store(true, Ordering::SeqCst);
    scraper.registry.release(&"a".parse().expect("an alias")).await.expect_err("the store fails");
    // Long enough to run if it would: the store has been tried again.
    scraper.counted("narthex_store_flush_failures_total 2").await;
    let listed = runs(dir.path());
    assert!(listed.len() == 2 && listed[0] == "[]" && listed[1].contains("\"a\""), "{listed:?}");
    scraper.store_fails.store(false, Ordering::SeqCst);
    until_ran(dir.path(), 3).await;
    assert_eq!(runs(dir.path())[2], "[]");
}
