//! Following a key at a node: the announcement that the node has, and each later one as it comes.
//!
//! The follower sends the 32 bytes of a public key. The node sends a byte at once, then announcements, each as a frame: `len:
//! u16, big endian | announcement`. Either side ends it by closing the stream. Callers set the timeouts.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Announcement, frame};
use crate::identity::PublicKey;

/// The protocol's name on a link.
pub const FOLLOW_PROTOCOL: &str = "/narthex/follow/1";

/// The node has read the key, and will tell.
const HEARD: u8 = 0;

/// Asks a node about a key, and returns once the node has read that.
///
/// # Errors
/// That of the stream; [`io::ErrorKind::InvalidData`] if the node sends something else.
pub async fn follow<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, key: &PublicKey) -> io::Result<()> {
    stream.write_all(key.as_bytes()).await?;
    stream.flush().await?;
    match stream.read_u8().await? {
        HEARD => Ok(()),
        other => Err(invalid(format!("a follower was answered by {other}"))),
    }
}

/// Reads the next announcement, which is still to be verified: at most [`Announcement::MAX_LEN`] bytes.
///
/// # Errors
/// That of the stream; [`io::ErrorKind::InvalidData`] for one that is empty or longer.
pub async fn next<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let len = usize::from(stream.read_u16().await?);
    if !(1..=Announcement::MAX_LEN).contains(&len) {
        return Err(invalid(format!("an announcement of {len} bytes")));
    }
    let mut announcement = vec![0; len];
    stream.read_exact(&mut announcement).await?;
    Ok(announcement)
}

/// Reads whom a follower asks about, and tells it so.
///
/// # Errors
/// That of the stream; [`io::ErrorKind::InvalidData`] if that is no key.
pub async fn followed<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<PublicKey> {
    let mut key = [0; 32];
    stream.read_exact(&mut key).await?;
    let key = PublicKey::from_bytes(&key).map_err(|error| invalid(error.to_string()))?;
    stream.write_u8(HEARD).await?;
    stream.flush().await?;
    Ok(key)
}

/// Tells a follower of an announcement.
///
/// # Errors
/// That of the stream.
pub async fn tell<S: AsyncWrite + Unpin>(stream: &mut S, announcement: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame::append(announcement, &mut bytes).map_err(|error| invalid(error.to_string()))?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::identity::KeyPair;

    #[tokio::test]
    async fn follow_bytes_are_unchanged_since_v1() {
        let key = KeyPair::from_seed(&[7; 32]).public();
        let (mut near, mut far) = duplex(64);
        let asked = async { follow(&mut near, &key).await.expect("heard") };
        let answered = async {
            assert_eq!(followed(&mut far).await.expect("a key"), key);
            tell(&mut far, &[9; 3]).await.expect("sends");
        };
        tokio::join!(asked, answered);
        assert_eq!(next(&mut near).await.expect("an announcement"), [9; 3]);

        let mut sent = io::Cursor::new(key.as_bytes().to_vec());
        let mut answer = Vec::new();
        followed(&mut tokio::io::join(&mut sent, &mut answer)).await.expect("a key");
        tell(&mut answer, &[9; 3]).await.expect("sends");
        assert_eq!(answer, [0, 0, 3, 9, 9, 9]);
    }

    #[tokio::test]
    async fn what_is_cut_or_too_long_or_of_another_version_is_refused() {
        assert!(followed(&mut tokio::io::join(&[7; 31][..], tokio::io::sink())).await.is_err());
        let key = KeyPair::generate().public();
        assert!(follow(&mut tokio::io::join(&[1][..], tokio::io::sink()), &key).await.is_err());
        for bytes in [&[0, 0][..], &[0, 3, 9, 9], &[0], &[0x10, 0x01]] {
            assert!(next(&mut &*bytes).await.is_err(), "{bytes:?}");
        }
    }
}
