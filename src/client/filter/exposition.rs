//! Filters an exposition that arrives in pieces of any size.
//!
//! A family begins with the first line that names the family, and ends where another begins: both formats keep the lines
//! of a family together. The names that a filter matches depend on the kind of the family, so comments that precede
//! `TYPE` (mostly `HELP`) are held back. Other comments and empty lines are dropped.

use bytes::{BufMut, BytesMut};

use super::{Filter, FilterError, family::Family, line::Kind, line::Line};

/// Most bytes of a line, and of the comments on a family before its kind is known: both are held in memory.
const MAX_LINE: usize = 1024 * 1024;

/// The state between two pieces: at most one unfinished line and the held lines of one family.
pub(super) struct Families {
    filter: Filter,
    /// The beginning of an unfinished line.
    begun: Vec<u8>,
    /// The family of the last line, and whether it passes, once that is known.
    family: Option<(Family, Option<bool>)>,
    /// The lines of that family, while that is not known.
    held: Vec<u8>,
}

impl Families {
    pub(super) fn new(filter: Filter) -> Self {
        Self { filter, begun: Vec::new(), family: None, held: Vec::new() }
    }

    /// Reads a piece, and writes what passes. After an error the rest cannot be filtered.
    pub(super) fn take(&mut self, mut piece: &[u8], passed: &mut BytesMut) -> Result<(), FilterError> {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (line, rest) = piece.split_at(end + 1);
            if self.begun.is_empty() {
                self.line(line, passed);
            } else {
                self.begun.extend_from_slice(line);
                let mut line = std::mem::take(&mut self.begun);
                self.line(&line, passed);
                line.clear();
                self.begun = line;
            }
            self.check_size()?;
            piece = rest;
        }
        self.begun.extend_from_slice(piece);
        self.check_size()
    }

    /// Decides on the last family. The last call.
    pub(super) fn end(&mut self, passed: &mut BytesMut) {
        let last = std::mem::take(&mut self.begun);
        if !last.is_empty() {
            self.line(&last, passed);
        }
        self.settle(passed);
    }

    fn check_size(&self) -> Result<(), FilterError> {
        let too_long = self.begun.len() > MAX_LINE || self.held.len() > MAX_LINE;
        if too_long { Err(FilterError::TooLong { limit: MAX_LINE }) } else { Ok(()) }
    }

    fn line(&mut self, line: &[u8], passed: &mut BytesMut) {
        let passes = match Line::read(line) {
            Line::Other => return,
            Line::Eof => {
                self.settle(passed);
                self.family = None;
                true
            }
            Line::About(name) => {
                self.enter(&name, passed);
                match &self.family {
                    Some((_, Some(passes))) => *passes,
                    _ => return self.held.put_slice(line),
                }
            }
            Line::Type(name, kind) => {
                self.enter(&name, passed);
                if let Some((family, None)) = &mut self.family {
                    family.set_kind(kind);
                }
                self.settle(passed)
            }
            Line::Sample(name) => {
                if !self.family.as_ref().is_some_and(|(family, _)| family.owns(&name)) {
                    self.enter(&name, passed);
                }
                self.settle(passed)
            }
        };
        if passes {
            passed.put_slice(line);
        }
    }

    /// Makes `name` the current family.
    fn enter(&mut self, name: &[u8], passed: &mut BytesMut) {
        if self.family.as_ref().is_none_or(|(family, _)| family.name != name) {
            self.settle(passed);
            self.family = Some((Family::new(name, Kind::Plain), None));
        }
    }

    /// Decides on the current family, if that is not done yet, and writes or drops the held lines.
    fn settle(&mut self, passed: &mut BytesMut) -> bool {
        let Some((family, decided)) = &mut self.family else { return false };
        let passes = *decided.get_or_insert_with(|| family.with_names(|names| self.filter.passes(names)));
        if passes {
            passed.put_slice(&self.held);
        }
        self.held.clear();
        passes
    }
}
