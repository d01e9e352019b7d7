//! What came of a run: the nouns that those who make results share with those who show them.
//!
//! In reading order: [`files`], what the files of a run are called; [`records`], a line of its logs each; [`statistics`],
//! means with their errors, pass@k, paired differences with intervals: pure functions; [`cost`], what something took;
//! [`dynamics`], a run's checkpoints beside a reference; [`flywheel`], all of it arm by arm.
//!
//! Not here: how any of it is measured, where a run lies, how it is shown.

pub mod cost;
pub mod dynamics;
mod error;
pub mod files;
pub mod flywheel;
pub mod records;
pub mod statistics;

pub use cost::Cost;
pub use error::Error;
