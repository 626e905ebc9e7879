//! Streams: yamux, multistream-select and libp2p-stream.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use futures::{AsyncRead, FutureExt, StreamExt};
use libp2p::{StreamProtocol, swarm::SwarmEvent, yamux};

use crate::{
    list::mended,
    peer::{Peer, Settings, connect, settle},
    raw::NOTHING,
};

const SPOKEN: StreamProtocol = StreamProtocol::new("/spoken/1");
const UNKNOWN: StreamProtocol = StreamProtocol::new("/unknown/1");

#[test]
fn a_stream_too_many_closes_the_yamux_connection() {
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(2);
    let mut near = Peer::raw_with(Settings { yamux, ..Settings::default() }, NOTHING);
    let mut far = Peer::raw(SPOKEN);
    connect(&mut near, &mut far);
    let streams = [near.opened(&mut far, SPOKEN), near.opened(&mut far, SPOKEN)];
    near.open(far.id, SPOKEN);
    settle(&mut [&mut near, &mut far]);
    let closed = |event: &SwarmEvent<_>| matches!(event, SwarmEvent::ConnectionClosed { cause: Some(_), .. });
    assert!(near.events.iter().any(closed), "{}", mended());
    drop(streams);
}

#[test]
fn a_reader_is_not_woken_when_this_side_closes_the_connection() {
    let (mut near, mut far) = (Peer::raw(NOTHING), Peer::raw(SPOKEN));
    connect(&mut near, &mut far);
    let mut stream = near.opened(&mut far, SPOKEN);
    let reader = Arc::new(Reader(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&reader));
    let read = Pin::new(&mut stream.stream).poll_read(&mut Context::from_waker(&waker), &mut [0; 8]);
    assert!(read.is_pending(), "nothing has been written");
    let id = far.id;
    near.swarm().disconnect_peer_id(id).expect("connected");
    // The other side is gone, and takes no part in that.
    settle(&mut [&mut near]);
    assert!(!near.swarm().is_connected(&id), "the connection is closed");
    let woken = reader.0.load(Ordering::Relaxed);
    assert!(!woken, "{}", mended());
}

/// Whether a task that reads has been woken.
struct Reader(AtomicBool);

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_stream_whose_late_negotiation_failed_panics_at_the_next_read() {
    let settings = Settings { lazy_streams: true, ..Settings::default() };
    let (mut near, mut far) = (Peer::raw_with(settings, NOTHING), Peer::raw(SPOKEN));
    connect(&mut near, &mut far);
    let mut stream = near.opened(&mut far, UNKNOWN);
    stream.send(b"in the same flight");
    settle(&mut [&mut near, &mut far]);
    assert!(stream.read().is_some_and(|read| read.is_err()), "the protocol is not spoken there");
    let again = catch_unwind(AssertUnwindSafe(|| stream.read().map(drop)));
    assert!(again.is_err(), "{}", mended());
}

#[test]
fn libp2p_stream_drops_a_burst() {
    let mut near = Peer::raw(NOTHING);
    let mut far = Peer::new(|_| libp2p_stream::Behaviour::new());
    let mut inbox = far.behaviour().new_control().accept(SPOKEN).expect("the first");
    connect(&mut near, &mut far);
    let mut streams = [near.opened(&mut far, SPOKEN), near.opened(&mut far, SPOKEN)];
    let ended = streams.iter_mut().filter_map(|stream| stream.has_ended().then_some(())).count();
    let accepted = std::iter::from_fn(|| inbox.next().now_or_never().flatten()).count();
    assert_eq!((accepted, ended), (1, 1), "{}", mended());
}
