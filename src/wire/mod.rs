//! The protocol between peers: messages, their bytes, and the Noise session around them.
//!
//! Bytes in, bytes out: this module opens no socket, and time is passed in. See `docs/protocol.md` for the layouts.
//!
//! [`codec`] encodes a [`RegisterRequest`]; a [`Session`], the result of a handshake between [`Initiator`] and
//! [`Responder`], cuts and seals the bytes; [`frame`]s carry them. `channel` does all of this over an asynchronous
//! stream. An [`Announcement`] is apart from these: a signed record for the DHT.
//!
//! Public for the fuzz targets only, without any promise of stability.

mod announce;
mod answer;
#[cfg(feature = "client")]
pub mod channel;
pub mod codec;
#[cfg(feature = "client")]
pub mod farewell;
#[cfg(feature = "client")]
pub mod follow;
pub mod frame;
#[cfg(feature = "scraper")]
pub(crate) mod group;
#[cfg(feature = "client")]
pub mod lobby;
mod member;
mod message;
mod noise;
#[cfg(feature = "client")]
mod pull_reason;
mod session;
mod target;
#[cfg(feature = "client")]
mod ticket;
#[cfg(feature = "client")]
mod timeout;

#[cfg(all(any(fuzzing, test), feature = "cli"))]
pub(crate) use noise::fixed as fixed_handshake;

pub use announce::{AnnounceError, Announcement, parse_record_key, record_key};
pub use answer::{HandshakeAnswer, HandshakeRefusal};
#[cfg(feature = "client")]
pub use farewell::{FAREWELL_PROTOCOL, FarewellAnswer};
#[cfg(feature = "client")]
pub use follow::FOLLOW_PROTOCOL;
#[cfg(feature = "client")]
pub use lobby::{Hi, Hosts, LOBBY_PROTOCOL, LobbyHost, LobbyRefusal, LobbyReply, LobbyRequest};
pub use member::{GroupMember, MAX_ADDRESSES, MAX_MEMBERS};
pub use message::{
    AliasGuard, AliasOutcome, AliasRefusal, AliasStatus, Claim, InstanceId, Probe, Probed, REGISTER_PROTOCOL, Register,
    RegisterFrom, RegisterReply, RegisterRequest, RegisterUnlisted, Registered,
};
pub use noise::{FIRST_MESSAGE_LEN, HandshakeError, Initiator, NoiseError, RESPONSE_LEN, Responder};
#[cfg(feature = "client")]
pub use pull_reason::PullReason;
#[cfg(feature = "client")]
pub(crate) use pull_reason::REASON_HEADER;
pub use session::{Session, SessionError};
#[cfg(feature = "scraper")]
pub(crate) use target::is_label_name;
pub use target::{Alias, Labels, Target, TargetError};
#[cfg(feature = "client")]
pub use ticket::{Ticket, TicketError};
#[cfg(feature = "client")]
pub use timeout::{SCRAPE_TIMEOUT_HEADER, scrape_timeout, set_scrape_timeout};
