//! The switches of a decoder, whatever family they came from.

use crate::Error;
use crate::families::Family;
use remit_fault::fault;
pub use remit_kernels::rope::Pairing;
use serde_json::{Map, Value};

/// Shapes and switches of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Where the switches came from and how files name the parameters.
    pub family: Family,
    /// Rows of the embedding table, `V`.
    pub vocab_size: usize,
    /// Model width, `D`.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads, `H`.
    pub heads: usize,
    /// How queries, keys and values are made.
    pub attention: Attention,
    /// Width of the MLP, `F`.
    pub mlp_width: usize,
    /// Where the norms of a block stand.
    pub norms: NormPlace,
    /// Added to the mean square in RMSNorm.
    pub norm_epsilon: f32,
    /// Rotary positions.
    pub rope: Rope,
    /// Whether the head shares the embedding table.
    pub tied: bool,
    /// Most positions the model is meant for.
    pub max_length: usize,
    /// Standard deviation of fresh parameters.
    pub initial_deviation: f32,
    /// Standard deviation of a fresh embedding table.
    pub embedding_deviation: f32,
    /// End-of-sequence tokens, where generation stops.
    pub end_tokens: Vec<u32>,
    /// `config.json` as it was read; keys that mean nothing here survive a round trip.
    pub source: Map<String, Value>,
    /// `generation_config.json` as it was read; empty where there is none.
    pub generation: Map<String, Value>,
}

/// How a block makes queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attention {
    /// One product for all three; several query heads may share a key/value head (arXiv 2305.13245).
    Grouped {
        /// Key/value heads, `K`.
        kv_heads: usize,
        /// Width of a head, `E`.
        head_width: usize,
        /// RMSNorm of queries and keys, before they are turned.
        norm: QkNorm,
    },
    /// Multi-head latent attention (arXiv 2405.04434): keys and values are made from a short row.
    Latent {
        /// Width of the row that queries are made from; without it they come straight from the stream.
        query_rank: Option<usize>,
        /// Width of the row that keys and values are made from, `R`.
        rank: usize,
        /// Width of a head's own part of queries and keys, which has no position, `A`.
        own: usize,
        /// Width of the turned part of queries and keys, `P`; all heads share one key.
        turned: usize,
        /// Width of a value head, `B`.
        value: usize,
        /// Added to the mean square in the short rows' RMSNorm.
        norm_epsilon: f32,
    },
}

/// RMSNorm of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// Each head by itself, all with one gain.
    PerHead,
    /// All heads together.
    Whole,
}

/// Where the norms of a block stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlace {
    /// In front of attention and MLP.
    Before,
    /// Behind attention and MLP, before their result joins the stream.
    After,
}

/// Rotary position settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How the series is stretched for long windows.
    pub scaling: RopeScaling,
    /// Which components turn together.
    pub pairing: Pairing,
    /// Blocks that leave queries and keys unturned, by index.
    pub without: Vec<usize>,
}

/// Stretching of rotary wavelengths.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Llama 3.1's: long wavelengths divided by `factor`, short ones kept, a linear blend between.
    Llama3 {
        /// Divisor of the lowest frequencies.
        factor: f64,
        /// Wavelengths beyond `original_length / low_frequency` are stretched in full.
        low_frequency: f64,
        /// Wavelengths below `original_length / high_frequency` are kept.
        high_frequency: f64,
        /// The window the model was first trained with.
        original_length: f64,
    },
}

impl Rope {
    /// Radians a position for each of the `width / 2` pairs.
    pub fn frequencies(&self, width: usize) -> Vec<f32> {
        (0..width / 2)
            .map(|i| {
                // `transformers` rounds the exponent to f32, and the power before it inverts it.
                let exponent = f64::from((2 * i) as f32 / width as f32);
                let frequency = 1.0 / f64::from(self.theta.powf(exponent) as f32);
                self.stretched(frequency) as f32
            })
            .collect()
    }

    fn stretched(&self, frequency: f64) -> f64 {
        match self.scaling {
            RopeScaling::None => frequency,
            RopeScaling::Llama3 { factor, low_frequency, high_frequency, original_length } => {
                let turns = original_length * frequency / std::f64::consts::TAU;
                if turns < low_frequency {
                    frequency / factor
                } else if turns > high_frequency {
                    frequency
                } else {
                    let kept = (turns - low_frequency) / (high_frequency - low_frequency);
                    (1.0 - kept) * frequency / factor + kept * frequency
                }
            }
        }
    }
}

impl Architecture {
    /// Checks that the model allows windows of up to `length` positions.
    pub fn check_length(&self, length: usize) -> Result<(), Error> {
        let max_length = self.max_length;
        if length > max_length {
            return Err(fault!(
                "{length} positions are asked for, the model allows {max_length} (`max_position_embeddings`)"
            )
            .with_hint("use shorter windows, a shorter prompt or fewer new tokens"));
        }
        Ok(())
    }

