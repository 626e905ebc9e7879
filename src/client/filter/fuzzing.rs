//! Expositions behind a filter, for the fuzz target of that name.

use bytes::BytesMut;

use super::{
    Filter,
    exposition::Families,
    line::Line::{self, Eof, Other},
};

/// Most bytes of a pattern: a longer one takes all the time to compile.
const MAX_PATTERN: usize = 64;

/// A line with the pattern, then the exposition, which the first byte cuts into pieces. Pieces of any size give the same,
/// and each line passes either the filter that keeps the pattern or the one that drops it.
pub fn filter(bytes: &[u8]) {
    let [size, bytes @ ..] = bytes else { return };
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (pattern, exposition) = (&bytes[..end], &bytes[end + 1..]);
    let Some(pattern) = std::str::from_utf8(pattern).ok().filter(|text| text.len() <= MAX_PATTERN) else { return };
    let Ok(keep) = Filter::new(Some(pattern), None) else { return };
    let drop = Filter::new(None, Some(pattern)).expect("a pattern is one either way");
    let passed = [keep, drop].map(|filter| {
        let whole = through(&filter, [exposition]);
        let pieces = exposition.chunks(usize::from(*size).max(1));
        assert!(through(&filter, pieces) == whole, "pieces of {size} bytes differ from the whole");
        whole
    });
    let lines = exposition.split_inclusive(|byte| *byte == b'\n');
    let (mut either, mut both) = (0, 0);
    for line in lines {
        match Line::read(line) {
            Other => {}
            Eof => both += line.len(),
            _ => either += line.len(),
        }
    }
    assert_eq!(passed[0].len() + passed[1].len(), either + 2 * both);
}

fn through<'a>(filter: &Filter, pieces: impl IntoIterator<Item = &'a [u8]>) -> BytesMut {
    let mut families = Families::new(filter.clone());
    let mut passed = BytesMut::new();
    for piece in pieces {
        families.take(piece, &mut passed).expect("inputs are shorter than the longest line");
    }
    families.end(&mut passed);
    passed
}
