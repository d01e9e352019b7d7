//! One step, then many: pre-training, mid-training, supervised fine-tuning, preference optimisation.
//!
//! The only place where data, model, objective and optimiser meet. In reading order: [`step`], where a
//! batch of text becomes an update; [`mod@run`], which repeats the step of
//! whatever [`Method`], evaluates, and writes checkpoints and metrics; [`mod@reference`], the frozen model's side;
//! [`score()`], which writes that side down for a whole token store; [`weigh()`], which shows what the method does to
//! given tokens; [`Stage`], what every stage that trains says of itself; [`Plan`], everything a run over text will do before it does
//! it; [`dpo`], the same over pairs.
//!
//! Not here: arguments, colours, rewards.

// For the paths in what [`stage_settings!`] writes.
extern crate self as remit_train;

pub mod dpo;
mod error;
mod fit;
pub mod health;
pub mod held_out;
pub mod metrics;
mod plan;
pub mod reference;
mod refusal;
mod resume;
pub mod run;
mod score;
pub mod settings;
mod stage;
pub mod step;
mod text;
mod weigh;

pub use error::Error;
pub use fit::{MicroBatch, fit, go_on};
pub use health::Health;
pub use plan::{Material, Plan, keep, locate_checkpoint, open_model};
pub use refusal::Refusal;
pub use resume::Progress;
pub use run::{Frame, Method, Observer, Silent, Start, Summary, Taken, read_summary};
pub use score::{ScoreObserver, ScorePlan, ScoreSettings, score};
pub use settings::{Settings, Text};
pub use stage::{First, Memory, Planned, Stage, run};
pub use weigh::{Weighed, weigh, weigh_windows};
