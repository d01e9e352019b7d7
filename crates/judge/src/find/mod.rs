//! From a text to the answer in it.

mod latex;
pub mod marker;
pub mod maths;
mod number;
pub(crate) mod pattern;

pub use marker::Marker;
pub use number::Number;
pub(crate) use number::is_turning_or_scaling;