    /// Checks ids that come from outside.
    pub fn check_ids(&self, ids: &[u32]) -> Result<(), Error> {
        let vocab_size = self.vocab_size;
        match ids.iter().position(|&id| id as usize >= vocab_size) {
            Some(position) => Err(fault!(
                "token id {} at position {position} is not in the model's vocabulary of {vocab_size}",
                ids[position]
            )
            .with_hint("the text was tokenized with another tokenizer than the model's")),
            None => Ok(()),
        }
    }

    /// Width of a query or key head.
    pub fn qk_width(&self) -> usize {
        match self.attention {
            Attention::Grouped { head_width, .. } => head_width,
            Attention::Latent { own, turned, .. } => own + turned,
        }
    }

    /// Width of a value head.
    pub fn v_width(&self) -> usize {
        match self.attention {
            Attention::Grouped { head_width, .. } => head_width,
            Attention::Latent { value, .. } => value,
        }
    }

    /// Key/value heads as attention sees them.
    pub fn kv_heads(&self) -> usize {
        match self.attention {
            Attention::Grouped { kv_heads, .. } => kv_heads,
            Attention::Latent { .. } => self.heads,
        }
    }

    /// Width of what is turned in a head.
    pub fn rope_width(&self) -> usize {
        match self.attention {
            Attention::Grouped { head_width, .. } => head_width,
            Attention::Latent { turned, .. } => turned,
        }
    }

    /// What attention scores are multiplied with.
    pub fn attention_scale(&self) -> f32 {
        (1.0 / (self.qk_width() as f64).sqrt()) as f32
    }

    /// Columns of all query heads.
    pub fn queries_width(&self) -> usize {
        self.heads * self.qk_width()
    }

    /// Columns of the matrix of queries, keys and values that attention reads.
    pub fn qkv_width(&self) -> usize {
        self.queries_width() + self.kv_heads() * (self.qk_width() + self.v_width())
    }

    /// Columns of what attention gives.
    pub fn attended_width(&self) -> usize {
        self.heads * self.v_width()
    }

    /// Columns of the product that latent attention begins with: the row for queries (or the queries themselves), the
    /// row for keys and values, the turned key. 0 for other attention.
    pub fn latent_width(&self) -> usize {
        match self.attention {
            Attention::Grouped { .. } => 0,
            Attention::Latent { query_rank, rank, turned, .. } => {
                query_rank.unwrap_or(self.queries_width()) + rank + turned
            }
        }
    }

    /// Numbers a position and block that generation keeps: keys and values, or the short row they are made from.
    pub fn cache_width(&self) -> usize {
        match self.attention {
            Attention::Grouped { .. } => self.qkv_width() - self.queries_width(),
            Attention::Latent { rank, turned, .. } => rank + turned,
        }
    }

    /// Number of parameters.
    pub fn num_parameters(&self) -> u64 {
        self.family.layout(self).len() as u64
    }

    /// Whether a block turns its queries and keys.
    pub fn turns(&self, layer: usize) -> bool {
        !self.rope.without.contains(&layer)
    }

    /// Floating-point operations of one training step's forward and backward passes over a window of `length`
    /// positions, a prediction: six a parameter in a product, and attention's own.
    pub fn training_flops(&self, length: usize) -> f64 {
        // Four products as wide as a query head and three as wide as a value head, over half the window on average.
        let widths = (4 * self.qk_width() + 3 * self.v_width()) as f64;
        let attention = (self.layers * self.heads) as f64 * length as f64 * widths;
        6.0 * self.parameters_in_products() + attention
    }

    /// Parameters that every position is multiplied with: all but norms and, where it is not also the head, the
    /// embedding table. Not in whole numbers, for it must not overflow before sizes are known to make sense.
    pub(crate) fn parameters_in_products(&self) -> f64 {
        let of = |rows: usize, columns: usize| rows as f64 * columns as f64;
        let projections = match self.attention {
            Attention::Grouped { .. } => of(self.width, self.qkv_width()),
            Attention::Latent { query_rank, rank, own, value, .. } => {
                of(self.width, self.latent_width())
                    + of(query_rank.unwrap_or(0), self.queries_width())
                    + of(rank, self.heads * (own + value))
            }
        };
        let mlp = 3.0 * of(self.width, self.mlp_width);
        let block = projections + of(self.attended_width(), self.width) + mlp;
        self.layers as f64 * block + of(self.width, self.vocab_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(theta: f64, scaling: RopeScaling) -> Rope {
        Rope { theta, scaling, pairing: Pairing::Halves, without: Vec::new() }
    }

    #[test]
    fn plain_frequencies_are_the_geometric_series() {
        assert_eq!(rope(10000.0, RopeScaling::None).frequencies(4), [1.0, 0.01]);
    }

    #[test]
    fn llama3_stretches_long_waves_only() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency: 1.0,
            high_frequency: 4.0,
            original_length: 8192.0,
        };
        let plain = rope(500000.0, RopeScaling::None).frequencies(128);
        let stretched = rope(500000.0, scaling).frequencies(128);
        assert_eq!(plain[0], stretched[0]);
        assert!((plain[63] / stretched[63] - 8.0).abs() < 1e-5);
        for (plain, stretched) in plain.iter().zip(&stretched) {
            let ratio = plain / stretched;
            assert!((1.0..=8.00001).contains(&ratio), "between kept and stretched: {ratio}");
        }
    }
}
