//! Every combination of rights and scopes at every route, against a small model.

use std::{collections::BTreeSet, fmt::Write, fs, os::unix::fs::PermissionsExt, time::SystemTime};

use http::Response;
use tempfile::TempDir;

use super::support::{Answer, Scraper, body, claim};
use crate::{access::Grant, http::WebSecurity, scraper::HttpConfig};

const RIGHTS: [&str; 4] = ["sd", "scrape", "api", "admin"];
/// The targets: the name of the secret that was proved, if it has one, and the label `tenant`.
const TARGETS: [(&str, Option<&str>, &str); 4] = [
    ("a-a", Some("ticket-a"), "a"),
    ("a-b", Some("ticket-a"), "b"),
    ("b-b", Some("ticket-b"), "b"),
    ("no-ticket", None, ""),
];
/// What scopes name: a secret, a tenant.
const SCOPES: [(Option<&str>, Option<&str>); 6] = [
    (None, None),
    (Some("ticket-a"), None),
    (Some("ticket-b"), None),
    (None, Some("b")),
    (Some("ticket-a"), Some("b")),
    (Some("nobody's"), None),
];

/// A user of the model.
struct User {
    token: String,
    rights: BTreeSet<&'static str>,
    scope: (Option<&'static str>, Option<&'static str>),
}

impl User {
    fn sees(&self, (_, secret, tenant): (&str, Option<&str>, &str)) -> bool {
        self.scope.0.is_none_or(|name| secret == Some(name)) && self.scope.1.is_none_or(|label| tenant == label)
    }

    fn targets(&self) -> Vec<&'static str> {
        TARGETS.into_iter().filter(|target| self.sees(*target)).map(|(alias, ..)| alias).collect()
    }
}

fn all_users() -> Vec<User> {
    let numbers = (0..SCOPES.len()).flat_map(|scope| (0..1_usize << RIGHTS.len()).map(move |rights| (scope, rights)));
    let user = |(scope, rights): (usize, usize)| User {
        token: format!("token-{scope}-{rights}"),
        rights: RIGHTS
            .into_iter()
            .enumerate()
            .filter(|(bit, _)| rights >> bit & 1 == 1)
            .map(|(_, right)| right)
            .collect(),
        scope: SCOPES[scope],
    };
    numbers.map(user).collect()
}

/// Writes the users and their tokens.
fn written(users: &[User]) -> (TempDir, WebSecurity) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut text = String::new();
    for User { token, rights, scope: (secret, tenant) } in users {
        let path = directory.path().join(token);
        fs::write(&path, token).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        let rights: Vec<_> = rights.iter().collect();
        writeln!(text, "[[user]]\nname = {token:?}\ntoken_file = {token:?}\nrights = {rights:?}").expect("a text");
        secret.iter().for_each(|secret| writeln!(text, "secrets = [{secret:?}]").expect("a text"));
        tenant.iter().for_each(|tenant| writeln!(text, "labels = {{ tenant = {tenant:?} }}").expect("a text"));
    }
    let file = directory.path().join("users.toml");
    fs::write(&file, text).expect("written");
    (directory, WebSecurity { users_file: Some(file), ..WebSecurity::default() })
}

/// The scraper and its targets.
struct Table {
    scraper: Scraper,
    secrets: Vec<crate::identity::SecretId>,
}

impl Table {
    async fn start(security: WebSecurity) -> Self {
        let config = HttpConfig { security, ..HttpConfig::default() };
        let scraper = Scraper::start(config, |_, _| async { Ok(Response::new(body([Ok(b"m 1\n")]))) }).await;
        let mut secrets = Vec::new();
        for name in ["ticket-a", "ticket-b"] {
            let issued =
                scraper.secrets.issue(Grant::of_everything(name.parse().expect("a name")), SystemTime::now()).await;
            secrets.push(issued.expect("a ticket").id());
        }
        let table = Self { scraper, secrets };
        for number in 0..TARGETS.len() {
            table.register(number).await;
        }
        table
    }

    async fn register(&self, number: usize) {
        let (alias, secret, tenant) = TARGETS[number];
        let labels = [("tenant", tenant)];
        let claims = vec![claim(alias, "web", if tenant.is_empty() { &[] } else { &labels })];
        let secret = match secret {
            Some("ticket-a") => self.secrets[0],
            Some(_) => self.secrets[1],
            None => super::support::SECRET,
        };
        self.scraper.register_by(number as u8 + 1, secret, "h", claims).await;
    }

    async fn ask(&self, method: &str, target: &str, token: Option<&str>) -> Answer {
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let addr = self.scraper.addr;
        self.scraper
            .ask(&format!("{method} {target} HTTP/1.1\r\nHost: {addr}\r\n{authorization}Connection: close\r\n\r\n"))
            .await
    }
}

