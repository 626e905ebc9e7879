use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use super::*;
use crate::identity::KeyPair;

const HOUR: Duration = Duration::from_secs(3600);

fn peer(seed: u8) -> PublicKey {
    KeyPair::from_seed(&[seed; 32]).public()
}

fn open(dir: &tempfile::TempDir) -> Secrets {
    Secrets::open(vec![SharedSecret::from_bytes([1; 32]).into()], dir.path()).expect("opens")
}

fn grant(name: &str) -> Grant {
    Grant { name: name.parse().expect("a name"), scope: Scope::default(), expires_at: None, uses: None }
}

fn scope(aliases: &[&str]) -> Scope {
    Scope { aliases: aliases.iter().map(|glob| glob.parse().expect("a pattern")).collect(), ..Scope::default() }
}

#[tokio::test]
async fn a_ticket_of_one_use_is_its_first_keys_alone_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (secrets, now) = (open(&dir), SystemTime::now());
    let once = Grant { uses: Some(1), scope: scope(&["db-*"]), ..grant("db") };
    let id = secrets.issue(once, now).await.expect("is written").id();
    let (first, second) = tokio::join!(async { secrets.admit(id, &peer(1), now).await }, async {
        secrets.admit(id, &peer(2), now).await
    },);
    assert_eq!(first.expect("the first").as_ref(), &scope(&["db-*"]));
    assert_eq!(second, Err(Refused::UsedUp));
    drop(secrets);
    let secrets = open(&dir);
    assert!(secrets.admit(id, &peer(1), now + HOUR).await.is_ok());
    assert_eq!(secrets.find(id, &peer(2), now), Err(Refused::UsedUp), "before any proof");
}

#[tokio::test]
async fn who_has_joined_in_time_stays_and_nobody_joins_after() {
    let dir = tempfile::tempdir().expect("a directory");
    let (secrets, now) = (open(&dir), SystemTime::now());
    let short = Grant { expires_at: Some(now + HOUR), ..grant("short") };
    let id = secrets.issue(short, now).await.expect("is written").id();
    assert!(secrets.admit(id, &peer(1), now).await.is_ok());
    let later = now + HOUR;
    assert!(secrets.admit(id, &peer(1), later).await.is_ok());
    assert_eq!(secrets.find(id, &peer(2), later), Err(Refused::Expired));
    assert_eq!(secrets.admit(id, &peer(2), later).await, Err(Refused::Expired));
}

#[tokio::test]
async fn a_revoked_ticket_is_unknown_and_its_name_is_free() {
    let dir = tempfile::tempdir().expect("a directory");
    let (secrets, now) = (open(&dir), SystemTime::now());
    let id = secrets.issue(grant("web"), now).await.expect("is written").id();
    assert!(matches!(secrets.issue(grant("web"), now).await, Err(IssueError::Exists)));
    let name = "web".parse().expect("a name");
    let Revoked { id: revoked, removed } = secrets.revoke(&name).await;
    assert_eq!((revoked, removed.expect("is removed")), (Some(id), true));
    assert_eq!(secrets.find(id, &peer(1), now), Err(Refused::Unknown));
    assert!(secrets.scope(&id, SystemTime::now()).is_none() && open(&dir).scope(&id, SystemTime::now()).is_none());
    let Revoked { id: revoked, removed } = secrets.revoke(&name).await;
    assert_eq!((revoked, removed.expect("nothing to remove")), (None, false));
    assert!(secrets.issue(grant("web"), now).await.is_ok());
}

/// Before: who stopped waiting left the disk and the memory with different tickets.
#[tokio::test]
async fn a_first_use_that_nobody_waits_for_is_done_all_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let (secrets, now) = (open(&dir), SystemTime::now());
    let id = secrets.issue(Grant { uses: Some(1), ..grant("once") }, now).await.expect("is written").id();
    let first = peer(1);
    let mut asked = Box::pin(secrets.admit(id, &first, now));
    assert!(futures::poll!(&mut asked).is_pending());
    drop(asked);
    drop(secrets.0.writing.lock().await); // behind the first use, which has begun
    while secrets.find(id, &peer(2), now).is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(secrets.find(id, &peer(2), now), Err(Refused::UsedUp));
    assert_eq!(open(&dir).issued()[0].keys, [first]);
}

