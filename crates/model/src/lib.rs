//! One decoder for every family, and Hugging Face layout in and out
