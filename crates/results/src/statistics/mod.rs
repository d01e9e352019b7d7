//! Means and how certain they are: pure functions on slices, all in `f64`.
//!
//! The unit of a mean is the *problem*: samples of one problem resemble each other, so with several a problem, average
//! within each problem first and pass the averages here. Two models are compared on the same problems, by the
//! [paired difference](paired()), whose error is that of the differences: most of the spread, some problems being
//! harder than others, cancels.

mod bootstrap;
mod mean;
mod paired;
mod pass_at_k;
mod ratio;
mod student;

pub use bootstrap::{Bootstrap, bootstrap_mean, bootstrap_strata};
pub use mean::Mean;
pub use paired::{CONFIDENCE, Interval, Paired, paired};
pub use pass_at_k::pass_at_k;
pub use ratio::ratio;
