//! Evaluation: what a checkpoint can do, and how certain that is.
//!
//! In reading order: [`tasks`], where questions come from and how an answer is judged; [`Suite`], the questions of an
//! evaluation, put to a model: greedy continuations, samples, log-probabilities of the reference solutions; [`Plan`],
//! a suite and the checkpoint it is put to; [`evaluate`], which does it; [`Results`], the figures, in the shape of
//! lm-evaluation-harness's `results.json`, written beside a log of every answer; [`compare`], evaluations side by side;
//! [`dynamics`], a run's checkpoints beside a frozen reference.
//!
//! Not here: gradients, rewards, where a run keeps its checkpoints.

pub mod compare;
pub mod dynamics;
mod error;
#[cfg(test)]
mod examples;
mod likelihood;
mod plan;
mod results;
mod settings;
mod suite;
pub mod tasks;

pub use error::Error;
pub use likelihood::{Sequence, log_probs};
pub use plan::{Evaluation, Plan, evaluate};
pub use results::{Counts, Figure, Results, read_results};
pub use settings::{Micro10, Paths, Settings, Shots, ShotsOf};
pub use suite::{Answers, Observer, Suite};
pub use tasks::{Question, Task};
