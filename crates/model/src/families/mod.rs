//! The families, one folder each with the same file names: `config` (its `config.json` to [`Architecture`] and back)
//! and `names` (its parameters in order).

mod keys;
pub mod llama;

use crate::{Architecture, Error, Layout};
use keys::Keys;
use serde_json::{Map, Value};
use std::path::Path;

/// A supported family, by Hugging Face's `model_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2, 3, 3.1 and everything that writes `model_type = "llama"`.
    Llama,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 1] = [Family::Llama];

    /// Its `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
        }
    }

    /// The names of all, for messages.
    pub fn list() -> String {
        Family::ALL.map(|family| format!("`{}`", family.name())).join(", ")
    }

    /// The name most like `name`, if any is alike.
    pub fn nearest(name: &str) -> Option<&'static str> {
        Family::ALL.iter().map(|family| family.name()).find(|known| strsim::jaro_winkler(known, name) > 0.8)
    }

    /// The parameters of `architecture`, in order.
    pub fn layout(self, architecture: &Architecture) -> Layout {
        match self {
            Family::Llama => llama::names::layout(architecture),
        }
    }
}

/// Reads `config.json`, already parsed, of any family. `path` is for messages.
pub fn read(source: Map<String, Value>, path: &Path) -> Result<Architecture, Error> {
    let found = Keys::of_any_family(&source, path).text("model_type")?;
    let family = Family::ALL
        .into_iter()
        .find(|family| family.name() == found)
        .ok_or_else(|| Error::UnsupportedFamily { path: path.to_owned(), found: found.to_owned() })?;
    match family {
        Family::Llama => llama::config::read(source, path),
    }
}
