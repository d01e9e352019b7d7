//! Reinforcement learning with verifiable rewards.
//!
//! In reading order: [`prompts`] are rows with an answer; [`rollout`] samples completions from the policy and asks
//! [`verifiers`] what each is worth; [`update`] turns them into an optimiser step with the rules of
//! [`remit_objective::grpo`]; [`mod@run`] repeats that, by the loop that every stage shares. The policy that samples is
//! the one that is trained, in one process and in the same numbers: there is no second engine to keep in step.
//!
//! Not here: a training loop, arguments, colours.

mod error;
pub mod prompts;
pub mod rollout;
pub mod run;
pub mod settings;
mod transcripts;
pub mod update;
pub mod verifiers;

pub use error::Error;
pub use run::{Plan, Rl};
pub use settings::Settings;
