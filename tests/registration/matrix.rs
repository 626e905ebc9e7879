//! Every secret with every key at every alias, and then every user at every route for each target, against a model of some lines.
//! A scraper with its own flags and files, clients of the library, requests over HTTP.

use std::{collections::BTreeMap, fmt::Write, fs, os::unix::fs::PermissionsExt, process::Command};

use narthex::{
    Client, ClientBuilder, KeyPair, SharedSecret, TargetBuilder, Ticket,
    client::{EventKind, RegisterError},
    identity,
    wire::AliasRefusal,
};

use crate::support::{
    fleet::{Fleet, Scraper, narthex, text},
    http,
};

/// A secret of the model.
struct Secret {
    name: &'static str,
    /// Patterns of aliases; none means any.
    aliases: &'static [&'static str],
    /// What `tenant` is set to; the client's own otherwise.
    tenant: Option<&'static str>,
    /// False for one that nobody may use.
    opens: bool,
}

const SECRETS: [Secret; 6] = [
    Secret { name: "fleet", aliases: &[], tenant: None, opens: true },
    Secret { name: "a", aliases: &["a-*"], tenant: Some("a"), opens: true },
    Secret { name: "b", aliases: &["b-*", "?-x*"], tenant: None, opens: true },
    Secret { name: "late", aliases: &[], tenant: None, opens: false },
    Secret { name: "ticket", aliases: &["a-*", "b-*"], tenant: Some("t"), opens: true },
    Secret { name: "unknown", aliases: &[], tenant: None, opens: false },
];
const CONFIG: &str = "\
[[secret]]
name = \"a\"
file = \"a.secret\"
aliases = [\"a-*\"]
labels = { tenant = \"a\" }
[[secret]]
name = \"b\"
file = \"b.secret\"
aliases = [\"b-*\", \"?-x*\"]
[[secret]]
name = \"late\"
file = \"late.secret\"
not-before = 2100-01-01T00:00:00Z
";
/// The rule of each key: its patterns, or none if it is blocked.
const KEYS: [Option<&[&str]>; 3] = [Some(&[]), Some(&["*-1"]), None];
const STEMS: [&str; 3] = ["a-", "b-", "c-x"];
const RIGHTS: [&str; 4] = ["sd", "scrape", "api", "admin"];
/// What users see: targets of these secrets, with this tenant.
const SCOPES: [(&[&str], Option<&str>); 5] =
    [(&[], None), (&["a"], None), (&["ticket", "fleet"], None), (&[], Some("own")), (&["ticket"], Some("t"))];

fn fits(pattern: &str, alias: &str) -> bool {
    let (Some(first), rest) = (pattern.chars().next(), pattern.get(1..).unwrap_or_default()) else {
        return alias.is_empty();
    };
    match first {
        '*' => (0..=alias.len()).any(|at| fits(rest, &alias[at..])),
        '?' => !alias.is_empty() && fits(rest, &alias[1..]),
        first => alias.strip_prefix(first).is_some_and(|alias| fits(rest, alias)),
    }
}

fn within(patterns: &[&str], alias: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| fits(pattern, alias))
}

/// The model: what a client of this secret and key is told of an alias.
fn expected(secret: &Secret, key: usize, alias: &str) -> &'static str {
    match KEYS[key] {
        None => "refused",
        Some(_) if !secret.opens => "refused",
        Some(patterns) if within(secret.aliases, alias) && within(patterns, alias) => "granted",
        Some(_) => "out of scope",
    }
}

/// A target that the model lists.
#[derive(Clone, Debug)]
struct Listed {
    alias: String,
    secret: &'static str,
    tenant: &'static str,
}

struct Stage {
    fleet: Fleet,
    scraper: Scraper,
    /// By secret and rule.
    keys: Vec<[KeyPair; KEYS.len()]>,
    ticket: Ticket,
}

/// A user of the HTTP side.
struct User {
    token: String,
    rights: Vec<&'static str>,
    scope: (&'static [&'static str], Option<&'static str>),
}

impl User {
    fn sees(&self, target: &Listed) -> bool {
        (self.scope.0.is_empty() || self.scope.0.contains(&target.secret))
            && self.scope.1.is_none_or(|tenant| tenant == target.tenant)
    }
}

fn users() -> Vec<User> {
    let numbers = (0..SCOPES.len()).flat_map(|scope| (0..1_usize << RIGHTS.len()).map(move |rights| (scope, rights)));
    let user = |(scope, rights): (usize, usize)| User {
        token: format!("token-{scope}-{rights}"),
        rights: RIGHTS.iter().enumerate().filter(|(bit, _)| rights >> bit & 1 == 1).map(|(_, right)| *right).collect(),
        scope: SCOPES[scope],
    };
    numbers.map(user).collect()
}

impl Stage {
    fn new(users: &[User]) -> Self {
        let fleet = Fleet::new();
        let path = |name: &str| fleet.path().join(name);
        for name in ["a", "b", "late"] {
            identity::create_secret(&path(&format!("{name}.secret")), &SharedSecret::generate()).expect("written");
        }
        fs::write(path("scraper.toml"), CONFIG).expect("written");
        let keys: Vec<[KeyPair; KEYS.len()]> = SECRETS.iter().map(|_| KEYS.map(|_| KeyPair::generate())).collect();
        let mut rules = "allow *\n".to_owned();
        for (key, rule) in keys.iter().flat_map(|keys| keys.iter().zip(KEYS)) {
            match rule {
                Some(patterns) => writeln!(rules, "allow {} {}", key.public(), patterns.join(" ")).expect("a text"),
                None => writeln!(rules, "block {}", key.public()).expect("a text"),
            }
        }
        fs::write(path("rules"), rules).expect("written");
        let mut text_of_users = String::new();
        for User { token, rights, scope: (secrets, tenant) } in users {
            fs::write(path(token), token).expect("written");
            fs::set_permissions(path(token), fs::Permissions::from_mode(0o600)).expect("set");
            let out = &mut text_of_users;
            writeln!(out, "[[user]]\nname = {token:?}\ntoken_file = {token:?}\nrights = {rights:?}").expect("a text");
            if !secrets.is_empty() {
                writeln!(out, "secrets = {secrets:?}").expect("a text");
            }
            tenant.iter().for_each(|tenant| writeln!(out, "labels = {{ tenant = {tenant:?} }}").expect("a text"));
        }
        fs::write(path("users.toml"), text_of_users).expect("written");
        let flags = [("--config", "scraper.toml"), ("--peers", "rules"), ("--web.users-file", "users.toml")];
        let flags: Vec<String> = flags.iter().map(|(flag, name)| format!("{flag}={}", text(&path(name)))).collect();
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        flags.push("--web.enable-lifecycle");
        let scraper = fleet.scraper(&flags);
        let mut create: Command = narthex("ticket");
        create.args(["create", "ticket", "--alias", "a-*", "--alias", "b-*", "--label", "tenant=t"]);
        let made = create.args(["--data-dir", &text(&path("scraper-data"))]).output().expect("runs");
        let line = String::from_utf8(made.stdout).expect("text");
        Self { fleet, scraper, keys, ticket: line.parse().expect("a ticket") }
    }

    fn builder(&self, secret: &Secret) -> ClientBuilder {
        match secret.name {
            "ticket" => Client::from_ticket(&self.ticket),
            "unknown" => Client::builder(self.scraper.peer(), SharedSecret::generate()),
            name => {
                let file = self.fleet.path().join(format!("{name}.secret"));
                Client::builder(self.scraper.peer(), identity::load_secret(&file).expect("is read"))
            }
        }
    }

    /// Claims the aliases, and returns what the client was told of each.
    async fn told(
        &self,
        (number, key): (usize, usize),
        aliases: &[String],
    ) -> (Client, BTreeMap<String, &'static str>) {
        let mut builder = self.builder(&SECRETS[number]).key(self.keys[number][key].clone());
        for alias in aliases {
            let target = TargetBuilder::new(alias).label("tenant", "own");
            builder = builder.target(target.metrics(|| Ok::<_, std::convert::Infallible>("m 1\n".to_owned())));
        }
        let client = builder.start().await.expect("starts");
        let (mut events, mut told) = (client.events(), BTreeMap::new());
        while told.len() < aliases.len() {
            match events.recv().await.expect("an event").kind {
                EventKind::Registered { alias, .. } => drop(told.insert(alias.to_string(), "granted")),
                EventKind::RegisterFailed { error, .. } => match &*error {
                    RegisterError::Alias { alias, refusal: AliasRefusal::OutOfScope } => {
                        told.insert(alias.to_string(), "out of scope");
                    }
                    RegisterError::Handshake(_) => told.extend(aliases.iter().map(|alias| (alias.clone(), "refused"))),
                    other => panic!("{other}"),
                },
                _ => {}
            }
        }
        (client, told)
    }

    fn ask(&self, method: &str, path: &str, token: &str) -> http::Answer {
        let bearer = format!("Bearer {token}");
        http::request(method, self.scraper.http, path, &[("Authorization", &bearer)]).expect("answers")
    }
}

#[test]
fn every_secret_key_alias_and_user_has_what_the_model_says_and_nothing_else() {
    let users = users();
    let stage = Stage::new(&users);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut clients, mut listed) = (Vec::new(), Vec::new());
    for (number, secret) in SECRETS.iter().enumerate() {
        for key in 0..KEYS.len() {
            let alias = |stem: &&str| [1, 2].map(|number| format!("{stem}{}{key}-{number}", secret.name));
            let aliases: Vec<String> = STEMS.iter().flat_map(alias).collect();
            let (client, told) = runtime.block_on(stage.told((number, key), &aliases));
            for alias in aliases {
                let expected = expected(secret, key, &alias);
                assert_eq!(told[&alias], expected, "{alias} by key {key} with secret {}", secret.name);
                if expected == "granted" {
                    listed.push(Listed { alias, secret: secret.name, tenant: secret.tenant.unwrap_or("own") });
                }
            }
            clients.push(client);
        }
    }
    check_routes(&stage, &users, &listed);
}

