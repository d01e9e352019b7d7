//! Youtu-LLM (arXiv 2512.24618): multi-head latent attention as in DeepSeek V2 and V3, in a dense model.

pub mod config;
pub mod names;
