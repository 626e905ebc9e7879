//! The lobby: hosts that say which labels they have, and the list of all of them.
//!
//! A stream carries one request and its replies. Each message is its length in four bytes, big endian, and its [`codec`] form. The
//! streams of a peer that holds no alias, and so has proved no secret, are closed. Callers set the timeouts.

use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::codec;

/// The protocol's name on a link.
pub const LOBBY_PROTOCOL: &str = "/narthex/lobby/1";

/// Most bytes of a message: a host has 64 KiB, and a list goes in parts.
pub const MAX_LEN: usize = 256 * 1024;

/// What a peer asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LobbyRequest {
    /// Lists the host, or what has changed about it, until its time is over.
    Hi(Hi),
    /// Lists the host no longer.
    Goodbye {
        /// The host's name.
        hostname: String,
    },
    /// Asks for the list, unless it is this version of it.
    List {
        /// The version of the last list, 0 for none.
        known: u64,
    },
}

/// A host as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hi {
    /// The host's name, by which it is known in the group.
    pub hostname: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// How long the host is listed without another hi.
    pub ttl_seconds: u32,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LobbyReply {
    /// The hi or goodbye is on disk.
    Done,
    /// It is not, or there is no list.
    Refused(LobbyRefusal),
    /// The list has the version that the peer knows.
    Unchanged,
    /// A part of the list.
    Hosts(Hosts),
}

/// Why the scraper does not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LobbyRefusal {
    /// Another peer with a link has a host of the name.
    #[error("another running host has this name")]
    Taken,
    /// The name or a label has another form, or they are too long.
    #[error("the host's name or its labels have a form that cannot be listed")]
    Invalid,
    /// A limit of the table is reached.
    #[error("the scraper's table is full")]
    Full,
    /// The table is not loaded, or cannot be written.
    #[error("the scraper has no list now, or cannot write it")]
    Unavailable,
}

/// A part of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// Of the whole list; not 0.
    pub version: u64,
    /// In the order of their names.
    pub hosts: Vec<LobbyHost>,
    /// True if another part follows.
    pub more: bool,
}

/// A host of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LobbyHost {
    /// Its name.
    pub hostname: String,
    /// Its labels, sorted.
    pub labels: Vec<String>,
    /// When it last said hi, in seconds of Unix time by the scraper's clock.
    pub seen: u64,
    /// How long it is listed after that.
    pub ttl_seconds: u32,
}

/// Sends a message.
///
/// # Errors
/// That of the stream; [`io::ErrorKind::InvalidInput`] for a message that is too long.
pub async fn send<T: Serialize, S: AsyncWrite + Unpin>(stream: &mut S, message: &T) -> io::Result<()> {
    let bytes = codec::encode(message).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len as usize <= MAX_LEN);
    let len = len.ok_or(io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&len.to_be_bytes()[..], &bytes].concat()).await?;
    stream.flush().await
}

/// Reads a message.
///
/// # Errors
/// That of the stream; [`io::ErrorKind::InvalidData`] for bytes that are no such message.
pub async fn receive<T: DeserializeOwned, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<T> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let len = stream.read_u32().await? as usize;
    if len > MAX_LEN {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("message of {len} bytes: limit is {MAX_LEN}")));
    }
    let mut bytes = Vec::new();
    // Memory is taken for what has come, not for what was announced.
    if stream.take(len as u64).read_to_end(&mut bytes).await? < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    codec::decode(&bytes).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 1..400)) {
            bytes[0] = codec::VERSION;
            let _ = codec::decode::<LobbyRequest>(&bytes);
            let _ = codec::decode::<LobbyReply>(&bytes);
        }
    }

    #[track_caller]
    fn assert_bytes<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: T, bytes: &str) {
        let encoded = codec::encode(&message).expect("encodes");
        assert_eq!(data_encoding::HEXLOWER.encode(&encoded), bytes.replace(' ', ""));
        assert_eq!(codec::decode::<T>(&encoded).expect("decodes"), message);
    }

    #[test]
    fn lobby_bytes_are_unchanged_since_v1() {
        let hi = Hi { hostname: "h".into(), labels: vec!["a:b".into()], ttl_seconds: 30 };
        assert_bytes(LobbyRequest::Hi(hi), "01 00 0168 01 03613a62 1e");
        assert_bytes(LobbyRequest::Goodbye { hostname: "h".into() }, "01 01 0168");
        assert_bytes(LobbyRequest::List { known: 7 }, "01 02 07");
        assert_bytes(LobbyReply::Done, "01 00");
        assert_bytes(LobbyReply::Refused(LobbyRefusal::Unavailable), "01 01 03");
        assert_bytes(LobbyReply::Unchanged, "01 02");
        let host = LobbyHost { hostname: "h".into(), labels: vec![], seen: 5, ttl_seconds: 30 };
        assert_bytes(
            LobbyReply::Hosts(Hosts { version: 9, hosts: vec![host], more: true }),
            "01 03 09 01 0168 00 05 1e 01",
        );
    }

    #[tokio::test]
    async fn a_message_that_is_cut_or_too_long_is_none() {
        let mut sent = Vec::new();
        let request = LobbyRequest::Goodbye { hostname: "host".into() };
        send(&mut sent, &request).await.expect("sends");
        assert_eq!(receive::<LobbyRequest, _>(&mut &sent[..]).await.expect("whole"), request);
        for len in 0..sent.len() {
            assert!(receive::<LobbyRequest, _>(&mut &sent[..len]).await.is_err(), "{len} bytes");
        }
        let too_long = [&0xffff_ffff_u32.to_be_bytes()[..], &[1; 100]].concat();
        let error = receive::<LobbyRequest, _>(&mut &too_long[..]).await.expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
