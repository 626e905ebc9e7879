//! Who may have one of so many [places](super::places), or waits for one.
//!
//! A place goes to somebody else at once; what was done in it ends later. Who [waits](Shares::wait) therefore gets a place
//! first, and the share once fewer shares of the group are in use than it may have: one that has lost its place counts until
//! it is dropped. Places and shares go to the oldest that wait in their group, in the drop that frees them: nobody comes in
//! between, and nobody is woken in vain.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::places::{Asked, Full, Occupant, Places};

/// The places, and who waits for one.
pub(super) struct Shares<G, M> {
    most_of_group: usize,
    state: Mutex<State<G, M>>,
}

struct State<G, M> {
    next: u64,
    places: Places<G, M>,
    lines: HashMap<G, Line<G, M>>,
}

/// Who has a share of a group, and who waits for one, by numbers that grow.
struct Line<G, M> {
    /// Shares that were given and are not dropped, with a place or without.
    in_use: usize,
    /// Who has a place, and waits for a share in use to be dropped.
    placed: BTreeMap<u64, oneshot::Sender<()>>,
    /// Who waits for a place.
    waiting: BTreeMap<u64, (Occupant<G, M>, oneshot::Sender<()>)>,
}

/// A place, until this is dropped.
pub(super) struct Share<G: Clone + Eq + Hash, M: Clone + Eq + Hash> {
    shares: Arc<Shares<G, M>>,
    id: u64,
    occupant: Occupant<G, M>,
    has_displaced: bool,
}

impl<G: Clone + Eq + Hash, M: Clone + Eq + Hash> Shares<G, M> {
    /// At most `most` places in all, and of a group `most_of_group`.
    pub(super) fn new(most: usize, most_of_group: usize) -> Arc<Self> {
        let state = State { next: 0, places: Places::new(most), lines: HashMap::new() };
        Arc::new(Self { most_of_group, state: Mutex::new(state) })
    }

    /// A share at once; at a bound, in the place of somebody who has clearly more.
    pub(super) fn ask(self: &Arc<Self>, group: G, member: M) -> Result<Share<G, M>, Full> {
        let mut state = self.state();
        let (id, occupant) = state.newcomer(group, member);
        let has_displaced = match state.places.ask(id, occupant.clone(), self.most_of_group) {
            Asked::Refused(full) => return Err(full),
            asked => asked != Asked::Placed,
        };
        state.line(&occupant.group).in_use += 1;
        Ok(Share { shares: Arc::clone(self), id, occupant, has_displaced })
    }

    /// A share, once the group has one. None at the bound of all, and if the place went to somebody who has clearly fewer.
    pub(super) async fn wait(self: &Arc<Self>, group: G, member: M) -> Option<Share<G, M>> {
        let (turn, comes) = oneshot::channel();
        let share = self.line_up(group, member, turn)?;
        share.evicted().run_until_cancelled(comes).await?.ok()?;
        Some(share)
    }

    /// A share that is in use from its turn on. Dropped before, it leaves the line.
    fn line_up(self: &Arc<Self>, group: G, member: M, turn: oneshot::Sender<()>) -> Option<Share<G, M>> {
        let mut state = self.state();
        let (id, occupant) = state.newcomer(group, member);
        let asked = state.places.ask(id, occupant.clone(), self.most_of_group);
        if asked == Asked::Refused(Full::All) {
            return None;
        }
        let line = state.line(&occupant.group);
        match asked {
            Asked::Refused(_) => drop(line.waiting.insert(id, (occupant.clone(), turn))),
            Asked::Placed | Asked::Displaced(_) => drop(line.placed.insert(id, turn)),
        }
        line.give_turns(self.most_of_group);
        let has_displaced = matches!(asked, Asked::Displaced(_));
        Some(Share { shares: Arc::clone(self), id, occupant, has_displaced })
    }

    fn state(&self) -> MutexGuard<'_, State<G, M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<G: Clone + Eq + Hash, M: Clone + Eq + Hash> State<G, M> {
    fn newcomer(&mut self, group: G, member: M) -> (u64, Occupant<G, M>) {
        self.next += 1;
        (self.next, Occupant { group, member, evicted: CancellationToken::new() })
    }

    fn line(&mut self, group: &G) -> &mut Line<G, M> {
        let empty = || Line { in_use: 0, placed: BTreeMap::new(), waiting: BTreeMap::new() };
        self.lines.entry(group.clone()).or_insert_with(empty)
    }

    /// Takes a share out, or one that waited, and passes on what this frees.
    fn leave(&mut self, id: u64, group: &G, most_of_group: usize) {
        let has_freed_place = self.places.leave(id);
        let Some(line) = self.lines.get_mut(group) else { return };
        if line.placed.remove(&id).is_none() && line.waiting.remove(&id).is_none() {
            line.in_use -= 1;
        }
        if has_freed_place
            && let Some((next, (occupant, turn))) = line.waiting.pop_first()
            && !matches!(self.places.ask(next, occupant, most_of_group), Asked::Refused(_))
        {
            line.placed.insert(next, turn);
        }
        line.give_turns(most_of_group);
        if line.in_use == 0 && line.waiting.is_empty() {
            self.lines.remove(group);
        }
    }
}

impl<G, M> Line<G, M> {
    fn give_turns(&mut self, most: usize) {
        while self.in_use < most
            && let Some((_, turn)) = self.placed.pop_first()
        {
            self.in_use += 1;
            // Without a receiver the share is about to be dropped, which passes the turn on.
            let _ = turn.send(());
        }
    }
}

impl<G: Clone + Eq + Hash, M: Clone + Eq + Hash> Share<G, M> {
    /// Cancelled when the place goes to somebody who has fewer.
    pub(super) fn evicted(&self) -> &CancellationToken {
        &self.occupant.evicted
    }

