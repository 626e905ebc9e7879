//! Files named by settings, read whole. None of them is waited for without end: a named pipe that nobody writes to would keep a
//! start from saying a word.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{OFlags, fcntl_setfl};
use zeroize::Zeroizing;

/// Longest wait for somebody to open a pipe for writing: a shell starts reader and writer at once, in any order.
const WRITER_WAIT: Duration = Duration::from_secs(1);
/// The pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Reads the file; also returns the metadata of the opened file. Blocks.
///
/// # Errors
/// The operating system's; `FileTooLarge` beyond `limit`; `InvalidInput` for a pipe or device, which could block for
/// ever.
#[cfg(feature = "client")]
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<(Zeroizing<Vec<u8>>, Metadata)> {
    let opened = open(path)?;
    if !opened.metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let metadata = opened.metadata.clone();
    Ok((opened.read(limit)?, metadata))
}

/// A file, or a pipe such as that of a shell's `<(command)`, that is open and not read yet.
pub(crate) struct Opened {
    file: File,
    pub(crate) metadata: Metadata,
}

/// Opens the file without waiting.
///
/// # Errors
/// The operating system's; `InvalidInput` for what is neither a file nor a pipe.
pub(crate) fn open(path: &Path) -> io::Result<Opened> {
    let is_fit = |metadata: &Metadata| metadata.is_file() || metadata.file_type().is_fifo();
    let unfit = |metadata: &Metadata| match metadata.is_dir() {
        true => io::ErrorKind::IsADirectory.into(),
        false => io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"),
    };
    // To open a device may do something already.
    let named = fs::metadata(path)?;
    if !is_fit(&named) {
        return Err(unfit(&named));
    }
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if is_fit(&metadata) { Ok(Opened { file, metadata }) } else { Err(unfit(&metadata)) }
}

impl Opened {
    /// Reads to the end: of a pipe, until its last writer has closed it. Blocks.
    ///
    /// # Errors
    /// As [`read`], and `TimedOut` for a pipe that nobody opens for writing.
    pub(crate) fn read(mut self, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        if self.metadata.file_type().is_fifo() {
            self.wait_for_writer(&mut bytes)?;
        }
        (&mut self.file).take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Returns once the pipe has a writer, with the first of what was written, and from then on reads wait for the writer: it
    /// may be asking its user for a password.
    fn wait_for_writer(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let (mut first, until) = (Zeroizing::new([0; 512]), Instant::now() + WRITER_WAIT);
        loop {
            match self.file.read(&mut *first) {
                Ok(0) if Instant::now() < until => thread::sleep(LOOK_AGAIN),
                Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "a pipe that nobody writes to")),
                Ok(len) => {
                    bytes.extend_from_slice(&first[..len]);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(fcntl_setfl(&self.file, OFlags::empty())?)
    }
}

/// The bytes as text.
///
/// # Errors
/// `InvalidData`, which names the line.
pub(crate) fn text(bytes: &[u8]) -> io::Result<&str> {
    str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"))
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// Before: a start waited for ever, and said nothing.
    #[test]
    fn a_pipe_is_read_to_its_end_if_somebody_writes_and_is_not_waited_for_if_nobody_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
        let read = || open(&path).expect("opens").read(64);
        assert_eq!(read().expect_err("nobody writes").kind(), io::ErrorKind::TimedOut);
        thread::scope(|scope| {
            // Opens once there is a reader.
            let writer = scope.spawn(|| fs::write(&path, "from a pipe\n"));
            assert_eq!(read().expect("somebody writes").as_slice(), b"from a pipe\n");
            writer.join().expect("no panic").expect("written");
            let writer = scope.spawn(|| fs::write(&path, [b'x'; 65]));
            assert_eq!(read().expect_err("too much").kind(), io::ErrorKind::FileTooLarge);
            writer.join().expect("no panic").expect("written");
        });
    }

    #[test]
    fn what_is_no_file_is_refused_before_it_is_opened() {
        for (path, kind) in [
            ("/dev/null", io::ErrorKind::InvalidInput),
            ("/etc", io::ErrorKind::IsADirectory),
            ("/nowhere", io::ErrorKind::NotFound),
        ] {
            assert_eq!(open(Path::new(path)).map(drop).expect_err(path).kind(), kind, "{path}");
        }
    }

    #[test]
    fn what_is_no_text_is_named_by_its_line() {
        assert_eq!(text(b"a\nb").expect("text"), "a\nb");
        assert_eq!(text(b"a\nb\n\xff").expect_err("no text").to_string(), "line 3 is not UTF-8 text");
    }
}
