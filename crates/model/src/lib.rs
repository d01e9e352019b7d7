//! One decoder for every family, and Hugging Face layout in and out.
//!
//! A family is a set of switches on [`Architecture`], read from `config.json` by its folder under [`families`]. All
//! parameters lie in one flat buffer, in the order of a [`Layout`] that knows their Hugging Face names; gradients and
//! optimiser state are buffers of the same layout. The forward pass keeps what the backward pass needs in a
//! [`Workspace`] that is made once and used for every step. A model that is only read is [`Frozen`]: it may leave its
//! parameters in the files they came from.
//!
//! Not here: data files, objectives, schedules.

mod architecture;
mod average;
mod checkpoint;
mod decoder;
pub mod families;
pub mod generate;
mod layout;
mod workspace;

pub use architecture::{Architecture, Attention, NormPlace, Pairing, QkNorm, Rope, RopeScaling};
pub use average::average;
pub use checkpoint::SaveOptions;
pub use decoder::{
    Decoder, Frozen, FrozenParameters, Input, MappedParameters, Part, RoundedParameters, Storage,
};
pub use layout::{Entry, Layout, PartSizes};
pub use remit_fault::Error;
pub use workspace::{Keep, Workspace};
