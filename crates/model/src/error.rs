//! What can be wrong with a checkpoint, a configuration or a request.

use crate::families::Family;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written, or tensors in it are damaged.
    #[error(transparent)]
    Store(#[from] remit_store::Error),
    /// The directory has no `config.json`.
    #[error("no `config.json` in `{}`", .directory.display())]
    NoConfig {
        /// The checkpoint directory.
        directory: PathBuf,
    },
    /// `config.json` is not a JSON object.
    #[error("`{}` is not a JSON object: {cause}", .path.display())]
    BadConfig {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        cause: String,
    },
    /// `config.json` lacks a key or has it with another type.
    #[error("`{}`: key `{key}` {problem}", .path.display())]
    ConfigKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A family that is not implemented.
    #[error("model_type `{found}` in `{}` is not supported", .path.display())]
    UnsupportedFamily {
        /// The file.
        path: PathBuf,
        /// Its `model_type`.
        found: String,
    },
    /// A switch that is not implemented.
    #[error("`{}`: `{key}` = {value} is not supported for `{}`", .path.display(), .family.name())]
    UnsupportedSwitch {
        /// The file.
        path: PathBuf,
        /// The family.
        family: Family,
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// A tensor that the architecture needs is not in the checkpoint.
    #[error("tensor `{name}` {shape:?} is missing in `{}`", .directory.display())]
    MissingTensor {
        /// The checkpoint directory.
        directory: PathBuf,
        /// Its name.
        name: String,
        /// The shape it should have.
        shape: Vec<usize>,
    },
    /// A tensor that the architecture does not know.
    #[error("tensor `{name}` {shape:?} in `{}` is not part of a `{}` model", .directory.display(), .family.name())]
    UnknownTensor {
        /// The checkpoint directory.
        directory: PathBuf,
        /// Its name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The family.
        family: Family,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor `{name}` in `{}` has shape {found:?}, the configuration says {expected:?}", .directory.display())]
    WrongShape {
        /// The checkpoint directory.
        directory: PathBuf,
        /// Its name.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shape that follows from `config.json`.
        expected: Vec<usize>,
    },
    /// A token id beyond the vocabulary.
    #[error("token id {id} at position {position} is not in the model's vocabulary of {vocab_size}")]
    TokenId {
        /// The id.
        id: u32,
        /// Where it stands.
        position: usize,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// More positions than the model allows.
    #[error("{length} positions are asked for, the model allows {max_length} (`max_position_embeddings`)")]
    TooLong {
        /// What was asked for.
        length: usize,
        /// What the model allows.
        max_length: usize,
    },
    /// A model whose logits are NaN or infinite.
    #[error("the model's logits behind position {position} are not finite")]
    LogitsNotFinite {
        /// The last position it has read.
        position: usize,
    },
    /// Nothing to continue.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// Something is wrong with one of several requests.
    #[error("request {number} of {count}: {cause}")]
    Request {
        /// Counted from 1.
        number: usize,
        /// How many there are.
        count: usize,
        /// What is wrong.
        cause: Box<Error>,
    },
    /// A setting of sampling out of range.
    #[error("`{key}` = {value} is out of range: {range}")]
    Sampling {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
}

impl Error {
    /// Names the request that it is about, unless that is the only one.
    pub(crate) fn of_request(self, index: usize, count: usize) -> Error {
        if count == 1 {
            return self;
        }
        Error::Request { number: index + 1, count, cause: Box::new(self) }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Store(error) => error.hint(),
            Error::Request { cause, .. } => cause.hint(),
            Error::NoConfig { directory } => Some(if directory.is_dir() {
                "a checkpoint is a directory with `config.json` and `model.safetensors`, as `save_pretrained` writes it".into()
            } else {
                "the directory does not exist".into()
            }),
            Error::UnsupportedFamily { found, .. } => Some(match Family::nearest(found) {
                Some(family) => format!("supported: {}; did you mean `{family}`?", Family::list()),
                None => format!("supported: {}", Family::list()),
            }),
            Error::UnsupportedSwitch { .. } => Some(
                "this program refuses rather than approximate; use a checkpoint without this switch".into(),
            ),
            Error::MissingTensor { .. } | Error::UnknownTensor { .. } | Error::WrongShape { .. } => Some(
                "`config.json` and the safetensors files do not belong together, or a shard is missing"
                    .into(),
            ),
            Error::TokenId { .. } => {
                Some("the text was tokenized with another tokenizer than the model's".into())
            }
            Error::TooLong { .. } => Some("use shorter windows, a shorter prompt or fewer new tokens".into()),
            Error::LogitsNotFinite { .. } => Some(
                "its parameters are damaged, or its training has diverged: use another checkpoint".into(),
            ),
            Error::EmptyPrompt => Some("begin with the end-of-text token to generate from nothing".into()),
            Error::BadConfig { .. } | Error::ConfigKey { .. } | Error::Sampling { .. } => None,
        }
    }
}
