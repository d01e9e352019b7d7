//! One step, then many: pre-training and mid-training.
//!
//! The only place where data, model, objective and optimiser meet. In reading order: [`step`], where a batch becomes
//! an update; [`run()`], which repeats it, evaluates, and writes checkpoints and metrics; [`mod@reference`], the frozen
//! model's side; [`score()`], which writes that side down for a whole token store; [`weigh()`], which shows what the
//! method does to given tokens; [`Plan`], everything a run will do before it does it.
//!
//! Not here: arguments, colours, rewards.

mod error;
mod held_out;
pub mod metrics;
mod plan;
pub mod reference;
mod resume;
mod run;
mod score;
pub mod settings;
pub mod step;
mod weigh;

pub use error::Error;
pub use plan::{Memory, Plan, locate_checkpoint};
pub use run::{Observer, Silent, Summary, read_summary, run};
pub use score::{ScoreObserver, ScorePlan, ScoreSettings, score};
pub use settings::{Settings, Stage};
pub use weigh::{Weighed, weigh};
