//! The names of our protocols.

use libp2p::StreamProtocol;

/// HTTP/1.1, in which a scraper asks a client.
pub(crate) const PULL_PROTOCOL: &str = "/narthex/pull/1";

/// Our own DHT: nothing is shared with the public IPFS one.
pub(crate) const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/narthex/kad/1");

/// What *identify* calls our family of protocols.
pub(crate) const IDENTIFY_PROTOCOL: &str = "/narthex/1";
