//! File descriptors kept for the time when all others are in use.
//!
//! Other parts of the process may take every descriptor that is free. A few are kept here, as copies of the listening
//! socket, and given up one by one for connections that would otherwise wait until somebody else lets go.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

/// Descriptors kept. One is enough for one probe at a time.
const SPARE: usize = 8;

/// Copies of a listening socket.
#[derive(Debug)]
pub(super) struct SpareFiles {
    listener: OwnedFd,
    copies: Vec<OwnedFd>,
}

impl SpareFiles {
    /// Takes the first copy, which is needed to make others of.
    pub(super) fn of(listener: impl AsFd) -> io::Result<Self> {
        let mut files = Self { listener: listener.as_fd().try_clone_to_owned()?, copies: Vec::new() };
        files.refill();
        Ok(files)
    }

    /// Takes as many descriptors as are missing and free.
    pub(super) fn refill(&mut self) {
        while self.copies.len() < SPARE
            && let Ok(copy) = self.listener.try_clone()
        {
            self.copies.push(copy);
        }
    }

    /// Sets one descriptor free; false if none is left.
    pub(super) fn give(&mut self) -> bool {
        self.copies.pop().is_some()
    }
}
