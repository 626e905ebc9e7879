//! Whoever connects cannot fill the log: what a stranger does is `debug`, also where libp2p's own crates log it.

use narthex::identity::PeerAddr;

use crate::support::{SOON, fleet::Fleet, process::Process, stranger};

/// What libp2p's behaviours answer to anybody, at a node or a scraper.
const PROTOCOLS: [&str; 7] = [
    "/libp2p/autonat/2/dial-request",
    "/libp2p/autonat/2/dial-back",
    "/libp2p/circuit/relay/0.2.0/hop",
    "/libp2p/circuit/relay/0.2.0/stop",
    "/ipfs/id/1.0.0",
    "/ipfs/id/push/1.0.0",
    "/narthex/kad/1",
];
const STREAMS: usize = 20;

/// The lines that a flood of streams adds to the log until the process has ended.
async fn lines_of_a_flood(process: &mut Process, peer: &PeerAddr) -> Vec<String> {
    process.wait_log(&["runs"]);
    let before = process.log().lines().count();
    let agreed = stranger::open_empty_streams(peer, &PROTOCOLS, STREAMS).await;
    assert!(agreed > STREAMS, "{agreed} streams got through");
    assert!(process.terminate(SOON).success());
    process.log().lines().skip(before).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_streams_leave_no_line_at_a_node() {
    let fleet = Fleet::new();
    let mut relay = fleet.relay();
    let lines = lines_of_a_flood(&mut relay.process, &relay.peer).await;
    assert!(!lines.iter().any(|line| line.contains("libp2p")), "{lines:#?}");
    assert!(lines.len() < STREAMS, "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_streams_leave_no_line_at_a_scraper() {
    let fleet = Fleet::new();
    let mut scraper = fleet.scraper(&[]);
    let peer = scraper.peer();
    let lines = lines_of_a_flood(&mut scraper.process, &peer).await;
    assert!(!lines.iter().any(|line| line.contains("libp2p")), "{lines:#?}");
    assert!(lines.len() < STREAMS, "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libp2p_logs_what_it_is_asked_for() {
    let fleet = Fleet::new();
    let mut node = fleet.node_with(&["--log-level", "info,libp2p=warn"]);
    let lines = lines_of_a_flood(&mut node.process, &node.peer).await;
    assert!(lines.iter().filter(|line| line.contains("libp2p")).count() >= STREAMS, "{lines:#?}");
}