    /// True if somebody else lost the place to this one.
    pub(super) fn has_displaced(&self) -> bool {
        self.has_displaced
    }
}

impl<G: Clone + Eq + Hash, M: Clone + Eq + Hash> Drop for Share<G, M> {
    fn drop(&mut self) {
        self.shares.state().leave(self.id, &self.occupant.group, self.shares.most_of_group);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::atomic::{AtomicUsize, Ordering},
        task::{Context, Poll, Wake, Waker},
    };

    use super::*;

    type Shares = super::Shares<u8, u8>;
    type Share = super::Share<u8, u8>;

    /// Somebody who waits, and how often it was woken.
    struct Waiter {
        wait: Pin<Box<dyn Future<Output = Option<Share>>>>,
        woken: Arc<Woken>,
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Waiter {
        fn poll(&mut self) -> Poll<Option<Share>> {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.wait.as_mut().poll(&mut Context::from_waker(&waker))
        }

        #[track_caller]
        fn share(&mut self) -> Share {
            match self.poll() {
                Poll::Ready(share) => share.expect("a share"),
                Poll::Pending => panic!("waits"),
            }
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::SeqCst)
        }
    }

    /// One that was asked for a share, and has none.
    fn waiting(shares: &Arc<Shares>, group: u8, member: u8) -> Waiter {
        let shares = Arc::clone(shares);
        let wait = Box::pin(async move { shares.wait(group, member).await });
        let mut waiter = Waiter { wait, woken: Arc::default() };
        assert!(waiter.poll().is_pending(), "has a share at once");
        waiter
    }

    fn asked(shares: &Arc<Shares>, group: u8, members: &[u8]) -> Vec<Share> {
        members.iter().map(|member| shares.ask(group, *member).expect("a share")).collect()
    }

    #[track_caller]
    fn assert_empty(shares: &Shares) {
        let mut state = shares.state();
        assert!(state.lines.is_empty());
        let nobody = Occupant { group: 7, member: 0, evicted: CancellationToken::new() };
        assert_eq!(state.places.ask(u64::MAX, nobody, 1), Asked::Placed, "a place is lost");
    }

    #[test]
    fn a_place_goes_to_who_waits_longest_in_its_group_and_nobody_else_is_woken() {
        let shares = Shares::new(usize::MAX, 1);
        let (held, other_held) = (asked(&shares, 7, &[0]), asked(&shares, 8, &[0]));
        let [mut first, mut second] = [1, 2].map(|member| waiting(&shares, 7, member));
        let other = waiting(&shares, 8, 1);
        drop(held);
        assert!(shares.ask(7, 3).is_err(), "a newcomer goes first");
        assert_eq!([&first, &second, &other].map(Waiter::woken), [1, 0, 0]);
        assert!(second.poll().is_pending());
        drop(first.share());
        drop(second.share());
        drop((other, other_held));
        assert_empty(&shares);
    }

    #[test]
    fn who_displaces_waits_until_a_displaced_one_has_ended() {
        let shares = Shares::new(usize::MAX, 4);
        let mut held = asked(&shares, 7, &[0, 0, 0, 0]);
        let mut heirs = [1, 2].map(|member| waiting(&shares, 7, member));
        assert_eq!(
            held.iter().map(|share| share.evicted().is_cancelled()).collect::<Vec<_>>(),
            [true, true, false, false]
        );
        assert!(heirs.iter_mut().all(|heir| heir.poll().is_pending()), "four are in use");
        drop(held.remove(1));
        let shared = heirs[0].share();
        assert!(shared.has_displaced());
        assert!(heirs[1].poll().is_pending());
        drop(held.remove(0));
        drop((heirs[1].share(), shared, held));
        assert_empty(&shares);
    }

    #[test]
    fn who_gives_up_waiting_takes_no_place_along() {
        let shares = Shares::new(usize::MAX, 3);
        let held = asked(&shares, 7, &[0, 0, 0]);
        let heir = waiting(&shares, 7, 1);
        let [given_up, mut waiter] = [1, 1].map(|member| waiting(&shares, 7, member));
        drop(given_up);
        // The place of the heir goes to the waiter, which waits for a share as the heir did.
        drop(heir);
        assert!(waiter.poll().is_pending());
        let unread = waiting(&shares, 7, 1);
        drop(held);
        assert_eq!((waiter.woken(), unread.woken()), (1, 1));
        // One whose turn has come, too.
        drop((waiter, unread));
        assert_empty(&shares);
    }

    #[test]
    fn who_loses_the_place_before_its_turn_leaves_both_to_others() {
        let shares = Shares::new(usize::MAX, 4);
        let held = asked(&shares, 7, &[0, 0, 0, 0]);
        let [mut loser, mut first, mut second, mut third] = [1, 1, 2, 3].map(|member| waiting(&shares, 7, member));
        assert!(matches!(loser.poll(), Poll::Ready(None)));
        let heirs = [&mut first, &mut second, &mut third];
        let given: Vec<_> = held
            .into_iter()
            .zip(heirs)
            .map(|(held, heir)| {
                assert!(heir.poll().is_pending(), "four are in use");
                drop(held);
                heir.share()
            })
            .collect();
        drop(given);
        assert_empty(&shares);
    }

    #[test]
    fn who_has_clearly_more_gives_a_place_up() {
        let shares = Shares::new(usize::MAX, 3);
        let held = asked(&shares, 7, &[0, 0, 0]);
        assert!(shares.ask(7, 1).expect("displaces").has_displaced());
        assert!(held[0].evicted().is_cancelled() && !held[1].evicted().is_cancelled());
    }
}
