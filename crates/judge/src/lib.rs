//! Judging a text: the answer in it, and whether that is right.
//!
//! [`find`] gets from a text to its answer: what stands behind a marker, what a pattern matches, the last number. Two
//! sets of rules compare what is found:
//!
//! - [`verify`] gives rewards. It refuses what is ambiguous, because a policy finds every wrong answer that is accepted.
//! - [`harness`] gives figures. It follows lm-evaluation-harness to the letter, so that figures of one name mean one
//!   thing.
//!
//! A new rule of reward is a file in `verify/` and a variant of [`Verify`]. It says what a completion comes to and why
//! ([`Verdict`]), and which ground truths no completion could ever meet ([`Verifier::refusal`]).
//!
//! A verdict is a function of its texts. Not here: rows, tokens, models, advantages.

mod error;
pub mod find;
pub mod harness;
pub mod math;
mod verdict;
pub mod verify;

pub use error::Error;
pub use harness::{Filter, Judge};
pub use verdict::{Outcome, Verdict};
pub use verify::{Verifier, Verify};
