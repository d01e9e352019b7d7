//! `config.json` of the Youtu-LLM family.

use crate::families::Family;
use crate::families::common::{self, Defaults};
use crate::families::keys::{Keys, Sliding};
use crate::{Architecture, Attention, Error, Pairing};
use serde::{Deserialize, Serialize};

/// Shapes of a fresh Youtu-LLM model, by the names of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Model width.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Width of the row that queries are made from; without it they come straight from the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q_lora_rank: Option<usize>,
    /// Width of the row that keys and values are made from.
    pub kv_lora_rank: usize,
    /// Width of a head's own part of queries and keys, which has no position.
    pub qk_nope_head_dim: usize,
    /// Width of the turned part of queries and keys.
    pub qk_rope_head_dim: usize,
    /// Width of a value head.
    pub v_head_dim: usize,
    /// Whether neighbouring components turn together, or components half a head apart.
    pub rope_interleave: bool,
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
            q_lora_rank: None,
            kv_lora_rank: 64,
            qk_nope_head_dim: 32,
            qk_rope_head_dim: 32,
            v_head_dim: 64,
            rope_interleave: true,
            intermediate_size: 688,
            max_position_embeddings: 2048,
            rope_theta: 10000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            initializer_range: 0.02,
        }
    }
}

impl Settings {
    /// The architecture for a vocabulary and an end-of-text token; both come from the tokenizer.
    pub fn build(&self, vocab_size: usize, end_token: Option<u32>) -> Result<Architecture, Error> {
        common::fresh(
            Family::Youtu,
            &Explicit { settings: self, q_lora_rank: self.q_lora_rank },
            vocab_size,
            end_token,
        )
    }
}

/// `config.json` to switches.
pub(in crate::families) fn read(keys: &Keys) -> Result<Architecture, Error> {
    let heads = keys.count("num_attention_heads")?;
    let default_query_rank = (!keys.is_null("q_lora_rank")).then_some(1536);
    let attention = Attention::Latent {
        query_rank: match default_query_rank {
            Some(rank) => Some(keys.count_or("q_lora_rank", rank)?),
            None => None,
        },
        rank: keys.count_or("kv_lora_rank", 512)?,
        own: keys.count_or("qk_nope_head_dim", 128)?,
        turned: keys.count_or("qk_rope_head_dim", 64)?,
        value: keys.count_or("v_head_dim", 128)?,
        norm_epsilon: LATENT_NORM_EPSILON,
    };
    let defaults = Defaults { tied: true, max_length: 131072, ..Defaults::default() };
    let mut architecture = common::around(keys, Family::Youtu, attention, &defaults)?;
    keys.divisible("qk_rope_head_dim", architecture.rope_width(), 2)?;
    // Keys and values are made for every head: there are no groups to share them.
    let kv_heads = keys.count_or("num_key_value_heads", heads)?;
    if kv_heads != heads {
        return Err(keys.unsupported("num_key_value_heads", &kv_heads.into()));
    }
    keys.refuse_sliding(Sliding::everywhere(&architecture))?;
    // `null` is no, absence is yes.
    let interleave = keys.flag_or("rope_interleave", !keys.is_null("rope_interleave"))?;
    architecture.rope.pairing = if interleave { Pairing::Neighbours } else { Pairing::Halves };
    let deviation = keys.number_or("initializer_range", 2.0 / (5.0 * architecture.width as f64).sqrt())?;
    architecture.initial_deviation = deviation as f32;
    architecture.embedding_deviation = keys.number_or("embedding_initializer_range", 2.0 * deviation)? as f32;
    Ok(architecture)
}

/// Added to the mean square in the norms of the short rows: `transformers` leaves it at its class's default, whatever
/// `rms_norm_eps` says.
const LATENT_NORM_EPSILON: f32 = 1e-6;

/// Settings whose absent `q_lora_rank` is written as `null`, since readers take its absence for 1536.
#[derive(Serialize)]
struct Explicit<'a> {
    #[serde(flatten)]
    settings: &'a Settings,
    q_lora_rank: Option<usize>,
}
