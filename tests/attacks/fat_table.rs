//! Holders of the secret whose labels are as large as they may be: the table is bounded in bytes, not only in aliases.

use std::{convert::Infallible, time::Instant};

use narthex::{
    Client,
    client::{EventKind, RegisterError, TargetBuilder},
};

use crate::support::{
    SOON, eventually_true,
    fleet::{Fleet, Scraper},
    honest::Honest,
    http,
};

fn metrics() -> Result<String, Infallible> {
    Ok("m 1\n".to_owned())
}

/// A target with so many labels of 700 bytes. JSON takes two bytes for a quote, and each label is listed twice.
fn fat(alias: String, labels: usize) -> TargetBuilder {
    let target = TargetBuilder::new(alias).metrics(metrics);
    (0..labels).fold(target, |target, n| target.label(format!("l{n}"), "\"".repeat(700)))
}

/// A client with a key of its own that claims these targets, and how many claims were granted and refused.
async fn attack(fleet: &Fleet, scraper: &Scraper, targets: Vec<TargetBuilder>) -> (Client, usize, Vec<String>) {
    let all = targets.len();
    let builder = targets
        .into_iter()
        .fold(Client::builder(scraper.peer(), fleet.secret.clone()), |builder, target| builder.target(target));
    let client = builder.start().await.expect("starts");
    let mut events = client.events();
    let (mut granted, mut refused) = (0, Vec::new());
    while granted + refused.len() < all {
        let event = tokio::time::timeout(SOON, events.recv()).await.expect("each claim is answered");
        match event.expect("an event").kind {
            EventKind::Registered { .. } => granted += 1,
            EventKind::RegisterFailed { error, .. } => {
                if let RegisterError::Alias { refusal, .. } = &*error {
                    refused.push(refusal.to_string());
                }
            }
            _ => {}
        }
    }
    (client, granted, refused)
}

/// Without budgets: all nine aliases of each of five keys were granted, and `/sd` had 568 486 bytes, as seen with the version
/// before.
#[tokio::test(flavor = "multi_thread")]
async fn fat_labels_of_many_keys_stay_within_the_budgets_and_others_are_listed() {
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&["--max-peer-bytes", "16KiB", "--max-table-bytes", "48KiB"]);
    let honest = tokio::task::block_in_place(|| Honest::clients(&fleet, &scraper));
    let mut attackers = Vec::new();
    for key in 0..5 {
        // One alias of 90 KB, and eight of 3 KB that each fit: five of them are a peer's share, fifteen the table's.
        let mut targets = vec![fat(format!("huge-{key}"), 31)];
        targets.extend((0..8).map(|n| fat(format!("fat-{key}-{n}"), 1)));
        let (client, granted, refused) = attack(&fleet, &scraper, targets).await;
        assert!(granted <= 5, "{granted} granted");
        assert_eq!(refused.iter().filter(|why| why.starts_with("invalid")).count(), 1, "{refused:?}");
        assert!(refused.iter().any(|why| why.starts_with("full")), "{refused:?}");
        attackers.push(client);
    }
    for limit in ["max_alias_bytes", "max_peer_bytes", "max_table_bytes"] {
        assert!(scraper.count(&["narthex_limit_refusals_total", limit]) > 0.0, "{limit}");
        let flag = format!("limit={}", limit.replace('_', "-"));
        assert!(scraper.process.log().contains(&flag), "{flag} in\n{}", scraper.process.log());
    }
    let held = scraper.count(&["narthex_table_bytes"]);
    assert!((1.0..=48.0 * 1024.0).contains(&held), "{held} bytes");
    let list = tokio::task::block_in_place(|| http::get(scraper.http, "/sd", &[]).expect("an answer"));
    assert!(list.body.len() < 64 * 1024, "/sd has {} bytes", list.body.len());

    // An ordinary service has room once an attacker gives up; with the default table there is room before.
    attackers.remove(0).shutdown().await;
    let begun = Instant::now();
    let (_client, granted, refused) =
        attack(&fleet, &scraper, vec![TargetBuilder::new("web-1").metrics(metrics)]).await;
    assert_eq!((granted, refused), (1, vec![]));
    tokio::task::block_in_place(|| {
        eventually_true("web-1 is listed", SOON, || scraper.listed().is_some_and(|list| list.contains_key("web-1")));
        let failed = honest.report("5 keys with fat labels", &scraper, begun.elapsed(), attackers);
        assert_eq!(failed, 0, "honest scrapes failed");
    });
}

/// Before: the first secret's holder was granted all four aliases, and the second's none.
#[tokio::test(flavor = "multi_thread")]
async fn holders_of_one_of_two_secrets_leave_the_other_its_half_of_the_table() {
    let fleet = Fleet::new();
    let second = Fleet::new();
    let file = second.secret_file();
    let scraper = fleet.scraper(&["--secret-file", file.to_str().expect("text"), "--max-aliases", "4"]);
    let targets =
        |name: &str| -> Vec<_> { (0..4).map(|n| TargetBuilder::new(format!("{name}-{n}")).metrics(metrics)).collect() };
    let (_greedy, granted, refused) = attack(&fleet, &scraper, targets("greedy")).await;
    assert_eq!((granted, refused.len()), (2, 2), "{refused:?}");
    let (_other, granted, refused) = attack(&second, &scraper, targets("other")).await;
    assert_eq!((granted, refused.len()), (2, 2), "{refused:?}");
    assert!(scraper.count(&["narthex_limit_refusals_total", "max_aliases_per_secret"]) >= 2.0);
    assert!(scraper.process.log().contains("limit=max-aliases-per-secret"), "{}", scraper.process.log());
}
