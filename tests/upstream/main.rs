//! Faults of libp2p and its dependencies that narthex works around. Each test shows one against the plain libraries.
//!
//! A test fails once an upgrade mends its fault, and its message names the part of narthex that can go. `docs/upstream.md`
//! lists the faults with their upstream issues.

mod list;
mod log;
mod peer;
mod raw;

mod autonat;
mod identify;
mod kad;
mod ping;
mod punching;
mod relay;
mod streams;
mod tcp;
