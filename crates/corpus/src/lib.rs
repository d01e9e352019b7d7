//! Text to tokens to packed windows.
//!
//! The folder reads in the order of the work: `read` turns files into documents, [`Tokenizer`] documents into ids,
//! [`prepare()`] writes them as a token store, [`TokenStore`] opens it, [`Windows`] cuts it into training sequences
//! and [`Order`] says which window comes when. [`examples`] reads what post-training learns from: rows of prompts,
//! completions, conversations and preferences. [`mod@registry_text`] is ordinary English without a network.
//!
//! Everything here is a function of its inputs and seeds alone: neither the number of threads nor a kill and restart
//! changes a byte or a window. The crate knows nothing of models, losses or devices.

pub mod examples;
pub mod registry_text;

mod error;
mod hash;
mod order;
mod prepare;
mod progress;
mod read;
mod token_store;
mod tokenizer;
mod windows;

pub use order::{Mixture, Order, Share, Shuffle, SourceSummary};
pub use prepare::{InputSummary, Prepare, Summary, prepare};
pub use progress::Progress;
pub use read::{Format, Skipped, Source, Split, TokenDtype, files_at};
pub use remit_fault::Error;
pub use token_store::{Dtype, Manifest, SourceEntry, TokenStore};
pub use tokenizer::{Bos, Companions, Digits, Tokenizer, TrainTokenizer, TrainedTokenizer, train_tokenizer};
pub use windows::Windows;
