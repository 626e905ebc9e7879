//! Filters an exposition that comes in pieces of any size.
//!
//! A family begins with the first line that names it and ends where another begins: both formats demand that its lines
//! stand together. Comments on a family before its kind is known (`HELP` mostly precedes `TYPE`) are held back,
//! since the names under which it is looked up depend on the kind. Other comments and empty lines are dropped.

use bytes::{BufMut, BytesMut};

use super::{Filter, FilterError, family::Family, line::Kind, line::Line};

/// The state between two pieces: at most one unfinished line and the held lines of one family.
pub(super) struct Families {
    filter: Filter,
    /// The beginning of an unfinished line.
    begun: Vec<u8>,
    /// The family of the last line, and whether it passes, once that is known.
    family: Option<(Family, Option<bool>)>,
    /// Its lines so far, while that is not known.
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

    /// Settles what is still open. Nothing may be taken after it.
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

    /// Makes this the family of the present line.
    fn enter(&mut self, name: &[u8], passed: &mut BytesMut) {
        if self.family.as_ref().is_none_or(|(family, _)| family.name != name) {
            self.settle(passed);
            self.family = Some((Family::new(name, Kind::Plain), None));
        }
    }

    /// Decides on the present family, if that is still to be done, and lets go of its held lines.
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

/// The longest line, and the most comments on a family before its kind is known.
const MAX_LINE: usize = 1024 * 1024;
