//! Error messages that strangers sent, made fit for a log.

use bytes::Buf;
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use tokio::time::{self, Instant};

use super::escaped;

/// Most bytes of a body that are read for its first line.
const MAX_READ: usize = 4096;
/// Most characters of a message in a log line.
const MAX_CHARS: usize = 200;

/// The first line of a body, escaped and cut, as far as the body has arrived at `until`.
pub(crate) async fn remote_message<B>(body: B, until: Instant) -> String
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = Limited::new(body, MAX_READ);
    let mut text = Vec::new();
    while let Ok(Some(Ok(frame))) = time::timeout_at(until, body.frame()).await {
        if let Ok(mut data) = frame.into_data() {
            text.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
    }
    let text = String::from_utf8_lossy(&text);
    let line: String = text.lines().next().unwrap_or_default().chars().take(MAX_CHARS).collect();
    escaped(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::{StreamExt, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    async fn message_of(pieces: &[&'static str], ends: bool) -> String {
        let frames: Vec<_> =
            pieces.iter().map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from(*piece)))).collect();
        let rest = if ends { stream::empty().boxed() } else { stream::pending().boxed() };
        remote_message(StreamBody::new(stream::iter(frames).chain(rest)), Instant::now() + time::Duration::from_secs(9))
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_line_is_escaped_and_cut_and_not_waited_for_too_long() {
        assert_eq!(message_of(&["no da", "tabase\nstack"], true).await, "no database");
        assert_eq!(message_of(&[], true).await, "");
        assert_eq!(message_of(&["no", " end"], false).await, "no end");
        assert_eq!(message_of(&["\u{1b}[31m\r\n"], true).await, "\\u001b[31m");
        assert_eq!(message_of(&["can't open \"db\"\n"], true).await, "can't open \"db\"", "the log quotes it");
        let long: &str = "x".repeat(5000).leak();
        assert_eq!(message_of(&["y", long], true).await, "y", "what is over the limit is left away");
        assert_eq!(message_of(&[&long[..300]], true).await.len(), MAX_CHARS);
    }
}