/// Every path with the right that it needs; none of them changes anything.
fn paths() -> Vec<(String, &'static str)> {
    let fixed = [("/sd", "sd"), ("/sd?service=web", "sd"), ("/", "api"), ("/metrics", "api")];
    let lists = [("/metrics/aliases", "api"), ("/api/v1/aliases", "api")];
    let mut paths: Vec<_> = fixed.into_iter().chain(lists).map(|(path, right)| (path.to_owned(), right)).collect();
    for alias in TARGETS.map(|(alias, ..)| alias).into_iter().chain(["unknown"]) {
        paths.push((format!("/scrape/{alias}/metrics"), "scrape"));
        paths.push((format!("http://{alias}/metrics"), "scrape"));
        paths.push((format!("http://{alias}/-/healthy"), "scrape"));
        paths.push((format!("/api/v1/aliases/{alias}"), "api"));
    }
    paths
}

/// The aliases that a list or an exposition names.
fn named(text: &str) -> Vec<&'static str> {
    TARGETS.into_iter().map(|(alias, ..)| alias).filter(|alias| text.contains(&format!("\"{alias}\""))).collect()
}

#[tokio::test]
async fn every_user_reads_what_rights_and_scope_allow_and_nothing_else() {
    let users = all_users();
    let (_files, security) = written(&users);
    let table = Table::start(security).await;
    for user in &users {
        for (path, right) in paths() {
            let answer = table.ask("GET", &path, Some(&user.token)).await;
            let case = format!("{} at {path}: {}", user.token, answer.text());
            if !user.rights.contains(right) {
                assert_eq!(answer.status, 403, "{case}");
                assert!(answer.text().ends_with(&format!("has no right {right}\n")), "{case}");
                continue;
            }
            if path.starts_with("/sd") || path.ends_with("/aliases") {
                assert_eq!((answer.status, named(answer.text())), (200, user.targets()), "{case}");
                continue;
            }
            let of_alias = |alias: &&str| path.contains(&format!("/{alias}"));
            let is_of_one = path.starts_with("http:") || path.starts_with("/scrape/") || path.starts_with("/api/");
            let expected = if !is_of_one || user.targets().iter().any(of_alias) { 200 } else { 404 };
            assert_eq!(answer.status, expected, "{case}");
        }
    }
}

#[tokio::test]
async fn only_admins_release_and_only_what_they_see() {
    let users = all_users();
    let (_files, security) = written(&users);
    let table = Table::start(security).await;
    for user in &users {
        for (number, target) in TARGETS.into_iter().enumerate() {
            let answer = table.ask("DELETE", &format!("/api/v1/aliases/{}", target.0), Some(&user.token)).await;
            let expected = match (user.rights.contains("admin"), user.sees(target)) {
                (false, _) => 403,
                (true, true) => 204,
                (true, false) => 404,
            };
            assert_eq!(answer.status, expected, "{} {}", user.token, target.0);
            table.register(number).await;
        }
        let all = format!("/api/v1/aliases?secret={}", table.secrets[1]);
        let answer = table.ask("DELETE", &all, Some(&user.token)).await;
        let is_allowed = user.rights.contains("admin") && user.scope == (None, None);
        assert_eq!(answer.status, if is_allowed { 200 } else { 403 }, "{}", user.token);
        table.register(2).await;
    }
}

#[tokio::test]
async fn whoever_shows_nothing_or_something_wrong_gets_401_and_probes_are_answered() {
    let users = all_users();
    let (_files, security) = written(&users);
    let table = Table::start(security).await;
    for token in [None, Some("wrong"), Some("")] {
        for (path, _) in paths() {
            let answer = table.ask("GET", &path, token).await;
            assert_eq!(answer.status, 401, "{path}");
            let challenges = answer.headers.iter().filter(|(name, _)| name == "www-authenticate");
            let schemes: Vec<_> = challenges.filter_map(|(_, value)| value.split(' ').next()).collect();
            assert_eq!(schemes, ["Basic", "Bearer"]);
        }
        assert_eq!(table.ask("DELETE", "/api/v1/aliases/a-a", token).await.status, 401);
        for probe in ["/-/healthy", "/-/ready"] {
            assert_eq!(table.ask("GET", probe, token).await.status, 200, "{probe}");
        }
    }
    let metrics = table.ask("GET", "/metrics", Some("token-0-4")).await;
    let metrics = metrics.text();
    let count = |reason: &str| {
        let name = format!("narthex_http_denials_total{{reason=\"{reason}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<usize>().ok()).expect(reason)
    };
    assert_eq!((count("missing"), count("wrong")), (paths().len() + 1, 2 * (paths().len() + 1)));
}
