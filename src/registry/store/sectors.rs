//! Reads what can be read of a file on a device that fails.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use rustix::io::Errno;

/// What a device reads as a whole or not at all.
const SECTOR: u64 = 4096;

/// A file in which a sector that the device cannot read reads as zeros.
pub(super) struct Sectors<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> Sectors<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, at: 0 }
    }
}

impl Read for Sectors<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.file.read_at(buffer, self.at) {
            Err(error) if is_device_error(&error) => self.read_sector(buffer)?,
            read => read?,
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Sectors<'_> {
    /// Reads up to the end of the sector; zeros if the device does not give it.
    fn read_sector(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = (SECTOR - self.at % SECTOR).min(self.file.metadata()?.len().saturating_sub(self.at));
        let len = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let sector = &mut buffer[..len];
        match self.file.read_at(sector, self.at) {
            Err(error) if is_device_error(&error) => {
                tracing::error!(offset = self.at, %error, "a part of the table cannot be read");
                sector.fill(0);
                Ok(len)
            }
            read => read,
        }
    }
}

pub(super) fn is_device_error(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::IO)
}
