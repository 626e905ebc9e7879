//! The http_sd list on its way out: fragments that all answers share, with the address to scrape between them.
//!
//! An answer costs some buffers of [`CHUNK`] and keeps its list in memory, so the number of answers at once is limited,
//! and so is the time of each.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time,
};

use super::sd_list::Rendered;
use crate::{http::BodyCut, registry::Lease};

/// Bytes that are put together before they are handed on; a chunk is longer by less than one group.
const CHUNK: usize = 64 << 10;
/// How long an answer may take: Prometheus itself waits no longer than its refresh interval, by default 60 s.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The list as bytes, in chunks.
pub(super) struct SdChunks {
    list: Arc<Rendered>,
    /// The groups to send by their place in the list; none for all of them.
    picked: Option<Vec<usize>>,
    /// What every group begins with.
    begin: Box<[u8]>,
    /// Groups that were sent.
    next: usize,
    /// Bytes that are left.
    left: u64,
}

impl SdChunks {
    /// Every group, with `host` as the address to scrape.
    pub(super) fn whole(list: Arc<Rendered>, host: &str) -> Self {
        Self::new(list, None, host)
    }

    /// The groups of the leases that `wanted` picks. Looks at every lease.
    pub(super) fn matching(list: Arc<Rendered>, host: &str, wanted: impl Fn(&Lease) -> bool) -> Self {
        let fragments = list.fragments.iter().enumerate();
        let picked = fragments.filter(|(_, fragment)| wanted(&fragment.lease)).map(|(n, _)| n).collect();
        Self::new(list, Some(picked), host)
    }

    fn new(list: Arc<Rendered>, picked: Option<Vec<usize>>, host: &str) -> Self {
        let begin = format!(r#"{{"targets":[{}"#, serde_json::Value::from(host)).into_bytes().into();
        let mut chunks = Self { list, picked, begin, next: 0, left: 0 };
        let groups = (0..chunks.len()).map(|n| chunks.begin.len() + chunks.json(n).len());
        // One comma less than there are groups, two brackets.
        chunks.left = (groups.sum::<usize>() + chunks.len().saturating_sub(1) + 2) as u64;
        chunks
    }

    fn len(&self) -> usize {
        self.picked.as_ref().map_or(self.list.fragments.len(), Vec::len)
    }

    fn json(&self, n: usize) -> &[u8] {
        let n = self.picked.as_ref().map_or(n, |picked| picked[n]);
        &self.list.fragments[n].json
    }

    /// Sends the list as a body. Keeps the permit until the reader has it all, is gone, or has taken too long.
    pub(super) fn into_body(self, permit: OwnedSemaphorePermit) -> SdBody {
        let left = self.left;
        let (chunks, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            // The body of a reader that was too slow ends with an error.
            let _ = time::timeout(ANSWER_LIMIT, async move {
                for chunk in self {
                    if chunks.send(chunk).await.is_err() {
                        break;
                    }
                }
            })
            .await;
            drop(permit);
        });
        SdBody { chunks: receiver, left }
    }

    /// Writes the whole list.
    pub(super) fn write_to(self, mut to: impl io::Write) -> io::Result<()> {
        self.into_iter().try_for_each(|chunk| to.write_all(&chunk))
    }
}

impl Iterator for SdChunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let mut chunk = Vec::with_capacity(self.left.min(CHUNK as u64 + 4096) as usize);
        if self.next == 0 {
            chunk.push(b'[');
        }
        while self.next < self.len() && chunk.len() < CHUNK {
            if self.next > 0 {
                chunk.push(b',');
            }
            chunk.extend_from_slice(&self.begin);
            chunk.extend_from_slice(self.json(self.next));
            self.next += 1;
        }
        if self.next == self.len() {
            chunk.push(b']');
        }
        self.left -= chunk.len() as u64;
        Some(chunk.into())
    }
}

/// The list on its way to one reader.
pub(super) struct SdBody {
    chunks: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Body for SdBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        Poll::Ready(match ready!(self.chunks.poll_recv(cx)) {
            Some(chunk) => {
                self.left -= chunk.len() as u64;
                Some(Ok(Frame::data(chunk)))
            }
            None => (self.left > 0).then_some(Err(BodyCut)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
