//! micro10: verifiable problems with worked solutions, made from a seed.
//!
//! A document reads
//!
//! ```text
//! Q: 137 mod 9=?
//! A: 9*15=135; 137-135=2 => 2
//! ```
//!
//! `micro10` are the ten families [`Family::MICRO10`] at level 2: what a small model is trained, rewarded and measured
//! on. [`Problem::prompt`] is what it is given, [`final_answer`] finds its answer, [`Problem::accepts`] judges it.
//!
//! In reading order: [`Problems`], the corpus that a seed makes; [`Family`], what is drawn and how it is worked, one
//! family a file, with random choices by purpose and by [`Level`]; [`Noise`], what is planted in the solutions;
//! [`program`], the language of the problems that are programs, and its interpreter.
//!
//! A corpus depends on its settings only, never on time or the number of threads. Not here: files, models, rewards.

mod dice;
mod error;
mod families;
mod level;
mod noise;
mod problems;
pub mod program;

pub use error::Error;
pub use families::{Family, Subject};
pub use level::Level;
pub use noise::Noise;
pub use problems::{Document, Pair, Problem, Problems, Row, Split, final_answer};
