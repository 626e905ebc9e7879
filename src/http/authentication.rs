//! Who sends a request: a name with a password, or a token, as `Authorization` has them (RFC 7617, RFC 6750).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, header};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use super::{
    passwords::{Checked, PasswordCheck},
    token,
};
use crate::{access::User, telemetry::label_values};

/// What a client without credentials is told to show.
pub(crate) const CHALLENGES: [HeaderValue; 2] = [
    HeaderValue::from_static("Basic realm=\"narthex\", charset=\"UTF-8\""),
    HeaderValue::from_static("Bearer realm=\"narthex\""),
];

label_values! {
    /// Why a request was not answered.
    pub(crate) enum Denied {
        /// It shows nothing that could be checked.
        Missing = "missing",
        /// It shows a wrong password or token.
        Wrong = "wrong",
        /// Too many wrong passwords came from its address.
        TooOften = "too_often",
        /// It comes from a user who may not do this.
        NoRight = "no_right",
    }
}

/// Everybody whom the files know.
pub(super) struct Users {
    /// Hashes of passwords by names.
    pub(super) passwords: BTreeMap<String, String>,
    /// Digests of tokens, with their users.
    pub(super) tokens: Vec<([u8; 32], Arc<User>)>,
    /// Those that the file of users names.
    pub(super) named: HashMap<String, Arc<User>>,
    /// Whether TLS has verified every client's certificate.
    pub(super) have_certificates: bool,
}

impl Users {
    /// True if nobody has to show anything.
    pub(super) fn is_open(&self) -> bool {
        self.is_silent() && !self.have_certificates
    }

    /// True if no request needs an `Authorization`.
    fn is_silent(&self) -> bool {
        self.passwords.is_empty() && self.tokens.is_empty()
    }

    /// The user who sends these headers from `ip`.
    pub(super) async fn authenticate(
        &self,
        headers: &HeaderMap,
        ip: IpAddr,
        check: &PasswordCheck,
    ) -> Result<Arc<User>, Denied> {
        if self.is_silent() {
            let user = if self.have_certificates { User::ordinary("certificate") } else { User::anonymous() };
            return Ok(Arc::new(user));
        }
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(shown), None) = (shown.next(), shown.next()) else { return Err(Denied::Missing) };
        let (scheme, credentials) = split(shown.as_bytes());
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.of_token(credentials).ok_or(Denied::Wrong);
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Err(Denied::Missing);
        }
        let decoded = Zeroizing::new(BASE64.decode(credentials).map_err(|_| Denied::Wrong)?);
        let colon = decoded.iter().position(|byte| *byte == b':').ok_or(Denied::Wrong)?;
        let name = str::from_utf8(&decoded[..colon]).map_err(|_| Denied::Wrong)?;
        match check.check(&self.passwords, name, &decoded[colon + 1..], ip).await {
            Checked::Right => Ok(self.named.get(name).cloned().unwrap_or_else(|| Arc::new(User::ordinary(name)))),
            Checked::Wrong => Err(Denied::Wrong),
            Checked::TooOften => Err(Denied::TooOften),
        }
    }

    /// Looks at every token, whichever it is.
    fn of_token(&self, shown: &[u8]) -> Option<Arc<User>> {
        let shown = token::digest(shown);
        let mut found = u32::MAX;
        for (number, (digest, _)) in (0..).zip(&self.tokens) {
            found.conditional_assign(&number, digest.ct_eq(&shown));
        }
        self.tokens.get(found as usize).map(|(_, user)| Arc::clone(user))
    }
}

/// The scheme and what follows it. The http_sd of Prometheus 2.42 leaves `Bearer` out unless its configuration says it.
fn split(value: &[u8]) -> (&[u8], &[u8]) {
    match value.iter().position(|byte| *byte == b' ') {
        Some(space) => (&value[..space], value[space..].trim_ascii()),
        None => (b"Bearer", value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::check_labels;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn users() -> Users {
        let user = |name| Arc::new(User { rights: [crate::access::Right::Sd].into(), ..User::ordinary(name) });
        Users {
            passwords: [("alice", "a:b"), ("bob", "")]
                .map(|(n, p)| (n.into(), bcrypt::hash(p, 4).expect("hashed")))
                .into(),
            tokens: vec![(token::digest(b"t1"), user("one")), (token::digest(b"t2"), user("two"))],
            named: [("bob".to_owned(), user("bob"))].into(),
            have_certificates: false,
        }
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", BASE64.encode(text.as_bytes()))
    }

    #[test]
    fn denials_are_plain_labels() {
        check_labels::<Denied>();
    }

    #[tokio::test]
    async fn passwords_and_tokens_tell_who_asks() {
        let (users, check) = (users(), PasswordCheck::new());
        let asked = async |values: &[String]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().expect("a value"));
            }
            users.authenticate(&headers, HERE, &check).await.map(|user| (user.name.to_string(), user.rights.len()))
        };
        let is = |name: &str, rights| Ok((name.to_owned(), rights));
        assert_eq!(asked(&[basic("alice:a:b")]).await, is("alice", 3));
        assert_eq!(asked(&[basic("bob:").replace("Basic", "bASIC")]).await, is("bob", 1));
        assert_eq!(asked(&["Bearer t1".into()]).await, is("one", 1));
        assert_eq!(asked(&["bearer  t2".into()]).await, is("two", 1));
        assert_eq!(asked(&["t2".into()]).await, is("two", 1));
        for wrong in
            ["Bearer t", "Bearer ", "Basic !", "Basic YQ=="].map(String::from).into_iter().chain([basic("alice:a")])
        {
            assert_eq!(asked(std::slice::from_ref(&wrong)).await, Err(Denied::Wrong), "{wrong}");
        }
        for none in [vec![], vec!["Digest t1".into()], vec!["Bearer t1".into(), "Bearer t1".into()]] {
            assert_eq!(asked(&none).await, Err(Denied::Missing), "{none:?}");
        }
    }
}
