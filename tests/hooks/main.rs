//! Commands that run when the list changes, and files made of it.

#[path = "../support/mod.rs"]
mod support;

mod on_change;
mod template;
