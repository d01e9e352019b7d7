//! SmolLM 3: as Llama, but every fourth block leaves queries and keys unturned (NoPE, arXiv 2501.18795).

pub mod config;
pub mod names;
