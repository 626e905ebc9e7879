//! Tasks that a role runs beside its network: each keeps one thing as it should be, until it is stopped.

pub(crate) mod announcer;
pub(crate) mod backoff;
pub(crate) mod external;
pub(crate) mod reservations;
pub(crate) mod upgrade;
