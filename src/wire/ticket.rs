//! Tickets: everything a client needs to join, in one line that people paste.
//!
//! `nx1` and z-base-32 of `message | checksum`. The message is a [`Content`] as [`codec`] writes it; the checksum is the first
//! four bytes of BLAKE2s-256 over it, and shows a line that was cut or mistyped, no more. The digit counts versions of all
//! this. A ticket contains a shared secret, so it is one.

use std::{fmt, str::FromStr};

use blake2::{Blake2s256, Digest};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::codec;
use crate::identity::{self, DialAddress, PeerAddr, PublicKey, SharedSecret};

/// The first characters of every ticket of this version.
const PREFIX: &str = "nx1";
/// The same of every version.
const FAMILY: &str = "nx";
/// Bytes of the checksum.
const CHECKSUM_LEN: usize = 4;
/// Most characters of a ticket: sixty addresses of the longest names.
const MAX_LEN: usize = 16 * 1024;

/// One line with which a client joins: scrapers and where they are, nodes that find them, and a secret of its own.
///
/// Whoever has the line can join, so it is treated as a secret: it prints as `Ticket(..)`, and is wiped on drop. White space
/// is passed over when it is read, as terminals break long lines.
///
/// ```
/// use narthex::{KeyPair, PeerAddr, SharedSecret, Ticket};
///
/// let scraper = PeerAddr::at(KeyPair::generate().public(), "scraper.example.org", 19961);
/// let ticket = Ticket::new(vec![scraper], Vec::new(), SharedSecret::generate())?;
/// let line = ticket.expose_text();
/// assert!(line.starts_with("nx1"));
/// assert_eq!(line.parse::<Ticket>()?, ticket);
/// # Ok::<_, narthex::TicketError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    scrapers: Vec<PeerAddr>,
    bootstrap: Vec<PeerAddr>,
    secret: SharedSecret,
}

/// A ticket as it is encoded.
#[derive(Serialize, Deserialize)]
struct Content {
    scrapers: Vec<Place>,
    nodes: Vec<Place>,
    secret: [u8; 32],
}

/// A peer, and its addresses as people write them.
#[derive(Serialize, Deserialize)]
struct Place {
    key: PublicKey,
    addresses: Vec<String>,
}

impl Ticket {
    /// A ticket for these scrapers; one with several addresses is given once for each. Nodes find scrapers without an address by
    /// their keys.
    ///
    /// # Errors
    /// [`TicketError::Empty`] if no scraper has an address, and there is no node; [`TicketError::TooLong`] if nobody would take it.
    pub fn new(scrapers: Vec<PeerAddr>, bootstrap: Vec<PeerAddr>, secret: SharedSecret) -> Result<Self, TicketError> {
        let is_lost = |scraper: &PeerAddr| scraper.hint.is_none() && bootstrap.is_empty();
        if scrapers.iter().all(is_lost) {
            return Err(TicketError::Empty);
        }
        let ticket = Self { scrapers, bootstrap, secret };
        if ticket.expose_text().len() > MAX_LEN {
            return Err(TicketError::TooLong);
        }
        Ok(ticket)
    }

    /// The scrapers to register with, each once for each of its addresses.
    pub fn scrapers(&self) -> &[PeerAddr] {
        &self.scrapers
    }

    /// The nodes through which scrapers are found.
    pub fn bootstrap(&self) -> &[PeerAddr] {
        &self.bootstrap
    }

    /// The secret to prove.
    pub fn secret(&self) -> &SharedSecret {
        &self.secret
    }

    /// The line itself.
    ///
    /// # Panics
    /// Never: strings and keys have an encoding.
    pub fn expose_text(&self) -> Zeroizing<String> {
        let mut content =
            Content { scrapers: places(&self.scrapers), nodes: places(&self.bootstrap), secret: *self.secret.expose() };
        let mut bytes = Zeroizing::new(codec::encode(&content).expect("strings and keys have an encoding"));
        content.secret.zeroize();
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        Zeroizing::new(format!("{PREFIX}{}", *Zeroizing::new(identity::encode_text(&bytes))))
    }
}

/// Why a text is not a ticket. Never carries the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// Something else.
    #[error("not a ticket: one begins with nx1, as narthex ticket create prints it")]
    Prefix,
    /// Of another version of narthex.
    #[error("a ticket of another version: use the narthex that made it, or a later one")]
    Version,
    /// Cut, mistyped, or with something else behind.
    #[error("the ticket is damaged: copy the whole line, from nx1 to its end")]
    Damaged,
    /// A whole ticket that leads nowhere.
    #[error("the ticket names no scraper that could be found: make another one")]
    Empty,
    /// Longer than any that is read.
    #[error("the ticket would be longer than 16 KiB: name fewer addresses, keys or nodes")]
    TooLong,
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text: Zeroizing<String> = Zeroizing::new(text.split_ascii_whitespace().collect());
        let Some(body) = text.strip_prefix(PREFIX) else {
            let of_a_version =
                text.strip_prefix(FAMILY).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            return Err(if of_a_version { TicketError::Version } else { TicketError::Prefix });
        };
        if body.len() > MAX_LEN {
            return Err(TicketError::Damaged);
        }
        let bytes = Zeroizing::new(identity::decode_text(body).ok_or(TicketError::Damaged)?);
        let (message, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(TicketError::Damaged)?;
        if checksum(message) != *sum {
            return Err(TicketError::Damaged);
        }
        let mut content: Content = codec::decode(message).map_err(|_| TicketError::Version)?;
        let secret = SharedSecret::from_bytes(content.secret);
        content.secret.zeroize();
        Self::new(peers(content.scrapers)?, peers(content.nodes)?, secret)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(..)")
    }
}

