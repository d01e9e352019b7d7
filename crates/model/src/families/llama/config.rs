//! `config.json` of the Llama family.

use crate::families::Family;
use crate::families::keys::Keys;
use crate::{Architecture, Error, Rope, RopeScaling};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Shapes of a fresh Llama model, by the names of `config.json`.
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
    /// Width of a head; `hidden_size / num_attention_heads` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
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
            head_dim: None,
            intermediate_size: 688,
            max_position_embeddings: 2048,
            rope_theta: 10000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
            initializer_range: 0.02,
        }
    }
}

impl Settings {
    /// The architecture for a vocabulary and an end-of-text token; both come from the tokenizer.
    pub fn build(&self, vocab_size: usize, end_token: Option<u32>) -> Result<Architecture, Error> {
        let Settings {
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            intermediate_size,
            max_position_embeddings,
            rope_theta,
            rms_norm_eps,
            tie_word_embeddings,
            initializer_range,
        } = *self;
        // Both ways of writing RoPE: `transformers` 5 reads the table, earlier versions and other tools the plain key.
        let source = json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": end_token,
            "eos_token_id": end_token,
            "head_dim": head_dim.unwrap_or(hidden_size / num_attention_heads.max(1)),
            "hidden_act": "silu",
            "hidden_size": hidden_size,
            "initializer_range": initializer_range,
            "intermediate_size": intermediate_size,
            "max_position_embeddings": max_position_embeddings,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": num_attention_heads,
            "num_hidden_layers": num_hidden_layers,
            "num_key_value_heads": num_key_value_heads.unwrap_or(num_attention_heads),
            "rms_norm_eps": rms_norm_eps,
            "rope_parameters": {"rope_theta": rope_theta, "rope_type": "default"},
            "rope_theta": rope_theta,
            "tie_word_embeddings": tie_word_embeddings,
            "use_cache": true,
            "vocab_size": vocab_size,
        });
        let Value::Object(source) = source else { unreachable!("the literal above is an object") };
        read(source, Path::new("[model]"))
    }
}

/// `config.json` to switches.
pub fn read(source: Map<String, Value>, path: &Path) -> Result<Architecture, Error> {
    let keys = Keys::new(&source, path, Family::Llama);
    keys.only("hidden_act", &[json!("silu"), json!("swish")])?;
    keys.only("attention_bias", &[json!(false)])?;
    keys.only("mlp_bias", &[json!(false)])?;
    keys.only("pretraining_tp", &[json!(1)])?;
    keys.only("quantization_config", &[])?;
    let (width, heads) = (keys.count("hidden_size")?, keys.count("num_attention_heads")?);
    let kv_heads = keys.count_or("num_key_value_heads", heads)?;
    let head_width = keys.count_or("head_dim", width / heads)?;
    let divides = |key: &str, value: usize, divisor: usize| {
        if value > 0 && value.is_multiple_of(divisor) {
            return Ok(());
        }
        let problem = format!("leads to {value}, which {divisor} must divide");
        Err(Error::ConfigKey { path: path.to_owned(), key: key.to_owned(), problem })
    };
    divides("num_key_value_heads", heads, kv_heads)?;
    divides("head_dim", head_width, 2)?;
    let rope = keys.rope()?;
    check_rope(&rope, path)?;
    Ok(Architecture {
        family: Family::Llama,
        vocab_size: keys.count("vocab_size")?,
        width,
        layers: keys.count("num_hidden_layers")?,
        heads,
        kv_heads,
        head_width,
        mlp_width: keys.count("intermediate_size")?,
        norm_epsilon: keys.number_or("rms_norm_eps", 1e-6)? as f32,
        rope,
        tied: keys.flag_or("tie_word_embeddings", false)?,
        max_length: keys.count_or("max_position_embeddings", 2048)?,
        initial_deviation: keys.number_or("initializer_range", 0.02)? as f32,
        end_tokens: keys.tokens("eos_token_id")?,
        source,
    })
}

fn check_rope(rope: &Rope, path: &Path) -> Result<(), Error> {
    let positive = match rope.scaling {
        RopeScaling::None => rope.theta > 0.0,
        RopeScaling::Llama3 { factor, low_frequency, high_frequency, original_length } => {
            rope.theta > 0.0 && factor > 0.0 && original_length > 0.0 && high_frequency > low_frequency
        }
    };
    if positive {
        return Ok(());
    }
    let problem = "holds numbers that give no frequencies".to_owned();
    Err(Error::ConfigKey { path: path.to_owned(), key: "rope_parameters".to_owned(), problem })
}
