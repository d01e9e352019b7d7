//! OLMo 2 (arXiv 2501.00656): norms behind attention and MLP, before they join the stream, and RMSNorm over all of the
//! queries and all of the keys, before they are turned.

pub mod config;
pub mod names;