fn checksum(message: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = Blake2s256::new().chain_update(b"narthex ticket v1").chain_update(message).finalize();
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&hash[..CHECKSUM_LEN]);
    sum
}

/// The peers, each once.
fn places(peers: &[PeerAddr]) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for PeerAddr { key, hint } in peers {
        let place = match places.iter().position(|place| place.key == *key) {
            Some(known) => &mut places[known],
            None => {
                places.push(Place { key: *key, addresses: Vec::new() });
                places.last_mut().expect("one was pushed")
            }
        };
        place.addresses.extend(hint.iter().map(DialAddress::to_string));
    }
    places
}

/// The peers, each once for each address.
fn peers(places: Vec<Place>) -> Result<Vec<PeerAddr>, TicketError> {
    let mut peers = Vec::new();
    for Place { key, addresses } in places {
        if addresses.is_empty() {
            peers.push(PeerAddr::from(key));
        }
        for address in addresses {
            let hint = address.parse().map_err(|_| TicketError::Version)?;
            peers.push(PeerAddr { key, hint: Some(hint) });
        }
    }
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::KeyPair;

    fn ticket() -> Ticket {
        let scraper = KeyPair::from_seed(&[1; 32]).public();
        let node = KeyPair::from_seed(&[2; 32]).public();
        Ticket::new(
            vec![PeerAddr::at(scraper, "192.0.2.7", 19961), PeerAddr::at(scraper, "scraper.example.org", 19961)],
            vec![PeerAddr::at(node, "2001:db8::1", 4001)],
            SharedSecret::from_bytes([3; 32]),
        )
        .expect("it can be found")
    }

    #[test]
    fn a_ticket_is_unchanged_since_v1() {
        let line = ticket().expose_text();
        let bytes = "yryain8d5i4yuhci9ijpsmjhzjqzf1u8bg9t5fy1dx3zjnybso8s6zynbhau1ctqgyzdrmtz8eau1qjsgrczga51cfagkhtqcihgn5mopt11h5\
                     51ch7dnqj3gaaodyj3qh8ko9ezm7mkgidgapg87ugmtsfjdp8qg6tf57oxmq8huchwyrjfsctogyauw3dn8y7dwck78e4dycbtycbogyadycbo\
                     gyadycbogyadycbogyadycbogyadycbogyadycbax7tozo";
        assert_eq!(*line, format!("nx1{bytes}"));
        assert_eq!(line.parse(), Ok(ticket()));
    }

    #[test]
    fn a_line_that_a_terminal_broke_is_whole() {
        let line = ticket().expose_text();
        let (begin, end) = line.split_at(80);
        assert_eq!(format!("  {begin}\r\n {end}\n").parse(), Ok(ticket()));
    }

    #[test]
    fn what_is_no_ticket_says_so_and_never_what_it_was() {
        let nowhere = PeerAddr::from(KeyPair::from_seed(&[1; 32]).public());
        let secret = SharedSecret::generate();
        for scrapers in [vec![nowhere.clone()], Vec::new()] {
            assert_eq!(Ticket::new(scrapers, Vec::new(), secret.clone()), Err(TicketError::Empty));
        }
        let lost = Ticket { scrapers: vec![nowhere], bootstrap: Vec::new(), secret };
        for (text, error) in [
            (String::new(), TicketError::Prefix),
            ("secret".to_owned(), TicketError::Prefix),
            ("nx2ybndrfg".to_owned(), TicketError::Version),
            ("nx1".to_owned(), TicketError::Damaged),
            ("nx1\u{e9}".to_owned(), TicketError::Damaged),
            ("nx1".to_owned() + &"y".repeat(MAX_LEN + 1), TicketError::Damaged),
            (lost.expose_text().to_string(), TicketError::Empty),
        ] {
            assert_eq!(text.parse::<Ticket>(), Err(error), "{text}");
        }
        assert_eq!(format!("{:?}", ticket()), "Ticket(..)");
    }

    proptest! {
        #[test]
        fn a_cut_or_mistyped_line_is_refused(at: prop::sample::Index, character in "[a-z0-9]") {
            let line = ticket().expose_text();
            let at = at.index(line.len());
            prop_assert!(line[..at].parse::<Ticket>().is_err());
            let mistyped = format!("{}{character}{}", &line[..at], &line[at + 1..]);
            prop_assert!(mistyped == *line || mistyped.parse::<Ticket>().is_err());
        }

        #[test]
        fn no_text_panics(text in "nx1[ybndrfg8ejkmcpqxot1uwisza345h769]{0,200}") {
            let _ = text.parse::<Ticket>();
        }
    }

    /// Before: it was printed, and called damaged by whoever read it.
    #[test]
    fn a_ticket_that_nobody_would_take_is_not_made() {
        let hint: crate::identity::DialAddress = format!("{}.example:1", "a".repeat(60)).parse().expect("an address");
        let key = crate::identity::KeyPair::from_seed(&[1; 32]).public();
        let scrapers = vec![PeerAddr { key, hint: Some(hint) }; 200];
        let made = Ticket::new(scrapers, Vec::new(), SharedSecret::from_bytes([1; 32]));
        assert_eq!(made.map(drop), Err(TicketError::TooLong));
    }
}
