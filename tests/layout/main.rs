//! The layout of `src/`: which module may use which.

mod files;
mod imports;
