//! Where models run: one boundary, and what is behind it.
//!
//! [`Engine`] is all that the rest of the program asks of a model: log-probabilities of a batch out and their
//! derivatives in, an update, samples, a snapshot. Models are known by a [`ModelId`], batches and results are plain
//! numbers, and checkpoints are directories, so an engine may keep its models in another process or on other devices.
//! [`cpu`] is the engine of this process, [`torch`] that of a worker process with PyTorch. [`start`] makes the one that
//! [`Settings`] name.
//!
//! Not here: data files, objectives' choices, schedules, runs.

pub mod check;
pub mod cpu;
mod engine;
mod error;
pub mod memory;
pub mod settings;
pub mod state;
pub mod torch;

pub use cpu::Cpu;
pub use engine::{Engine, LEARNER, Learning, ModelId, Origin, Predictions, Snapshot, Tensor, Usage};
pub use error::{Error, Refusal};
pub use memory::Available;
pub use remit_kernels::{Instructions, Precision};
pub use settings::{Settings, TorchSettings, start};
pub use torch::Torch;
