//! `config.json` of the OLMo 2 family.

use crate::families::Family;
use crate::families::common::{self, Defaults};
use crate::families::keys::{Keys, Sliding};
use crate::{Architecture, Attention, Error, NormPlace, QkNorm};
use serde::{Deserialize, Serialize};

/// Shapes of a fresh OLMo 2 model, by the names of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Model width.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; as many as query heads when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Most positions of a window.
    pub max_position_embeddings: usize,
    /// Base of the rotary wavelengths.
    pub rope_theta: f64,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Whether the head shares the embedding table.
    pub tie_word_embeddings: bool,
    /// Standard deviation of fresh parameters.
    pub initializer_range: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            hidden_size: 256,
            num_hidden_layers: 6,
            num_attention_heads: 4,
            num_key_value_heads: None,
            intermediate_size: 688,
            max_position_embeddings: 2048,
            rope_theta: 10000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
            initializer_range: 0.02,
        }
    }
}

impl Settings {
    /// The architecture for a vocabulary and an end-of-text token; both come from the tokenizer.
    pub fn build(&self, vocab_size: usize, end_token: Option<u32>) -> Result<Architecture, Error> {
        common::fresh(Family::Olmo2, self, vocab_size, end_token)
    }
}

/// `config.json` to switches.
pub(in crate::families) fn read(keys: &Keys) -> Result<Architecture, Error> {
    let defaults = Defaults { norm_epsilon: 1e-5, ..Defaults::default() };
    let mut architecture = common::grouped(keys, Family::Olmo2, &defaults)?;
    keys.refuse_sliding(Sliding::everywhere(&architecture))?;
    architecture.norms = NormPlace::After;
    if let Attention::Grouped { norm, .. } = &mut architecture.attention {
        *norm = QkNorm::Whole;
    }
    Ok(architecture)
}
