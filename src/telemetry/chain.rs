//! An error and everything below it, on one line.

use std::{error::Error, fmt};

/// Displays an error and its sources, separated by `: `.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut at = self.0.source();
        while let Some(error) = at {
            write!(f, ": {error}")?;
            at = error.source();
        }
        Ok(())
    }
}
