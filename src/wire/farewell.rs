//! The farewell: a peer that ends gives up its aliases over the link that is there, in one small message.
//!
//! No secret is proved. The link has authenticated the peer's key, and the peer can give up only what that key holds.
//!
//! The peer sends the 16 bytes of its process's name. The scraper sends a byte at once, and its answer once the release is
//! on disk: see [`FarewellAnswer`]. Callers set the timeouts.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::InstanceId;

/// The protocol's name on a link.
pub const FAREWELL_PROTOCOL: &str = "/narthex/farewell/1";

/// The scraper has read the farewell, and will answer.
const HEARD: u8 = 0;
const RELEASED: u8 = 1;
const IN_USE: u8 = 2;
const UNAVAILABLE: u8 = 3;

/// A scraper's answer: a byte, and the number for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FarewellAnswer {
    /// So many aliases of the peer were released, which is on disk: `1`, and the number in four bytes.
    Released(u32),
    /// Another running process has the peer's key. Nothing has changed: `2`.
    InUse,
    /// The scraper cannot release now: `3`. So a client reads any answer of a later version.
    Unavailable,
}

/// Sends a farewell, and returns once the scraper has read it.
///
/// # Errors
/// That of the stream; [`io::ErrorKind::InvalidData`] if the scraper sends something else.
pub async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, instance: InstanceId) -> io::Result<()> {
    stream.write_all(&instance.0).await?;
    stream.flush().await?;
    match stream.read_u8().await? {
        HEARD => Ok(()),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a farewell was answered by {other}"))),
    }
}

/// Reads the answer to a farewell that was read.
///
/// # Errors
/// That of the stream.
pub async fn answered<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<FarewellAnswer> {
    Ok(match stream.read_u8().await? {
        RELEASED => FarewellAnswer::Released(stream.read_u32().await?),
        IN_USE => FarewellAnswer::InUse,
        _ => FarewellAnswer::Unavailable,
    })
}

/// Reads a farewell, and tells the peer so.
///
/// # Errors
/// That of the stream.
pub async fn hear<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<InstanceId> {
    let mut instance = InstanceId([0; 16]);
    stream.read_exact(&mut instance.0).await?;
    stream.write_u8(HEARD).await?;
    stream.flush().await?;
    Ok(instance)
}

/// Answers a farewell, and ends the stream.
///
/// # Errors
/// That of the stream.
pub async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, answer: FarewellAnswer) -> io::Result<()> {
    match answer {
        FarewellAnswer::Released(count) => stream.write_all(&[&[RELEASED][..], &count.to_be_bytes()].concat()).await?,
        FarewellAnswer::InUse => stream.write_u8(IN_USE).await?,
        FarewellAnswer::Unavailable => stream.write_u8(UNAVAILABLE).await?,
    }
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use tokio::io::{duplex, split};

    use super::*;

    const NAME: InstanceId = InstanceId([7; 16]);

    #[tokio::test]
    async fn farewell_bytes_are_unchanged_since_v1() {
        for (given, bytes) in [
            (FarewellAnswer::Released(258), &[1, 0, 0, 1, 2][..]),
            (FarewellAnswer::InUse, &[2]),
            (FarewellAnswer::Unavailable, &[3]),
        ] {
            let (mut near, mut far) = duplex(64);
            near.write_all(&NAME.0).await.expect("room");
            assert_eq!(hear(&mut far).await.expect("a farewell"), NAME);
            answer(&mut far, given).await.expect("sends");
            drop(far);
            let mut sent = Vec::new();
            near.read_to_end(&mut sent).await.expect("ends");
            assert_eq!(sent, [&[0], bytes].concat());
            assert_eq!(answered(&mut &sent[1..]).await.expect("parses"), given);
        }
    }

    #[tokio::test]
    async fn a_farewell_that_is_cut_is_none_and_an_answer_of_a_later_version_is_no_release() {
        assert!(hear(&mut tokio::io::join(&[7; 15][..], tokio::io::sink())).await.is_err());
        assert!(answered(&mut &[1, 0, 0, 1][..]).await.is_err() && answered(&mut &[][..]).await.is_err());
        assert_eq!(answered(&mut &[9][..]).await.expect("an answer"), FarewellAnswer::Unavailable);
        let (near, far) = duplex(64);
        let ((mut read, _keep), mut far) = (split(near), far);
        far.write_u8(9).await.expect("room");
        assert!(say(&mut tokio::io::join(&mut read, tokio::io::sink()), NAME).await.is_err());
    }
}
