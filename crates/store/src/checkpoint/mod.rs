//! A run's directory and its checkpoints.
//!
//! ```text
//! <run>/.lock                           held by the process that writes here
//! <run>/checkpoints/step-00000100/      whole or absent; the content is the caller's
//! <run>/checkpoints/step-00000100/integrity.json    size and BLAKE3 of every other file
//! ```
//!
//! A kill or a full disk at any moment leaves every checkpoint that was there before as it was.

mod integrity;
mod run;

pub use integrity::{INTEGRITY, verify_directory};
pub use run::{CHECKPOINTS, Checkpoint, Retention, RunDirectory, checkpoints_of, locate};
