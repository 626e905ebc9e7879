//! The http_sd list on its way out: fragments that all answers share, with the address to scrape between them.

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{
    list_body::CHUNK,
    sd_list::{Fragment, Listed},
    table_list::Rendered,
};

/// The list as bytes, in chunks.
pub(super) struct SdChunks {
    list: Arc<Rendered<Vec<Fragment>>>,
    /// The groups to send by their place in the list; none for all of them.
    picked: Option<Vec<usize>>,
    /// What every group of an alias begins with.
    begin: Box<[u8]>,
    /// Groups that were sent.
    next: usize,
    /// Bytes that are left.
    left: u64,
}

impl SdChunks {
    /// Every group, with `host` as the address to scrape.
    pub(super) fn whole(list: Arc<Rendered<Vec<Fragment>>>, host: &str) -> Self {
        Self::new(list, None, host)
    }

    /// The groups that `wanted` picks. Looks at every one.
    pub(super) fn matching(
        list: Arc<Rendered<Vec<Fragment>>>,
        host: &str,
        mut wanted: impl FnMut(&Listed) -> bool,
    ) -> Self {
        let fragments = list.list.iter().enumerate();
        let picked = fragments.filter(|(_, fragment)| wanted(&fragment.of)).map(|(n, _)| n).collect();
        Self::new(list, Some(picked), host)
    }

    fn new(list: Arc<Rendered<Vec<Fragment>>>, picked: Option<Vec<usize>>, host: &str) -> Self {
        let begin = format!(r#"{{"targets":[{}"#, serde_json::Value::from(host)).into_bytes().into();
        let mut chunks = Self { list, picked, begin, next: 0, left: 0 };
        let groups = (0..chunks.len()).map(|n| chunks.group(n).map(<[u8]>::len).into_iter().sum::<usize>());
        // One comma less than there are groups, two brackets.
        chunks.left = (groups.sum::<usize>() + chunks.len().saturating_sub(1) + 2) as u64;
        chunks
    }

    fn len(&self) -> usize {
        self.picked.as_ref().map_or(self.list.list.len(), Vec::len)
    }

    /// The two parts of a group.
    fn group(&self, n: usize) -> [&[u8]; 2] {
        let n = self.picked.as_ref().map_or(n, |picked| picked[n]);
        let Fragment { of, json } = &self.list.list[n];
        match of {
            Listed::Alias { .. } => [&self.begin, json],
            Listed::Beacon { .. } => [&[], json],
        }
    }

    /// True if a group holds a token.
    pub(super) fn has_secrets(&self) -> bool {
        self.list.list.iter().any(Fragment::is_secret)
    }

    /// Bytes of the list that are left.
    pub(super) fn left(&self) -> u64 {
        self.left
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
            self.group(self.next).into_iter().for_each(|part| chunk.extend_from_slice(part));
            self.next += 1;
        }
        if self.next == self.len() {
            chunk.push(b']');
        }
        self.left -= chunk.len() as u64;
        Some(chunk.into())
    }
}
