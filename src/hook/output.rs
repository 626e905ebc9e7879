//! What a command writes, line by line in our log: so many lines of a length that the log bears. The log escapes control
//! characters.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Most bytes of a line; the rest of a longer one is left out.
const MAX_LINE: usize = 1024;
/// Most lines of stdout, and of stderr, in one run; further ones are counted.
const MAX_LINES: u64 = 100;
/// Stands at the end of a line that was cut.
const CUT: &str = " ..";

/// Logs the lines of `pipe` until its end, or until nobody polls any more. A program may write without end.
pub(super) async fn log_lines(program: &str, stream: &'static str, pipe: Option<impl AsyncRead + Unpin>) {
    let Some(mut pipe) = pipe else { return };
    let mut lines = Lines::default();
    let mut buffer = vec![0; 8 * 1024];
    let log = |line: &str| tracing::info!(program, stream, line, "output of the command");
    // A pipe that cannot be read is at its end.
    while let Ok(len @ 1..) = pipe.read(&mut buffer).await {
        lines.take(&buffer[..len], log);
    }
    lines.end(log);
    if lines.left_out > 0 {
        tracing::info!(program, stream, lines = lines.left_out, "further output of the command is left out");
    }
}

#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    cut: bool,
    logged: u64,
    left_out: u64,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], log: impl Fn(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = MAX_LINE - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            self.cut |= text.len() > room;
            if text.len() < piece.len() {
                self.end(&log);
            }
        }
    }

    /// Ends the line. An empty one says nothing.
    fn end(&mut self, log: impl Fn(&str)) {
        let line = std::mem::take(&mut self.line);
        let cut = if std::mem::take(&mut self.cut) { CUT } else { "" };
        let line = String::from_utf8_lossy(&line);
        match line.trim_end() {
            "" => {}
            _ if self.logged == MAX_LINES => self.left_out += 1,
            line => {
                self.logged += 1;
                log(&format!("{line}{cut}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn logged(pieces: &[&[u8]]) -> (Vec<String>, u64) {
        let (logged, mut lines) = (RefCell::new(Vec::new()), Lines::default());
        let log = |line: &str| logged.borrow_mut().push(line.to_owned());
        pieces.iter().for_each(|piece| lines.take(piece, log));
        lines.end(log);
        (logged.into_inner(), lines.left_out)
    }

    #[test]
    fn lines_are_put_together_and_the_last_needs_no_end() {
        assert_eq!(logged(&[b"one\ntw", b"o\r\n", b"\n", b"thr\xffee"]).0, ["one", "two", "thr\u{fffd}ee"]);
        assert!(logged(&[]).0.is_empty());
    }

    #[test]
    fn a_line_without_end_and_lines_without_number_are_bounded() {
        let long = vec![b'x'; 5 * MAX_LINE];
        let (lines, _) = logged(&[&long, &long, b"\nnext\n"]);
        assert_eq!(lines, ["x".repeat(MAX_LINE) + CUT, "next".to_owned()]);
        let (lines, left_out) = logged(&[&b"line\n".repeat(130)]);
        assert_eq!((lines.len() as u64, left_out), (MAX_LINES, 30));
    }
}
