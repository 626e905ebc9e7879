//! Attacks on the running programs, each as it was first made, and what now comes of it.

#[path = "../support/mod.rs"]
mod support;

mod holders;
