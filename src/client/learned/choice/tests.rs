use super::*;
use crate::identity::KeyPair;

const MINUTE: Duration = Duration::from_secs(60);

fn key(seed: u8) -> PublicKey {
    KeyPair::from_seed(&[seed; 32]).public()
}

/// A client of one given scraper, and what its scrapers say and do.
struct Client {
    choice: Choice,
    named: BTreeSet<PublicKey>,
    registered: BTreeSet<PublicKey>,
    busy: BTreeSet<PublicKey>,
    now: Instant,
}

impl Client {
    fn given(seeds: &[u8]) -> Self {
        let (now, given) = (Instant::now(), seeds.iter().map(|&seed| key(seed)).collect());
        let choice = Choice::new(key(100), &given, Pace::default(), now);
        Self { choice, named: BTreeSet::new(), registered: given, busy: BTreeSet::new(), now }
    }

    fn decide(&mut self) -> Vec<Step> {
        self.choice.decide(self.named.iter(), &self.registered, &self.busy, self.now)
    }

    /// What is decided until that much time has passed, each time that a decision is due.
    fn pass(&mut self, time: Duration) -> Vec<Step> {
        let (end, mut steps) = (self.now + time, self.decide());
        while let Some(due) = self.choice.due().filter(|due| *due <= end) {
            assert!(due > self.now, "time goes on");
            self.now = due;
            steps.extend(self.decide());
        }
        self.now = end;
        steps
    }

    /// The one that is linked by a single step.
    #[track_caller]
    fn linked(steps: &[Step]) -> PublicKey {
        match steps {
            [Step::Link(key)] => *key,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_client_of_one_scraper_links_one_more_and_one_of_two_links_none() {
    let mut one = Client::given(&[1]);
    assert_eq!(one.decide(), [], "there is no group");
    one.named = [1, 2, 3, 100].map(key).into();
    let second = Client::linked(&one.decide());
    assert!([2, 3].map(key).contains(&second), "neither the given one nor the client itself");
    one.registered.insert(second);
    assert_eq!(one.pass(MINUTE * 60), []);

    let mut two = Client::given(&[1, 2]);
    two.named = [1, 2, 3].map(key).into();
    assert_eq!(two.pass(MINUTE * 60), []);
}

#[test]
fn while_the_given_scraper_is_dead_two_members_stand_in_and_one_goes_once_it_is_back_for_good() {
    let mut client = Client::given(&[1]);
    client.named = [2, 3, 4].map(key).into();
    let first = Client::linked(&client.decide());
    client.registered = [first].into();
    let second = Client::linked(&client.pass(MINUTE));
    client.registered.insert(second);
    assert_eq!(client.pass(MINUTE * 60), [], "never more than two");

    client.registered.insert(key(1));
    assert_eq!(client.pass(MINUTE / 2), [], "it may be gone again");
    client.registered.remove(&key(1));
    assert_eq!(client.pass(MINUTE * 2), []);
    client.registered.insert(key(1));
    assert_eq!(client.pass(MINUTE), [Step::Leave(second)], "the one that came first in the client's order stays");
}

/// Before: a client whose scrapers both died was scraped by nobody for a minute.
#[test]
fn a_client_that_no_scraper_has_registered_waits_for_seconds_only() {
    let mut client = Client::given(&[1]);
    client.named = [1, 2, 3].map(key).into();
    let second = Client::linked(&client.decide());
    client.registered.insert(second);
    assert_eq!(client.pass(MINUTE), []);
    client.registered.clear();
    let steps = client.pass(Duration::from_secs(5));
    let third = [2, 3].map(key).into_iter().find(|key| *key != second).expect("another");
    assert!(steps.contains(&Step::Link(third)), "{steps:?}");
}

#[test]
fn a_member_that_cannot_be_reached_is_replaced_unless_there_is_no_other() {
    let mut client = Client::given(&[1]);
    client.named = [2, 3].map(key).into();
    let first = Client::linked(&client.decide());
    let replaced = client.pass(MINUTE);
    let [Step::Leave(left), Step::Link(other)] = replaced[..] else { panic!("{replaced:?}") };
    assert_eq!((left, first == other), (first, false));
    assert_eq!(client.pass(MINUTE * 5), [], "the first was tried just now");
    let later = client.pass(MINUTE * 6);
    assert_eq!(later, [Step::Leave(other), Step::Link(first)], "as neither answers, they take turns");

    let mut alone = Client::given(&[1]);
    alone.named = [key(2)].into();
    assert_eq!(Client::linked(&alone.decide()), key(2));
    assert_eq!(alone.pass(MINUTE * 60), [], "it is dialled on and on");
}

#[test]
fn a_member_that_was_let_go_is_linked_again_only_once_its_end_is_over() {
    let mut client = Client::given(&[1]);
    (client.named, client.busy) = ([key(2)].into(), [key(2)].into());
    assert_eq!(client.decide(), []);
    client.busy.clear();
    assert_eq!(client.decide(), [Step::Link(key(2))]);
}

#[test]
fn a_scraper_that_nobody_names_for_long_is_let_go_with_a_release() {
    let mut client = Client::given(&[1]);
    client.named = [key(2)].into();
    assert_eq!(Client::linked(&client.decide()), key(2));
    client.registered.insert(key(2));
    client.named.clear();
    assert_eq!(client.pass(MINUTE * 10), []);
    client.named = [key(2)].into();
    assert_eq!(client.pass(MINUTE * 20), [], "it was left out for a moment");
    client.named.clear();
    assert_eq!(client.pass(MINUTE * 16), [Step::Release(key(2))]);
    assert_eq!(client.pass(MINUTE * 60), []);
}

#[test]
fn clients_spread_over_the_members() {
    let members: BTreeSet<PublicKey> = (1..=4).map(key).collect();
    let mut chosen = BTreeMap::<PublicKey, usize>::new();
    for _ in 0..600 {
        let now = Instant::now();
        let mut choice = Choice::new(KeyPair::generate().public(), &[key(1)].into(), Pace::default(), now);
        let steps = choice.decide(members.iter(), &BTreeSet::new(), &BTreeSet::new(), now);
        *chosen.entry(Client::linked(&steps)).or_default() += 1;
    }
    assert!(chosen.len() == 3 && chosen.values().all(|count| (120..=280).contains(count)), "{chosen:?}");
}
