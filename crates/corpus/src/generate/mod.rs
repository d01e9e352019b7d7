//! Corpora that need no network.
//!
//! - [`problems`]: small verifiable problems with worked solutions, made from a seed, with planted noise.
//! - [`mod@registry_text`]: ordinary English, the prose of the pinned dependencies in Cargo's registry.
//!
//! Both depend on their arguments only: never on time, thread count or the order of a directory.

mod dice;
mod error;
mod families;
mod level;
mod noise;
pub mod problems;
mod prose;
pub mod registry_text;

pub use error::Error;
pub use families::{Family, Subject};
pub use level::Level;
pub use noise::Noise;
pub use problems::{Problem, ProblemDocument, Problems, Split};
pub use registry_text::{Document, registry_text};
