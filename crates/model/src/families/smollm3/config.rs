//! `config.json` of the SmolLM 3 family.

use crate::families::Family;
use crate::families::common::{self, Defaults};
use crate::families::keys::{Keys, Sliding};
use crate::{Architecture, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Shapes of a fresh SmolLM 3 model, by the names of `config.json`.
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
    /// One block in so many leaves queries and keys unturned, the last of each run.
    pub no_rope_layer_interval: usize,
    /// Which blocks turn queries and keys, 1 or 0 each; decided by the interval when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_rope_layers: Option<Vec<u8>>,
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
            no_rope_layer_interval: 4,
            no_rope_layers: None,
            intermediate_size: 688,
            max_position_embeddings: 2048,
            rope_theta: 2000000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            initializer_range: 0.02,
        }
    }
}

impl Settings {
    /// The architecture for a vocabulary and an end-of-text token; both come from the tokenizer.
    pub fn build(&self, vocab_size: usize, end_token: Option<u32>) -> Result<Architecture, Error> {
        // Spelt out: some readers know no default.
        let by_interval = |layer: usize| u8::from(turns(layer, self.no_rope_layer_interval.max(1)));
        let layers = || (0..self.num_hidden_layers).map(by_interval).collect();
        let no_rope_layers = Some(self.no_rope_layers.clone().unwrap_or_else(layers));
        let settings = Settings { no_rope_layers, ..self.clone() };
        common::fresh(Family::SmolLm3, &settings, vocab_size, end_token)
    }
}

/// `config.json` to switches.
pub(in crate::families) fn read(keys: &Keys) -> Result<Architecture, Error> {
    let defaults = Defaults {
        rope_theta: 2000000.0,
        tied: true,
        kv_heads: Some(4),
        max_length: 32768,
        ..Defaults::default()
    };
    let mut architecture = common::grouped(keys, Family::SmolLm3, &defaults)?;
    // Despite its name, 1 in this list means that the block does turn.
    let flag = |value: &Value| match value.as_u64() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => value.as_bool(),
    };
    let interval = keys.count_or("no_rope_layer_interval", 4)?;
    let listed = keys.by_layer("no_rope_layers", architecture.layers, flag)?;
    let turned = listed.unwrap_or_else(|| (0..architecture.layers).map(|i| turns(i, interval)).collect());
    architecture.rope.without = (0..architecture.layers).filter(|&layer| !turned[layer]).collect();
    // Only blocks that do not turn would slide.
    keys.refuse_sliding(Sliding {
        somewhere: !architecture.rope.without.is_empty(),
        by_default: false,
        ..Sliding::everywhere(&architecture)
    })?;
    Ok(architecture)
}

/// Whether a block turns queries and keys where every `interval`-th does not.
fn turns(layer: usize, interval: usize) -> bool {
    !(layer + 1).is_multiple_of(interval)
}
