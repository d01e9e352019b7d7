//! Qwen 3, dense (arXiv 2505.09388): as Llama, with RMSNorm of every query and key head and heads of any width.

pub mod config;
pub mod names;
