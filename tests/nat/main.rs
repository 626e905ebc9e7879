//! Links through real NATs: see `docs/nat.md` for the lab, and for what these tests print.

#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod blocked;
mod crowds;
mod killed;
mod mappings;
mod matrix;
mod mtu;
mod outages;
mod plumbing;
mod rig;
mod upgrade;
mod upsets;
