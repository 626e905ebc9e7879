//! What scrapers of one group ask each other, as HTTP/1.1 on a stream of their link.
//!
//! `GET /pull/<alias>` with [`HOLDER_HEADER`] has a member pull over its own link to the holder; a failure carries
//! [`FAILURE_HEADER`]. `GET /presence/<keys>` asks which holders a member is linked to. Only the texts are here.

use std::{fmt, str::FromStr, time::Duration};

use http::HeaderName;

use crate::identity::PublicKey;

/// The protocol's name on a link.
pub(crate) const GROUP_PROTOCOL: &str = "/narthex/group/1";
/// Begins the path of a forwarded pull; the alias follows.
pub(crate) const PULL_PATH: &str = "/pull/";
/// Begins the path of a question for presence; keys follow, with commas between them.
pub(crate) const PRESENCE_PATH: &str = "/presence/";
/// The header of a forwarded pull with the key of the alias's holder.
pub(crate) const HOLDER_HEADER: HeaderName = HeaderName::from_static("narthex-holder");
/// The header of an answer without an exposition: a [`ForwardFailure`].
pub(crate) const FAILURE_HEADER: HeaderName = HeaderName::from_static("narthex-failure");
/// Most keys in a question for presence. Their texts take 14 KiB.
pub(crate) const MAX_KEYS: usize = 256;

/// Why a member has no exposition for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForwardFailure {
    /// The member has no link to the holder: another one may have.
    Unlinked,
    /// The holder broke off before answering.
    Broken,
    /// The holder answered with this status.
    Refused(u16),
    /// Too many pulls are under way.
    Busy,
    /// The holder did not answer in time.
    Late,
}

/// Whether a member has a link to a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HolderLink {
    Linked,
    /// The last link was lost so long ago.
    Lost(Duration),
    /// There was none since the member's start, so long ago.
    Unseen(Duration),
}

impl fmt::Display for ForwardFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlinked => f.write_str("unlinked"),
            Self::Broken => f.write_str("broken"),
            Self::Refused(status) => write!(f, "refused {status}"),
            Self::Busy => f.write_str("busy"),
            Self::Late => f.write_str("late"),
        }
    }
}

/// The text is of another form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl FromStr for ForwardFailure {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Ok(match text {
            "unlinked" => Self::Unlinked,
            "broken" => Self::Broken,
            "busy" => Self::Busy,
            "late" => Self::Late,
            _ => Self::Refused(text.strip_prefix("refused ").and_then(number).ok_or(Malformed)?),
        })
    }
}

impl fmt::Display for HolderLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linked => f.write_str("linked"),
            Self::Lost(ago) => write!(f, "lost {}", ago.as_millis()),
            Self::Unseen(since) => write!(f, "unseen {}", since.as_millis()),
        }
    }
}

impl FromStr for HolderLink {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let ms = |text| number(text).map(Duration::from_millis).ok_or(Malformed);
        match text.split_once(' ') {
            None if text == "linked" => Ok(Self::Linked),
            Some(("lost", ago)) => Ok(Self::Lost(ms(ago)?)),
            Some(("unseen", since)) => Ok(Self::Unseen(ms(since)?)),
            _ => Err(Malformed),
        }
    }
}

/// The path of a question for the presence of these holders.
pub(crate) fn presence_path(holders: &[PublicKey]) -> String {
    let keys: Vec<String> = holders.iter().map(PublicKey::to_string).collect();
    format!("{PRESENCE_PATH}{}", keys.join(","))
}

/// The holders that such a path asks about, at least one.
///
/// # Errors
/// [`Malformed`] if there are too many, or one is no key.
pub(crate) fn asked_holders(path: &str) -> Result<Vec<PublicKey>, Malformed> {
    let keys = path.strip_prefix(PRESENCE_PATH).ok_or(Malformed)?;
    if keys.split(',').nth(MAX_KEYS).is_some() {
        return Err(Malformed);
    }
    keys.split(',').map(|key| key.parse().map_err(|_| Malformed)).collect()
}

/// The answer to such a question: a line for each holder, in the order asked.
pub(crate) fn presence_text(links: impl IntoIterator<Item = HolderLink>) -> String {
    links.into_iter().map(|link| format!("{link}\n")).collect()
}

/// Reads the answer about so many holders.
///
/// # Errors
/// [`Malformed`] if there are more or fewer lines, or one has another form.
pub(crate) fn parse_presence(text: &str, holders: usize) -> Result<Vec<HolderLink>, Malformed> {
    let links: Vec<HolderLink> = text.lines().take(holders + 1).map(str::parse).collect::<Result<_, _>>()?;
    if links.len() == holders { Ok(links) } else { Err(Malformed) }
}

/// A number of decimal digits alone.
fn number<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::KeyPair;

    fn key(seed: u8) -> PublicKey {
        KeyPair::from_seed(&[seed; 32]).public()
    }

    #[test]
    fn texts_are_read_as_they_are_written() {
        use ForwardFailure::{Broken, Busy, Late, Refused, Unlinked};
        for (failure, text) in
            [(Unlinked, "unlinked"), (Broken, "broken"), (Refused(404), "refused 404"), (Busy, "busy"), (Late, "late")]
        {
            assert_eq!(failure.to_string(), text);
            assert_eq!(text.parse(), Ok(failure));
        }
        let links =
            [HolderLink::Linked, HolderLink::Lost(Duration::from_millis(7)), HolderLink::Unseen(Duration::ZERO)];
        let text = presence_text(links);
        assert_eq!(text, "linked\nlost 7\nunseen 0\n");
        assert_eq!(parse_presence(&text, 3), Ok(links.to_vec()));
        let keys = [key(1), key(2)];
        assert_eq!(presence_path(&keys), format!("/presence/{},{}", keys[0], keys[1]));
        assert_eq!(asked_holders(&presence_path(&keys)), Ok(keys.to_vec()));
    }

    #[test]
    fn a_question_about_too_many_holders_and_an_answer_about_others_are_refused() {
        let most = vec![key(1); MAX_KEYS];
        assert!(asked_holders(&presence_path(&most)).is_ok());
        assert_eq!(asked_holders(&presence_path(&[most, vec![key(2)]].concat())), Err(Malformed));
        for path in ["/presence/", "/presence/,", "/presence", "/pull/a", ""] {
            assert_eq!(asked_holders(path), Err(Malformed), "{path}");
        }
        for (text, holders) in [("linked\n", 2), ("linked\nlinked\n", 1), ("", 1), ("linked\nlost\n", 2)] {
            assert_eq!(parse_presence(text, holders), Err(Malformed), "{text:?}");
        }
        for text in
            ["", "Linked", "linked ", "lost", "lost ", "lost +1", "lost -1", "lost 1.5", "unseen 99999999999999999999"]
        {
            assert_eq!(text.parse::<HolderLink>(), Err(Malformed), "{text:?}");
        }
        for text in ["", "refused", "refused ", "refused 70000", "refused +1", "gone"] {
            assert_eq!(text.parse::<ForwardFailure>(), Err(Malformed), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_texts_never_panic(text in any::<String>(), holders in 0..10_usize) {
            let _ = text.parse::<ForwardFailure>();
            let _ = text.parse::<HolderLink>();
            let _ = parse_presence(&text, holders);
            let _ = asked_holders(&text);
            let _ = asked_holders(&format!("{PRESENCE_PATH}{text}"));
        }
    }
}
