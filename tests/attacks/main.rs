//! Attacks on running processes, one theme a file: each test fails on the code before its defence.

#[path = "../support/mod.rs"]
mod support;

mod fat_table;
mod http;
mod nodes;
