//! Reinforcement learning: what a sampled completion is worth.
//!
//! - [`verify`]: rewards by verification, one verifier a file behind one small trait.
//!
//! Sampling and training stand on top of the training step and are not here; losses and advantages are the objectives'.

pub mod error;
pub mod verify;

pub use error::Error;
pub use verify::{Verifier, Verify};
