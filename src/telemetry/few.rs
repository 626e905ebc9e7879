//! Names in a line of the log.

use std::fmt::{self, Display};

/// Names in a line; the others are counted.
const NAMED: usize = 3;

/// The first names of some, and the number of the others.
pub(crate) struct Few<T>(pub(crate) Vec<T>);

impl<T: Display> Display for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().take(NAMED).enumerate() {
            write!(f, "{}{name}", if at == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_three_and_counts_the_others() {
        assert_eq!(Few(vec!["web-1"]).to_string(), "web-1");
        let many = Few((0..250).map(|number| format!("web-{number}")).collect());
        assert_eq!(many.to_string(), "web-0, web-1, web-2 and 247 more");
    }
}
