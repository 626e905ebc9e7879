//! The layout of `src/`: which module may use which. And the documents: that what they name exists.

mod dependencies;
mod documents;
mod files;
mod imports;
mod public_types;
mod texts;
