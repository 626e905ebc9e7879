//! Who reads a list of the whole table, and which of them go when there are too many.
//!
//! A reader costs some buffers, and keeps the list that it reads in memory after others have replaced it. So there are
//! limits on the readers and on the lists that they read, and an answer has a limited time. Beyond a limit the reader that
//! has taken nothing for the longest time goes, or all readers of one list; a reader that goes on reading has some seconds
//! before it must make room.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::table_list::TableUnknown;
use crate::{
    http::text,
    telemetry::{Limit, Refusals},
};

/// Most lists that are read at once; each is some bytes for each alias that has changed.
const MOST_LISTS: usize = 6;
/// After this long without a chunk a reader has stalled.
const STALLED: Duration = Duration::from_millis(250);
/// What a reader that goes on reading has, if others wait.
const FAIR_TIME: Duration = Duration::from_secs(3);
/// How long a reader waits for a place.
const TURN_LIMIT: Duration = Duration::from_secs(5);
/// Seconds after which a client may ask again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Why a request for a list gets none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoList {
    #[error(transparent)]
    Unknown(#[from] TableUnknown),
    /// Every place is in use, by readers that go on reading.
    #[error("too many lists are being sent: try again")]
    NoPlace,
}

impl IntoResponse for NoList {
    fn into_response(self) -> Response {
        let mut response = text::line(StatusCode::SERVICE_UNAVAILABLE, self.to_string());
        if matches!(self, Self::NoPlace) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

/// The readers of all lists.
pub(super) struct Readers {
    most: usize,
    refusals: Arc<Refusals>,
    table: Mutex<Table>,
    left: Notify,
}

#[derive(Default)]
struct Table {
    last: usize,
    reading: HashMap<usize, Reader>,
}

struct Reader {
    /// Where the list is, which is there as long as its readers are.
    list: usize,
    began: Instant,
    /// When it last took a chunk.
    moved: Instant,
    cut: CancellationToken,
}

/// A reader's place. Drop it after the list.
pub(super) struct Reading {
    readers: Arc<Readers>,
    number: usize,
    cut: CancellationToken,
}

impl Readers {
    pub(super) fn new(most: usize, refusals: Arc<Refusals>) -> Arc<Self> {
        Arc::new(Self { most, refusals, table: Mutex::default(), left: Notify::new() })
    }

    /// The current list, and a place to read it. Holds no list while it waits for a place.
    pub(super) async fn admit<L, F>(self: &Arc<Self>, current: impl Fn() -> F) -> Result<(Arc<L>, Reading), NoList>
    where
        F: Future<Output = Result<Arc<L>, TableUnknown>>,
    {
        let give_up = Instant::now() + TURN_LIMIT;
        loop {
            let left = self.left.notified();
            let list = current().await?;
            let until = match self.begin(Arc::as_ptr(&list).addr()) {
                Ok(reading) => return Ok((list, reading)),
                Err(until) => until,
            };
            drop(list);
            if Instant::now() >= give_up {
                self.refusals.count(Limit::SdReaders, "a request for a list");
                return Err(NoList::NoPlace);
            }
            let _ = time::timeout_at(until.min(give_up), left).await;
        }
    }

    /// A place for a reader of the list at `list`; else the time at which somebody can be made to go.
    fn begin(self: &Arc<Self>, list: usize) -> Result<Reading, Instant> {
        let now = Instant::now();
        let mut table = self.table();
        let lists: HashSet<usize> = table.reading.values().map(|reader| reader.list).collect();
        if lists.len() >= MOST_LISTS && !lists.contains(&list) {
            self.cut_slowest(&mut table, now, |_, reader| reader.list)?;
        }
        if table.reading.len() >= self.most {
            self.cut_slowest(&mut table, now, |number, _| number)?;
        }
        table.last += 1;
        let (number, cut) = (table.last, CancellationToken::new());
        table.reading.insert(number, Reader { list, began: now, moved: now, cut: cut.clone() });
        Ok(Reading { readers: Arc::clone(self), number, cut })
    }

    /// Cuts off the readers of that group of which all may go, and have been slow for longest.
    fn cut_slowest(
        &self,
        table: &mut Table,
        now: Instant,
        group: impl Fn(usize, &Reader) -> usize,
    ) -> Result<(), Instant> {
        let mut groups = HashMap::new();
        for (number, reader) in &table.reading {
            let slowness = reader.slowness(now);
            let of_all = groups.entry(group(*number, reader)).or_insert(slowness);
            *of_all = slowness.max(*of_all);
        }
        let victim = match groups.into_iter().min_by_key(|(_, slowness)| *slowness) {
            Some((_, Slowness::NotYet { until })) => return Err(until),
            Some((victim, _)) => victim,
            None => return Ok(()),
        };
        for (_, reader) in table.reading.extract_if(|number, reader| group(*number, reader) == victim) {
            self.refusals.count(Limit::SdReaders, "a reader that was slower than the others");
            reader.cut.cancel();
        }
        Ok(())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who goes first: the smallest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Slowness {
    Stalled {
        since: Instant,
    },
    /// Goes on reading, and has had its time.
    Slow {
        since: Instant,
    },
    /// May become one of the others then.
    NotYet {
        until: Instant,
    },
}

impl Reader {
    fn slowness(&self, now: Instant) -> Slowness {
        let (stalled, slow) = (self.moved + STALLED, self.began + FAIR_TIME);
        if now >= stalled {
            Slowness::Stalled { since: self.moved }
        } else if now >= slow {
            Slowness::Slow { since: self.began }
        } else {
            Slowness::NotYet { until: stalled.min(slow) }
        }
    }
}

impl Reading {
    /// Fires when the reader must make room.
    pub(super) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Notes that the reader has taken a chunk.
    pub(super) fn moved(&self) {
        if let Some(reader) = self.readers.table().reading.get_mut(&self.number) {
            reader.moved = Instant::now();
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.readers.table().reading.remove(&self.number);
        self.readers.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readers(most: usize) -> Arc<Readers> {
        Readers::new(most, Arc::new(Refusals::new()))
    }

    async fn admitted(readers: &Arc<Readers>, list: &Arc<()>) -> Option<Reading> {
        let admitted = readers.admit(async || Ok(Arc::clone(list))).await;
        admitted.ok().map(|(_, reading)| reading)
    }

    /// Takes a chunk for each of them, as long as it is polled.
    async fn read_on(reading: &[&Reading]) {
        loop {
            time::sleep(STALLED / 5).await;
            reading.iter().for_each(|reading| reading.moved());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_takes_the_place_of_the_reader_that_has_stalled_longest() {
        let (readers, list) = (readers(3), Arc::default());
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(admitted(&readers, &list).await.expect("room"));
            time::sleep(STALLED * 2).await;
        }
        // The first goes on.
        places[0].moved();
        let began = Instant::now();
        let newcomer = admitted(&readers, &list).await.expect("room");
        assert_eq!(began.elapsed(), Duration::ZERO);
        let cut: Vec<_> = places.iter().chain([&newcomer]).map(|place| place.cut().is_cancelled()).collect();
        assert_eq!(cut, [false, true, false, false]);
        assert_eq!(readers.refusals.counted(Limit::SdReaders), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_reading_has_some_seconds_and_a_newcomer_waits_no_longer() {
        let (readers, list) = (readers(2), Arc::default());
        let [first, second] =
            [admitted(&readers, &list).await, admitted(&readers, &list).await].map(|place| place.expect("room"));
        let began = Instant::now();
        let both = [&first, &second];
        let newcomer = tokio::select! {
            newcomer = admitted(&readers, &list) => newcomer,
            () = read_on(&both) => unreachable!("it goes on"),
        };
        assert!(newcomer.is_some() && began.elapsed() == FAIR_TIME, "{:?}", began.elapsed());
        assert_eq!(both.iter().filter(|place| place.cut().is_cancelled()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_leaves_makes_room_at_once() {
        let (readers, list) = (readers(1), Arc::default());
        let first = admitted(&readers, &list).await.expect("room");
        let began = Instant::now();
        let leave = async {
            time::sleep(STALLED / 2).await;
            drop(first);
        };
        let (newcomer, ()) = tokio::join!(admitted(&readers, &list), leave);
        assert!(newcomer.is_some() && began.elapsed() == STALLED / 2);
        assert_eq!(readers.refusals.counted(Limit::SdReaders), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn readers_that_stall_keep_few_lists_in_memory_and_one_that_reads_keeps_its_list() {
        let readers = readers(1000);
        let honest_list = Arc::default();
        let (honest, stalled) = (admitted(&readers, &honest_list).await, admitted(&readers, &honest_list).await);
        let honest = honest.expect("room");
        let mut others = Vec::new();
        let flood = async {
            for _ in 0..40 {
                let list = Arc::new([0u8; 8]);
                others.push(readers.admit(async || Ok(Arc::clone(&list))).await.expect("room"));
            }
        };
        let reading = [&honest];
        tokio::select! { () = flood => {}, () = read_on(&reading) => unreachable!("it goes on") }
        assert!(!honest.cut().is_cancelled() && stalled.is_some_and(|other| !other.cut().is_cancelled()));
        let alive = others.iter().filter(|(_, reading)| !reading.cut().is_cancelled()).count();
        assert_eq!(alive, MOST_LISTS - 1);
    }
}
