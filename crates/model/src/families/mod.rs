//! The families, one folder each with the same file names: `config` (its `config.json` to [`Architecture`] and back)
//! and `names` (its parameters in order). `docs/adding-a-family.md` says how to add one.

mod common;
mod keys;
pub mod llama;
pub mod olmo2;
pub mod qwen3;
pub mod smollm3;
pub mod youtu;

use crate::{Architecture, Error, Layout};
use keys::Keys;
use remit_fault::fault;
use serde_json::{Map, Value};
use std::path::Path;

/// A supported family, by Hugging Face's `model_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2, 3, 3.1 and everything that writes `model_type = "llama"`.
    Llama,
    /// OLMo 2.
    Olmo2,
    /// SmolLM 3.
    SmolLm3,
    /// Youtu-LLM.
    Youtu,
    /// Qwen 3, dense.
    Qwen3,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 5] =
        [Family::Llama, Family::Olmo2, Family::SmolLm3, Family::Youtu, Family::Qwen3];

    /// Its `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Olmo2 => "olmo2",
            Family::SmolLm3 => "smollm3",
            Family::Youtu => "youtu",
            Family::Qwen3 => "qwen3",
        }
    }

    /// The class of `transformers` that opens it.
    pub fn class(self) -> &'static str {
        match self {
            Family::Llama => "LlamaForCausalLM",
            Family::Olmo2 => "Olmo2ForCausalLM",
            Family::SmolLm3 => "SmolLM3ForCausalLM",
            Family::Youtu => "YoutuForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// The names of all, for messages.
    pub fn list() -> String {
        Family::ALL.map(|family| format!("`{}`", family.name())).join(", ")
    }

    /// The name most like `name`, if any is alike.
    pub fn nearest(name: &str) -> Option<&'static str> {
        let likeness = |known: &str| strsim::jaro_winkler(known, name);
        let names = Family::ALL.iter().map(|family| family.name());
        names.filter(|known| likeness(known) > 0.8).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
    }

    /// The parameters of `architecture`, in order.
    pub fn layout(self, architecture: &Architecture) -> Layout {
        match self {
            Family::Llama => llama::names::layout(architecture),
            Family::Olmo2 => olmo2::names::layout(architecture),
            Family::SmolLm3 => smollm3::names::layout(architecture),
            Family::Youtu => youtu::names::layout(architecture),
            Family::Qwen3 => qwen3::names::layout(architecture),
        }
    }

    fn read(self, keys: &Keys) -> Result<Architecture, Error> {
        match self {
            Family::Llama => llama::config::read(keys),
            Family::Olmo2 => olmo2::config::read(keys),
            Family::SmolLm3 => smollm3::config::read(keys),
            Family::Youtu => youtu::config::read(keys),
            Family::Qwen3 => qwen3::config::read(keys),
        }
    }
}

/// Reads `config.json`, already parsed, of any family. `path` is for messages.
pub fn read(source: Map<String, Value>, path: &Path) -> Result<Architecture, Error> {
    let found = Keys::of_any_family(&source, path).text("model_type")?;
    let family = Family::ALL.into_iter().find(|family| family.name() == found);
    let family = family.ok_or_else(|| {
        let question = Family::nearest(found).map(|near| format!("; did you mean `{near}`?"));
        fault!("model_type `{found}` in `{}` is not supported", path.display()).with_hint(format!(
            "supported: {}{}",
            Family::list(),
            question.unwrap_or_default()
        ))
    })?;
    let keys = Keys::new(&source, path, family);
    let architecture = family.read(&keys)?;
    let parameters = architecture.parameters_in_products();
    if parameters > PARAMETERS_MAX {
        return Err(
            keys.wrong("hidden_size", format!("and the other sizes lead to {parameters:.1e} parameters"))
        );
    }
    Ok(Architecture { source, ..architecture })
}

/// More than can be counted, let alone held, on any machine this program runs on.
const PARAMETERS_MAX: f64 = 1e13;

/// Takes the end tokens of `generation_config.json`, where it has any: they are what generation stops at in
/// `transformers`. `path` is for messages.
pub(crate) fn read_end_tokens(architecture: &mut Architecture, path: &Path) -> Result<(), Error> {
    let tokens = Keys::new(&architecture.generation, path, architecture.family).tokens("eos_token_id")?;
    if !tokens.is_empty() {
        architecture.end_tokens = tokens;
    }
    Ok(())
}
