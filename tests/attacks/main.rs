<<<<<<< HEAD
//! Attacks on a running scraper, each with what an honest peer still has.
=======
//! Attacks on running processes, one theme a file: each test fails on the code before its defence.
>>>>>>> main

#[path = "../support/mod.rs"]
mod support;

<<<<<<< HEAD
mod fat_table;
=======
mod nodes;
>>>>>>> main