/// What each user gets of each route.
fn check_routes(stage: &Stage, users: &[User], listed: &[Listed]) {
    assert!(listed.len() > 15, "{listed:?}");
    for user in users {
        let may = |right| user.rights.contains(&right);
        let seen: Vec<&Listed> = listed.iter().filter(|target| user.sees(target)).collect();
        for (path, right) in [("/sd", "sd"), ("/api/v1/aliases", "api"), ("/metrics/aliases", "api")] {
            let answer = stage.ask("GET", path, &user.token);
            let expected = if may(right) { 200 } else { 403 };
            assert_eq!(answer.status, expected, "{} {path}", user.token);
            for target in listed.iter().filter(|_| answer.status == 200) {
                let is_there = answer.text().contains(&format!("\"{}\"", target.alias));
                assert_eq!(is_there, user.sees(target), "{} {path} {}", user.token, target.alias);
            }
        }
        for (method, path, right) in [("GET", "/metrics", "api"), ("GET", "/", "api"), ("POST", "/-/reload", "admin")] {
            let expected = if may(right) { 200 } else { 403 };
            assert_eq!(stage.ask(method, path, &user.token).status, expected, "{} {path}", user.token);
        }
        for target in listed {
            let is_seen = seen.iter().any(|seen| seen.alias == target.alias);
            let of = |right, found| match (may(right), is_seen) {
                (false, _) => 403,
                (true, true) => found,
                (true, false) => 404,
            };
            let view = stage.ask("GET", &format!("/api/v1/aliases/{}", target.alias), &user.token);
            assert_eq!(view.status, of("api", 200), "{} {}", user.token, target.alias);
            if view.status == 200 {
                let tenant = format!("\"tenant\":\"{}\"", target.tenant);
                let secret = format!("\"secret_name\":\"{}\"", target.secret);
                assert!(view.text().contains(&tenant) && view.text().contains(&secret), "{}", view.text());
            }
            let scrape = stage.ask("GET", &format!("/scrape/{}/metrics", target.alias), &user.token);
            assert_eq!(scrape.status, of("scrape", 200), "{} {}", user.token, target.alias);
            if !(may("admin") && is_seen) {
                let release = stage.ask("DELETE", &format!("/api/v1/aliases/{}", target.alias), &user.token);
                assert_eq!(release.status, of("admin", 204), "{} {}", user.token, target.alias);
            }
        }
    }
}
