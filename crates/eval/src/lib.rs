//! Evaluation: what a checkpoint can do, and how certain that is.
//!
//! - [`metrics`]: pass@k, means with their standard errors, paired differences with intervals. Pure functions.

pub mod metrics;
