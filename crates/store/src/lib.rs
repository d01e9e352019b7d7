//! Names and bytes to disk, atomically: checkpoints, manifests, scores.
//!
//! This crate knows no model types. What it promises: a file or directory written through it is there whole or not
//! at all, and whatever it reads is either right or an error that says which file is wrong and how.

pub mod atomic;
pub mod checkpoint;
mod damage;
pub mod hash;
pub mod json_lines;
mod lock;
pub mod scores;
pub mod tensors;

pub use lock::Lock;
pub use remit_fault::Error;
