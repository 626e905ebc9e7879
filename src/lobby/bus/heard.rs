//! What was heard on the bus.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::{lobby::Host, wire::LobbyHost};

/// Bounds of what strangers may have us keep.
const MAX_HOSTS: usize = 10_000;
const MAX_BYTES: usize = 16 << 20;

/// The hosts of others, each until its time to live is over, or it says goodbye.
pub(super) struct Heard {
    ttl: Duration,
    hosts: BTreeMap<String, HeardHost>,
    bytes: usize,
    /// Since when the bus can be heard.
    since: Option<Instant>,
    /// When it could not be heard last: no host had a chance to say hi then.
    away_at: Option<Instant>,
}

struct HeardHost {
    labels: Vec<String>,
    heard_at: Instant,
    /// Seconds of Unix time.
    seen: u64,
}

impl Heard {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, hosts: BTreeMap::new(), bytes: 0, since: None, away_at: None }
    }

    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Notes whether the bus can be heard now, and forgets hosts whose time is over.
    pub(super) fn look(&mut self, is_away: bool, now: Instant) {
        match is_away {
            true => {
                self.away_at = Some(now);
                if !self.is_complete(now) {
                    self.since = None;
                }
            }
            false => _ = self.since.get_or_insert(now),
        }
        let (ttl, away_at) = (self.ttl, self.away_at);
        let is_over =
            |host: &HeardHost| now.duration_since(away_at.map_or(host.heard_at, |at| at.max(host.heard_at))) >= ttl;
        let over: Vec<String> =
            self.hosts.iter().filter(|(_, host)| is_over(host)).map(|(name, _)| name.clone()).collect();
        over.iter().for_each(|name| self.goodbye(name));
    }

    /// True once all hosts must have been heard: one that does not say hi twice within its time to live could be given up at any time.
    pub(super) fn is_complete(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) >= self.ttl / 2)
    }

    /// Lists a host, or says that there is no room for it.
    pub(super) fn hi(&mut self, host: Host, at: SystemTime, now: Instant) -> Result<(), String> {
        let Host { hostname, labels, .. } = host;
        let before = self.hosts.get(&hostname).map(|before| size(&hostname, &before.labels));
        let bytes = self.bytes - before.unwrap_or(0) + size(&hostname, &labels);
        if bytes > MAX_BYTES || (before.is_none() && self.hosts.len() >= MAX_HOSTS) {
            return Err(format!("there is no room for {hostname:?}: {} hosts were heard", self.hosts.len()));
        }
        self.bytes = bytes;
        let seen = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.hosts.insert(hostname, HeardHost { labels, heard_at: now, seen });
        Ok(())
    }

    pub(super) fn goodbye(&mut self, hostname: &str) {
        if let Some(host) = self.hosts.remove(hostname) {
            self.bytes -= size(hostname, &host.labels);
        }
    }

    /// In the order of their names.
    pub(super) fn hosts(&self) -> Vec<LobbyHost> {
        let ttl_seconds = u32::try_from(self.ttl.as_secs()).unwrap_or(u32::MAX);
        let listed = self.hosts.iter().map(|(hostname, HeardHost { labels, seen, .. })| LobbyHost {
            hostname: hostname.clone(),
            labels: labels.clone(),
            seen: *seen,
            ttl_seconds,
        });
        listed.collect()
    }
}

fn size(hostname: &str, labels: &[String]) -> usize {
    hostname.len() + labels.iter().map(String::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    fn host(name: &str, labels: &[&str]) -> Host {
        Host::new(name.to_owned(), labels.iter().map(|&label| label.to_owned()).collect(), 0).expect("fit")
    }

    fn names(heard: &Heard) -> Vec<String> {
        heard.hosts().into_iter().map(|host| host.hostname).collect()
    }

    #[test]
    fn a_host_is_listed_until_it_says_goodbye_or_its_time_is_over() {
        let (mut heard, began) = (Heard::new(TTL), Instant::now());
        heard.look(false, began);
        for (name, after) in [("a", 0), ("b", 5), ("c", 5)] {
            heard.hi(host(name, &["l"]), UNIX_EPOCH + SECOND * after, began + SECOND * after).expect("room");
        }
        heard.goodbye("c");
        heard.look(false, began + TTL - SECOND);
        assert_eq!(names(&heard), ["a", "b"]);
        assert_eq!(heard.hosts()[1].seen, 5);
        heard.look(false, began + TTL);
        assert_eq!(names(&heard), ["b"]);
        heard.goodbye("b");
        assert_eq!((heard.len(), heard.bytes), (0, 0));
    }

    #[test]
    fn nobody_is_given_up_while_the_bus_is_away_nor_before_all_could_say_hi_again() {
        let (mut heard, began) = (Heard::new(TTL), Instant::now());
        heard.look(false, began);
        heard.hi(host("a", &[]), UNIX_EPOCH, began).expect("room");
        let back = began + SECOND * 1000;
        heard.look(true, began + SECOND * 10);
        heard.look(true, back);
        heard.look(false, back + TTL - SECOND);
        assert_eq!(names(&heard), ["a"]);
        heard.look(false, back + TTL);
        assert_eq!(heard.len(), 0);
    }

    #[test]
    fn there_is_a_list_once_all_could_be_heard() {
        let (mut heard, began) = (Heard::new(TTL), Instant::now());
        heard.look(true, began);
        assert!(!heard.is_complete(began + SECOND * 100), "the bus was never there");
        heard.look(false, began + SECOND);
        heard.look(true, began + SECOND * 2);
        assert!(!heard.is_complete(began + SECOND * 100), "it was there for too short a time");
        heard.look(false, began + SECOND * 100);
        assert!(!heard.is_complete(began + SECOND * 114));
        assert!(heard.is_complete(began + SECOND * 115));
        heard.look(true, began + SECOND * 116);
        assert!(heard.is_complete(began + SECOND * 116), "what was heard stays");
    }

    #[test]
    fn strangers_fill_what_there_is_room_for_and_no_more() {
        let (mut heard, now) = (Heard::new(TTL), Instant::now());
        for n in 0..MAX_HOSTS {
            heard.hi(host(&n.to_string(), &[]), UNIX_EPOCH, now).expect("room");
        }
        assert!(heard.hi(host("more", &[]), UNIX_EPOCH, now).is_err());
        heard.hi(host("0", &["new"]), UNIX_EPOCH, now).expect("a host that is known");
        let large: Vec<String> = (0..47).map(|n| format!("{n:01024}")).collect();
        let large: Vec<&str> = large.iter().map(String::as_str).collect();
        let taken = (0..1000).take_while(|n| heard.hi(host(&n.to_string(), &large), UNIX_EPOCH, now).is_ok()).count();
        assert!((300..400).contains(&taken), "{taken}");
        assert!(heard.bytes <= MAX_BYTES);
    }
}
