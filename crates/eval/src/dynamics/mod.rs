//! How a run moves towards, or away from, a frozen reference: every checkpoint of it beside the reference.
//!
//! In reading order: [`Settings`]; [`Plan`], everything opened and checked; [`measure()`], which does it and writes
//! [`Dynamics`] to a file, a [`Point`] a checkpoint, reusing what is there of the same inputs; [`remit_objective::distance`] has the
//! formulas of one prediction.
//!
//! The logits of both models exist for a few hundred rows at a time. Products are those of training; from the logits on
//! everything is summed in `f64`, prediction by prediction, so results are the same bits for any number of threads.

mod error;
mod measure;
mod plan;
mod points;
mod settings;

pub use error::Error;
pub use measure::{Observer, compare, measure};
pub use plan::{Plan, Planned};
pub use remit_objective::{Distance, Means};
pub use remit_results::dynamics::{Dynamics, FORMAT_VERSION, Point, Score, read_dynamics};
pub use settings::Settings;
