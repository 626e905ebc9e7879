//! The log of links that are lost and come back, of peers that hold an alias.
//!
//! A few have a line each, with the peer's address. A crowd has one line with a count: a whole fleet loses its links with an
//! uplink, and comes back within seconds.

use std::{
    mem,
    num::NonZeroU32,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::broadcast::error::RecvError,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::PublicKey,
    network::{LinkChange, LinkEvent, Links},
    registry::Registry,
    telemetry::{Few, LogRate},
};

/// How long changes are gathered.
const GATHERED: Duration = Duration::from_secs(1);
/// How long they are after a crowd.
const AFTER_A_CROWD: Duration = Duration::from_secs(10);
/// Most peers that have a line each.
const FEW: usize = 10;
/// First lines of peers, and further lines of all.
const LINES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(100).expect("a hundred is not zero");

/// Writes the log until `stop` fires.
pub(super) async fn keep(registry: Registry, links: Links, stop: CancellationToken) {
    let mut events = links.events();
    let (mut lost, mut back) = (Gathered::default(), Gathered::default());
    let (rate, mut pause) = (LogRate::new(LINES_PER_MINUTE), GATHERED);
    let mut due = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                rate.forget_old();
                let crowds = [lost.take().write(&rate, "lost"), back.take().write(&rate, "back")];
                pause = if crowds.contains(&true) { AFTER_A_CROWD } else { GATHERED };
                continue;
            }
            event = events.recv() => match event {
                Ok(LinkEvent::Down(peer)) if registry.is_holder(&peer) => lost.add(&links, peer),
                Ok(LinkEvent::Up(peer)) if is_return(registry.holder_since(&peer), links.status(&peer).change) => back.add(&links, peer),
                Ok(_) => continue,
                // Whatever they were, they were a crowd, and the log has some of it.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return stop.cancelled().await,
            },
        }
        due.get_or_insert_with(|| Instant::now() + pause);
    }
}

/// True if the peer held an alias before its link came: its first registration may be done before the link is looked at.
fn is_return(holder_since: Option<SystemTime>, linked: Option<LinkChange>) -> bool {
    holder_since.is_some_and(|since| linked.is_none_or(|linked| since < linked.at))
}

/// What has happened in one way.
#[derive(Debug, Default)]
struct Gathered {
    /// The first ones, each with what the table of links says of it.
    first: Vec<(PublicKey, String)>,
    count: usize,
}

impl Gathered {
    fn add(&mut self, links: &Links, peer: PublicKey) {
        self.count += 1;
        if self.first.len() < FEW {
            self.first.push((peer, links.status(&peer).change.map(|change| change.reason).unwrap_or_default()));
        }
    }

    fn take(&mut self) -> Self {
        mem::take(self)
    }

    /// Writes it. True of a crowd, which has one line.
    fn write(self, rate: &LogRate, what: &str) -> bool {
        let Self { first, count } = self;
        if count > FEW {
            let peers = Few(first.iter().map(|(peer, _)| peer).take(3).collect());
            tracing::info!(count, first = %peers, "links {what}");
            return true;
        }
        for (peer, why) in first {
            if let Some(left_out) = rate.line(&peer) {
                tracing::info!(%peer, why, left_out, "link {what}");
            }
        }
        false
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::identity::KeyPair;

    /// What is logged of so many peers.
    fn logged(count: usize) -> (bool, Vec<String>) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let lines = tracing_subscriber::fmt().with_writer(Arc::new(file.reopen().expect("opens"))).finish();
        let peers = (0..count.min(FEW)).map(|_| (KeyPair::generate().public(), "a reason".to_owned()));
        let gathered = Gathered { first: peers.collect(), count };
        let rate = LogRate::new(LINES_PER_MINUTE);
        let crowd = tracing::subscriber::with_default(lines, || gathered.write(&rate, "lost"));
        let log = fs::read_to_string(file.path()).expect("text");
        (crowd, log.lines().map(str::to_owned).collect())
    }

    #[test]
    fn a_first_registration_is_no_return() {
        let now = SystemTime::now();
        let linked = |at| Some(LinkChange { at, reason: "connected".to_owned() });
        assert!(!is_return(None, linked(now)));
        assert!(!is_return(Some(now + Duration::from_millis(5)), linked(now)), "registered over this link");
        assert!(is_return(Some(now - Duration::from_secs(5)), linked(now)));
    }

    #[test]
    fn a_few_have_a_line_each_and_a_whole_fleet_has_one() {
        let (crowd, lines) = logged(FEW);
        assert!(!crowd && lines.len() == FEW && lines.iter().all(|line| line.contains("link lost")), "{lines:?}");
        let (crowd, lines) = logged(10_000);
        assert!(crowd && lines.len() == 1 && lines[0].contains("links lost"), "{lines:?}");
        assert!(lines[0].contains("10000"), "{lines:?}");
    }
}
