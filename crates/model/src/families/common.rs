//! What the families share: the reading of keys that mean the same in all, the parameters of grouped-query attention and
//! of the MLP by their names, and the `config.json` of fresh models. What differs is each family's own.

use super::Family;
use super::keys::Keys;
use crate::layout::BlockBuilder;
use crate::{Architecture, Attention, Error, NormPlace, QkNorm};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What `transformers` takes where `config.json` is silent; families differ in it.
pub(super) struct Defaults {
    /// `rms_norm_eps`.
    pub norm_epsilon: f64,
    /// `rope_theta`.
    pub rope_theta: f64,
    /// `tie_word_embeddings`.
    pub tied: bool,
    /// `max_position_embeddings`.
    pub max_length: usize,
    /// `num_key_value_heads`; as many as query heads without.
    pub kv_heads: Option<usize>,
    /// `head_dim`; the width over the query heads without.
    pub head_width: Option<usize>,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults {
            norm_epsilon: 1e-6,
            rope_theta: 10000.0,
            tied: false,
            max_length: 2048,
            kv_heads: None,
            head_width: None,
        }
    }
}

/// A decoder with norms in front and grouped-query attention without further norms, from keys that all families have.
pub(super) fn grouped(keys: &Keys, family: Family, defaults: &Defaults) -> Result<Architecture, Error> {
    let (width, heads) = (keys.count("hidden_size")?, keys.count("num_attention_heads")?);
    let default_kv_heads = defaults.kv_heads.filter(|_| !keys.is_null("num_key_value_heads"));
    let kv_heads = keys.count_or("num_key_value_heads", default_kv_heads.unwrap_or(heads))?;
    let head_width = keys.count_or("head_dim", defaults.head_width.unwrap_or(width / heads))?;
    keys.divisible("num_key_value_heads", heads, kv_heads)?;
    keys.divisible("head_dim", head_width, 2)?;
    let attention = Attention::Grouped { kv_heads, head_width, norm: QkNorm::None };
    around(keys, family, attention, defaults)
}

/// More blocks than any model has: names are made for each before the files are looked at.
const LAYERS_MAX: usize = 1 << 14;

/// A decoder with norms in front, around a given attention.
pub(super) fn around(
    keys: &Keys,
    family: Family,
    attention: Attention,
    defaults: &Defaults,
) -> Result<Architecture, Error> {
    refuse_switches(keys)?;
    let max_length = keys.count_or("max_position_embeddings", defaults.max_length)?;
    let initial_deviation = keys.number_or("initializer_range", 0.02)? as f32;
    Ok(Architecture {
        family,
        vocab_size: keys.count("vocab_size")?,
        width: keys.count("hidden_size")?,
        layers: keys.count_up_to("num_hidden_layers", LAYERS_MAX)?,
        heads: keys.count("num_attention_heads")?,
        attention,
        mlp_width: keys.count("intermediate_size")?,
        norms: NormPlace::Before,
        norm_epsilon: keys.number_or("rms_norm_eps", defaults.norm_epsilon)? as f32,
        rope: keys.rope(defaults.rope_theta, max_length)?,
        tied: keys.flag_or("tie_word_embeddings", defaults.tied)?,
        max_length,
        initial_deviation,
        embedding_deviation: initial_deviation,
        end_tokens: keys.tokens("eos_token_id")?,
        source: Map::new(),
        generation: Map::new(),
    })
}

/// Switches that exist, or may come to exist, in more than one family and are implemented in none.
fn refuse_switches(keys: &Keys) -> Result<(), Error> {
    keys.only("hidden_act", &[json!("silu"), json!("swish")])?;
    for key in ["attention_bias", "mlp_bias", "attention_dropout", "residual_dropout"] {
        keys.off(key, &[0.0])?;
    }
    // Attention that looks ahead, or at something else as well.
    keys.only("is_causal", &[json!(true)])?;
    keys.off("add_cross_attention", &[])?;
    // What other families bound or multiply numbers by.
    for key in ["clip_qkv", "attn_logit_softcapping", "final_logit_softcapping"] {
        keys.off(key, &[0.0])?;
    }
    for key in ["embedding_multiplier", "residual_multiplier", "logit_scale", "logits_scaling"] {
        keys.only(key, &[json!(1.0), json!(1)])?;
    }
    for key in ["num_experts", "num_local_experts", "n_routed_experts"] {
        keys.off(key, &[0.0])?;
    }
    keys.only("quantization_config", &[])
}

/// Query, key and value projections side by side, so that one product makes them.
pub(super) fn qkv(block: &mut BlockBuilder, architecture: &Architecture) {
    let keys = architecture.kv_heads() * architecture.qk_width();
    let values = architecture.kv_heads() * architecture.v_width();
    block.ranges.qkv = block.matrices(
        [
            ("self_attn.q_proj", architecture.queries_width()),
            ("self_attn.k_proj", keys),
            ("self_attn.v_proj", values),
        ],
        architecture.width,
    );
}

/// The projection behind attention.
pub(super) fn attention_output(block: &mut BlockBuilder, architecture: &Architecture) {
    let parts = [("self_attn.o_proj", architecture.width)];
    block.ranges.attention_output = block.matrices(parts, architecture.attended_width());
}

/// Gate and up projections side by side, and the projection back.
pub(super) fn mlp(block: &mut BlockBuilder, architecture: &Architecture) {
    let Architecture { width, mlp_width, .. } = *architecture;
    let parts = [("mlp.gate_proj", mlp_width), ("mlp.up_proj", mlp_width)];
    block.ranges.gate_up = block.matrices(parts, width);
    block.ranges.down = block.matrices([("mlp.down_proj", width)], mlp_width);
}

/// The architecture of a fresh model and its `config.json`. `settings` are by the names of that file; vocabulary and end
/// token come from the tokenizer.
pub(super) fn fresh(
    family: Family,
    settings: &impl Serialize,
    vocab_size: usize,
    end_token: Option<u32>,
) -> Result<Architecture, Error> {
    let mut source = json!({
        "architectures": [family.class()],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": end_token,
        "eos_token_id": end_token,
        "hidden_act": "silu",
        "model_type": family.name(),
        "pad_token_id": null,
        "use_cache": true,
        "vocab_size": vocab_size,
    });
    let mut settings = serde_json::to_value(settings).expect("plain numbers are JSON");
    let (Value::Object(source), Value::Object(settings)) = (&mut source, &mut settings) else {
        unreachable!("both are tables");
    };
    source.append(settings);
    // Both ways of writing RoPE: `transformers` 5 reads the table, earlier versions and other tools the plain key.
    let rope = json!({"rope_theta": source["rope_theta"], "rope_type": "default"});
    source.insert("rope_parameters".into(), rope);
    if !source.contains_key("num_key_value_heads") {
        source.insert("num_key_value_heads".into(), source["num_attention_heads"].clone());
    }
    super::read(std::mem::take(source), Path::new("[model]"))
}
