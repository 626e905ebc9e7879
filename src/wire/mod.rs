//! What peers say to each other: messages, their bytes, and the Noise session they travel in.
//!
//! Bytes in, bytes out: no socket is opened here, and time is passed in. See `docs/protocol.md` for the layouts.
//!
//! A registration, from the inside out: a [`RegisterRequest`] becomes bytes in [`codec`], is cut and sealed by a
//! [`Session`] that [`Initiator`] and [`Responder`] agreed on, and goes out in [`frame`]s. `channel` does all of this
//! over an asynchronous stream. An [`Announcement`] stands alone: it is a signed record for the DHT.

mod announce;
mod answer;
#[cfg(feature = "client")]
pub mod channel;
pub mod codec;
pub mod frame;
mod message;
mod noise;
mod session;
mod target;
#[cfg(feature = "client")]
mod timeout;

pub use announce::{AnnounceError, Announcement, parse_record_key, record_key};
pub use answer::{HandshakeAnswer, HandshakeRefusal};
pub use message::{
    AliasGuard, AliasOutcome, AliasRefusal, AliasStatus, Claim, Probe, Probed, REGISTER_PROTOCOL, Register,
    RegisterReply, RegisterRequest, Registered,
};
pub use noise::{FIRST_MESSAGE_LEN, HandshakeError, Initiator, NoiseError, RESPONSE_LEN, Responder};
pub use session::{Session, SessionError};
pub use target::{Alias, Labels, Target, TargetError};
#[cfg(feature = "client")]
pub use timeout::{SCRAPE_TIMEOUT_HEADER, scrape_timeout, set_scrape_timeout};
