//! Who may ask a scraper what: the rights of a user of its HTTP side, and the targets that the user sees.
//!
//! Users are named in a TOML file, each in a `[[user]]`. Whoever is authenticated and not named there has [`Right::ORDINARY`] and sees
//! every target.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
};

use serde::Deserialize;

/// Most users of a file.
pub(crate) const MAX_USERS: usize = 1000;

/// What a request may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Right {
    /// The list of targets.
    Sd,
    /// Metrics of targets.
    Scrape,
    /// The table of aliases and the scraper's own metrics, to read.
    Api,
    /// To change something.
    Admin,
}

/// Somebody whom the HTTP side answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: Arc<str>,
    pub(crate) rights: BTreeSet<Right>,
    /// The targets that the user sees; all of them without it.
    pub(crate) scope: Option<TargetScope>,
}

/// Some of the targets: those that pass both tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TargetScope {
    /// Names of secrets, one of which the holder has proved; any if there is none.
    pub(crate) secrets: BTreeSet<String>,
    /// Labels that the target is listed with, all of them.
    pub(crate) labels: BTreeMap<String, String>,
}

/// The file of users.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserFile {
    #[serde(default, rename = "user")]
    pub(crate) users: Vec<UserEntry>,
}

/// A `[[user]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserEntry {
    /// The name of a password, or the one for the log of a token.
    name: String,
    /// The file of the token that the user shows.
    pub(crate) token_file: Option<PathBuf>,
    rights: Option<BTreeSet<Right>>,
    secrets: Option<BTreeSet<String>>,
    labels: Option<BTreeMap<String, String>>,
}

impl Right {
    /// Of whoever is authenticated, unless a file says otherwise.
    pub(crate) const ORDINARY: [Self; 3] = [Self::Sd, Self::Scrape, Self::Api];
    /// Of everybody where nobody is authenticated.
    const ALL: [Self; 4] = [Self::Sd, Self::Scrape, Self::Api, Self::Admin];
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sd => "sd",
            Self::Scrape => "scrape",
            Self::Api => "api",
            Self::Admin => "admin",
        })
    }
}

impl User {
    /// Anybody, where nobody has to show who they are.
    pub(crate) fn anonymous() -> Self {
        Self { name: "anonymous".into(), rights: Right::ALL.into(), scope: None }
    }

    /// A user whom no file of users names.
    pub(crate) fn ordinary(name: &str) -> Self {
        Self { name: name.into(), rights: Right::ORDINARY.into(), scope: None }
    }
}

impl UserFile {
    /// Reads the text of a file. The error is one line.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            format!("line {line}: {}", error.message().replace('\n', " "))
        })?;
        if file.users.len() > MAX_USERS {
            return Err(format!("{} users; at most {MAX_USERS} are allowed", file.users.len()));
        }
        let mut names = BTreeSet::new();
        for entry in &file.users {
            let name = &entry.name;
            let is_fit = !name.is_empty() && !name.contains(':') && !name.chars().any(char::is_control);
            if !is_fit {
                return Err(format!("{name:?} is no name of a user"));
            }
            if !names.insert(name) {
                return Err(format!("user {name:?} is there twice"));
            }
            if entry.secrets.as_ref().is_some_and(BTreeSet::is_empty) {
                return Err(format!("user {name:?} has an empty list of secrets: leave it out, or name some"));
            }
            let labels = entry.labels.iter().flatten();
            if let Some((label, _)) = labels.into_iter().find(|(label, value)| label.is_empty() || value.is_empty()) {
                return Err(format!("user {name:?}: label {label:?} needs a name and a value"));
            }
            if entry.labels.as_ref().is_some_and(BTreeMap::is_empty) {
                return Err(format!("user {name:?} has no label in labels: leave it out, or give some"));
            }
        }
        Ok(file)
    }
}

impl UserEntry {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn user(&self) -> User {
        let is_scoped = self.secrets.is_some() || self.labels.is_some();
        let scope = is_scoped.then(|| TargetScope {
            secrets: self.secrets.clone().unwrap_or_default(),
            labels: self.labels.clone().unwrap_or_default(),
        });
        let rights = self.rights.clone().unwrap_or_else(|| Right::ORDINARY.into());
        User { name: self.name.as_str().into(), rights, scope }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_ordinary_rights_and_sees_everything_unless_the_file_says_otherwise() {
        let file = UserFile::read(
            "[[user]]\nname = \"a\"\n[[user]]\nname = \"b\"\nrights = [\"sd\", \"admin\"]\nsecrets = [\"x\"]\nlabels = { t = \"1\" }\n",
        )
        .expect("read");
        assert_eq!(file.users[0].user(), User::ordinary("a"));
        let b = file.users[1].user();
        assert_eq!(b.rights, BTreeSet::from([Right::Sd, Right::Admin]));
        let scope = b.scope.expect("a scope");
        assert!(scope.secrets.contains("x") && scope.labels["t"] == "1");
    }

    #[test]
    fn what_could_admit_more_than_was_meant_is_refused_in_one_line() {
        for (text, said) in [
            ("[[user]]\nname = \"a\"\nsecrets = []", "empty list of secrets"),
            ("[[user]]\nname = \"a\"\nlabels = {}", "no label in labels"),
            ("[[user]]\nname = \"a\"\nlabels = { t = \"\" }", "needs a name and a value"),
            ("[[user]]\nname = \"a\"\n[[user]]\nname = \"a\"", "twice"),
            ("[[user]]\nname = \"a:b\"", "no name of a user"),
            ("[[user]]\nname = \"\"", "no name of a user"),
            ("[[user]]\nname = \"a\"\nright = [\"sd\"]", "line 3: unknown field `right`"),
            ("[[user]]\nname = \"a\"\nrights = [\"root\"]", "line 3: unknown variant `root`"),
            ("[[users]]\nname = \"a\"", "line 1: unknown field `users`"),
        ] {
            let error = UserFile::read(text).expect_err(text);
            assert!(error.contains(said) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
