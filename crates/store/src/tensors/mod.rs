//! Named tensors in safetensors files, as Hugging Face checkpoints hold them: read through a memory map, written as
//! a stream.
//!
//! Reading: [`TensorDirectory`] for a checkpoint (one file, or shards with an index), [`TensorFile`] for one file.
//! Writing: [`write_tensors`]. Format: <https://huggingface.co/docs/safetensors>.

mod convert;
mod directory;
mod file;
mod header;
mod write;

pub use directory::TensorDirectory;
pub(crate) use directory::model_files;
pub(crate) use file::map_file;
pub use file::{TensorFile, TensorInfo};
/// The element types a safetensors file can hold.
pub use safetensors::Dtype;
pub use write::{FileDtype, TensorOut, write_tensors};