/// Before: each first use wrote all keys of all tickets.
#[tokio::test]
async fn a_use_is_one_line_and_a_torn_one_is_cut_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let (secrets, now) = (open(&dir), SystemTime::now());
    let id = secrets.issue(Grant { uses: Some(3), ..grant("three") }, now).await.expect("is written").id();
    secrets.admit(id, &peer(1), now).await.expect("joins");
    let file = dir.path().join("tickets").join("three.ticket");
    let before = fs::read_to_string(&file).expect("text");
    fs::write(&file, format!("{before}{}", &peer(2).to_string()[..20])).expect("ours");
    let secrets = open(&dir);
    assert_eq!(secrets.issued()[0].keys, [peer(1)], "nobody was told of the second");
    secrets.admit(id, &peer(3), now).await.expect("joins");
    assert_eq!(fs::read_to_string(&file).expect("text"), format!("{before}{}\n", peer(3)));
    assert_eq!(open(&dir).issued()[0].keys.len(), 2);
}

#[tokio::test]
async fn a_ticket_ends_at_once_also_if_its_file_cannot_be_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (secrets, now) = (open(&dir), SystemTime::now());
    let id = secrets.issue(grant("web"), now).await.expect("is written").id();
    let file = dir.path().join("tickets").join("web.ticket");
    fs::remove_file(&file).and_then(|()| fs::create_dir(&file)).expect("ours");
    let Revoked { id: revoked, removed } = secrets.revoke(&"web".parse().expect("a name")).await;
    assert!(revoked == Some(id) && removed.is_err() && secrets.scope(&id, SystemTime::now()).is_none());
}

#[tokio::test]
async fn a_secret_from_a_file_has_no_bounds() {
    let dir = tempfile::tempdir().expect("a directory");
    let (secrets, id) = (open(&dir), SharedSecret::from_bytes([1; 32]).id());
    assert!(secrets.find(id, &peer(1), SystemTime::now()).is_ok());
    assert_eq!(secrets.admit(id, &peer(1), SystemTime::now()).await, Ok(Arc::default()));
    assert!(!dir.path().join("tickets").exists());
}

#[tokio::test]
async fn a_use_that_cannot_be_written_down_does_not_count() {
    let dir = tempfile::tempdir().expect("a directory");
    let (secrets, now) = (open(&dir), SystemTime::now());
    let once = Grant { uses: Some(1), ..grant("once") };
    let id = secrets.issue(once, now).await.expect("is written").id();
    dir.close().expect("is removed");
    assert_eq!(secrets.admit(id, &peer(1), now).await, Err(Refused::Unwritten));
    assert!(matches!(secrets.issue(grant("other"), now).await, Err(IssueError::Io(_))));
    assert_eq!(secrets.issued().len(), 1, "what is not on the disk is not known");
    assert_eq!(secrets.issued()[0].keys, []);
}

#[tokio::test]
async fn a_file_that_others_may_read_or_that_is_damaged_is_refused_and_never_printed() {
    let dir = tempfile::tempdir().expect("a directory");
    let directory = dir.path().join("tickets");
    let file = directory.join("web.ticket");
    let secret = open(&dir).issue(grant("web"), SystemTime::now()).await.expect("is written");
    assert_eq!(fs::metadata(&file).expect("is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&directory).expect("is there").permissions().mode() & 0o777, 0o700);
    let refused = || Secrets::open(Vec::new(), dir.path()).err().expect("is refused").to_string();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("ours");
    assert!(refused().contains("chmod"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
    let text = fs::read_to_string(&file).expect("text");
    let later = text.replace("\"version\":1", "\"version\":2,\"more\":3");
    let twice = directory.join("other.ticket");
    let cases = [
        (later, "version 2"),
        (text[..text.len() / 2].to_owned(), "put this file aside"),
        (format!("{text}no key\n"), "line 2"),
    ];
    for (damaged, why) in cases {
        fs::write(&file, damaged).expect("ours");
        let refused = refused();
        assert!(refused.contains(why) && !refused.contains(&*secret.expose_text()), "{refused}");
    }
    fs::write(&file, &text).and_then(|()| fs::copy(&file, &twice)).expect("ours");
    assert!(refused().contains("another ticket"));
}

/// Before: users of the HTTP side who were to see one of both saw the targets of both.
#[tokio::test]
async fn no_secret_takes_the_name_of_a_ticket() {
    let dir = tempfile::tempdir().expect("a directory");
    let secrets = open(&dir);
    secrets.issue(grant("acme"), SystemTime::now()).await.expect("is written");
    let named = || vec![NamedSecret::new("acme".parse().expect("a name"), SharedSecret::from_bytes([2; 32]))];
    assert_eq!(secrets.replace(named()).await, Err(UnfitSecrets::Name("acme".parse().expect("a name"))));
    assert!(secrets.find(SharedSecret::from_bytes([1; 32]).id(), &peer(1), SystemTime::now()).is_ok(), "as before");
    drop(secrets);
    assert!(matches!(Secrets::open(named(), dir.path()), Err(TicketFileError::Unfit(_))));
}
