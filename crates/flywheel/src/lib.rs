//! The flywheel: a graph of stages, each run once.
//!
//! In reading order: a [`Recipe`] is what a user writes, the ordinary stage tables as templates and the [`Settings`]
//! of the flywheel; [`Training`] is any of the stages that train; [`Graph`] makes nodes of them, each known by the hash of everything that its result depends on;
//! [`state`] compares the graph with what lies in the run directory; [`run()`] makes what is missing, in order, by the
//! very calls that the single verbs make; [`report`] is what came of it, arm by arm, with what it [cost](Cost).
//!
//! Not here: how a stage works inside, arguments, colours.

pub mod cost;
mod error;
mod files;
pub mod generated;
pub mod graph;
mod identity;
mod models;
pub mod recipe;
pub mod report;
pub mod run;
pub mod settings;
pub mod state;
pub mod training;

pub use error::Error;
pub use generated::Generated;
pub use graph::{Chain, Graph, Node, Stage, Work};
pub use recipe::Recipe;
pub use remit_results::Cost;
pub use remit_results::flywheel::{Owner, State};
pub use run::{Runner, prune, run};
pub use settings::Settings;
pub use training::{Tables, Training};
