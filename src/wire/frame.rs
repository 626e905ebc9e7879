//! Frames: the units of a stream. `len: u16, big endian | len bytes`, never empty.

/// Most bytes of a frame's content: the longest Noise message.
pub const MAX_FRAME_LEN: usize = u16::MAX as usize;

/// Bytes before the content.
const HEADER_LEN: usize = 2;

/// Appends `content` to `out` as one frame.
///
/// # Errors
/// [`FrameError`] if the content is empty or longer than [`MAX_FRAME_LEN`]; `out` is then as it was.
pub fn append(content: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    let Ok(len) = u16::try_from(content.len()) else {
        return Err(FrameError::TooLong { len: content.len(), limit: MAX_FRAME_LEN });
    };
    if len == 0 {
        return Err(FrameError::Empty);
    }
    out.reserve(HEADER_LEN + content.len());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(content);
    Ok(())
}

/// Splits the first frame off. `None` means that more bytes are needed.
///
/// A frame of more than `limit` bytes is refused as soon as its length is known, before its content is collected.
///
/// # Errors
/// [`FrameError`] if the frame is empty or longer than `limit`. The stream is unusable then.
pub fn split(bytes: &[u8], limit: usize) -> Result<Option<Split<'_>>, FrameError> {
    let Some((header, after)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    match usize::from(u16::from_be_bytes(*header)) {
        0 => Err(FrameError::Empty),
        len if len > limit => Err(FrameError::TooLong { len, limit }),
        len => Ok(after.split_at_checked(len).map(|(content, rest)| Split { content, rest })),
    }
}

/// A frame, and the bytes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// The frame's content.
    pub content: &'a [u8],
    /// The bytes that follow.
    pub rest: &'a [u8],
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A length of zero. Refused, so that a peer cannot keep us busy with empty frames.
    #[error("frame is empty")]
    Empty,
    /// A frame longer than any expected one.
    #[error("frame of {len} bytes: limit is {limit}")]
    TooLong {
        /// The frame's declared length.
        len: usize,
        /// The limit.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frame_bytes_are_unchanged_since_v1() {
        let mut out = vec![];
        append(b"abc", &mut out).expect("fits");
        append(&[7; 258], &mut out).expect("fits");
        assert_eq!(out[..5], [0, 3, b'a', b'b', b'c']);
        assert_eq!(out[5..8], [1, 2, 7]);
        assert_eq!(out.len(), 5 + 2 + 258);
    }

    #[test]
    fn truncated_frame_asks_for_more_bytes() {
        let whole = [0, 3, b'a', b'b', b'c'];
        for len in 0..whole.len() {
            assert_eq!(split(&whole[..len], MAX_FRAME_LEN), Ok(None), "{len} bytes");
        }
        assert_eq!(split(&whole, MAX_FRAME_LEN), Ok(Some(Split { content: b"abc", rest: &[] })));
    }

    #[test]
    fn empty_frames_are_refused_on_both_sides() {
        assert_eq!(split(&[0, 0, 1], MAX_FRAME_LEN), Err(FrameError::Empty));
        assert_eq!(append(&[], &mut vec![]), Err(FrameError::Empty));
    }

    #[test]
    fn a_frame_past_the_limit_is_refused_by_its_header_alone() {
        assert_eq!(split(&[0, 105], 104), Err(FrameError::TooLong { len: 105, limit: 104 }));
        assert_eq!(split(&[0, 104], 104), Ok(None));
    }

    #[test]
    fn the_longest_frame_fits_and_one_byte_more_does_not() {
        let mut out = vec![];
        append(&[1; MAX_FRAME_LEN], &mut out).expect("fits");
        assert_eq!(split(&out, MAX_FRAME_LEN).expect("whole").expect("whole").content.len(), MAX_FRAME_LEN);
        let refused = append(&[1; MAX_FRAME_LEN + 1], &mut out);
        assert_eq!(refused, Err(FrameError::TooLong { len: MAX_FRAME_LEN + 1, limit: MAX_FRAME_LEN }));
        assert_eq!(out.len(), HEADER_LEN + MAX_FRAME_LEN, "nothing was appended");
    }

    proptest! {
        #[test]
        fn frames_come_back_as_they_went(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6)) {
            let mut stream = vec![];
            for content in &contents {
                append(content, &mut stream).expect("fits");
            }
            let mut rest = stream.as_slice();
            for content in &contents {
                let split = split(rest, MAX_FRAME_LEN).expect("well formed").expect("whole");
                prop_assert_eq!(split.content, content.as_slice());
                rest = split.rest;
            }
            prop_assert_eq!(split(rest, MAX_FRAME_LEN), Ok(None));
        }
    }
}
