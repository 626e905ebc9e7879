//! A writer of lines that never waits: a thread writes, and lines are left out while too many wait for the thread.
//!
//! A pipe that nobody reads blocks whoever writes to it. Only the thread of this writer is then blocked, and the process
//! goes on and ends as usual. `tracing-appender` has such a thread, too: its guard reports at the end to stderr itself, and
//! waits there for ever.

use std::{
    collections::VecDeque,
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::telemetry::dropped_lines;

/// Most bytes that wait to be written: seconds of a busy log.
const MOST_WAITING: usize = 1024 * 1024;

/// Hands lines to its thread. A clone hands them to the same one.
#[derive(Clone)]
pub(super) struct Unblocked(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// True while the thread writes a line.
    writing: bool,
    /// Lines left out that the log has not told of.
    untold: u64,
}

impl Unblocked {
    /// Starts the thread, which ends with the process.
    pub(super) fn new(out: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::spawn(move || writer.write_all_to(out));
        Self(shared)
    }

    /// Waits until all lines are written, at most this long.
    pub(super) fn wait_written(&self, at_most: Duration) {
        let unwritten = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        drop(self.0.changed.wait_timeout_while(self.0.waiting(), at_most, unwritten));
    }
}

/// Takes a line with each call, and never fails.
impl Write for Unblocked {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.waiting();
        if waiting.bytes + line.len() > MOST_WAITING {
            waiting.untold += 1;
            dropped_lines::count();
        } else {
            waiting.bytes += line.len();
            waiting.lines.push_back(line.to_vec());
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn write_all_to(&self, mut out: impl Write) {
        loop {
            let line = self.next();
            if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                dropped_lines::count();
            }
            let left_out = self.written(line.len());
            if left_out > 0 {
                tracing::warn!(left_out, "log lines were left out: stderr took no more for a while");
            }
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut waiting = self.waiting();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.writing = true;
                return line;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that a line is out, and returns the number of lines to tell of, once there is room again.
    fn written(&self, bytes: usize) -> u64 {
        let mut waiting = self.waiting();
        waiting.writing = false;
        waiting.bytes -= bytes;
        self.changed.notify_all();
        if waiting.bytes < MOST_WAITING / 2 { mem::take(&mut waiting.untold) } else { 0 }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// Takes a line for each permit, and hands the line on.
    struct Gated {
        permits: mpsc::Receiver<()>,
        lines: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gated {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.permits.recv().map_err(io::Error::other)?;
            self.lines.send(line.to_vec()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_nobody_reads_hold_nobody_up_and_are_counted() {
        let ((permit, permits), (lines, written)) = (mpsc::channel(), mpsc::channel());
        let mut log = Unblocked::new(Gated { permits, lines });
        let line = vec![b'x'; MOST_WAITING / 8];
        for _ in 0..10 {
            log.write_all(&line).expect("never fails");
        }
        assert_eq!(log.0.waiting().untold, 2, "eight fit, and the one being written still counts");
        log.wait_written(Duration::from_millis(1));

        (0..8).for_each(|_| permit.send(()).expect("the thread lives"));
        for _ in 0..8 {
            assert_eq!(written.recv_timeout(SOON).expect("is written"), line);
        }
        log.wait_written(SOON);
        assert_eq!(log.0.waiting().untold, 0, "the log was told");
        permit.send(()).expect("the thread lives");
        log.write_all(b"last").expect("never fails");
        log.wait_written(SOON);
        assert_eq!(written.try_recv().expect("was written before the wait ended"), b"last");
    }
}
