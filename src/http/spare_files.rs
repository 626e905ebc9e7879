//! File descriptors kept for the time when all others are in use.
//!
//! Other parts of the process may take every descriptor that is free. A few are kept here, as copies of the listening
//! socket, and given up one by one for connections that would otherwise wait until somebody else lets go.

use std::{io, net::TcpListener};

/// Descriptors kept. One is enough for one probe at a time.
const SPARE: usize = 8;

/// Copies of a listening socket.
#[derive(Debug)]
pub(super) struct SpareFiles {
    listener: TcpListener,
    copies: Vec<TcpListener>,
}

impl SpareFiles {
    /// Takes the first copy, which is needed to make others of.
    pub(super) fn of(listener: &TcpListener) -> io::Result<Self> {
        let mut files = Self { listener: listener.try_clone()?, copies: Vec::new() };
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
