//! From a text to the answer in it.

pub mod marker;
mod number;
pub(crate) mod pattern;

pub use marker::Marker;
pub use number::Number;
