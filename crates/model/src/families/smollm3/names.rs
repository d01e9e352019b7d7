//! The parameters of the SmolLM 3 family, in the order of the flat buffer.

/// As Llama's.
pub use crate::families::llama::names::layout;
