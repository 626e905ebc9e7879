//! Faults of libp2p, and of what it builds on, that narthex works around: each is shown against the plain libraries.
//!
//! A test here fails once an upgrade mends its fault, and its message names the part of narthex that can go. The list, with
//! the upstream issues, is `docs/upstream.md`.

mod peer;

mod list;
mod log;

mod autonat;
mod identify;
mod others;
mod punching;
mod relay;
mod streams;
