//! The whole HTTP side on a real socket, with a real registry and a pull that each test makes up.

mod api;
mod file_sd;
mod on_change;
mod proxy;
mod rights;
mod scrape;
mod sd;
mod server;
mod support;
