//! Llama: RMSNorm before attention and MLP, RoPE (optionally stretched as in Llama 3.1), grouped-query attention,
//! SwiGLU, embeddings tied or not.

pub mod config;
pub mod names;
