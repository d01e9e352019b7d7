//! The switches of a decoder, whatever family they came from.

use crate::families::Family;
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
    /// Key/value heads, `K`.
    pub kv_heads: usize,
    /// Width of a head, `E`.
    pub head_width: usize,
    /// Width of the MLP, `F`.
    pub mlp_width: usize,
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
    /// End-of-sequence tokens, where generation stops.
    pub end_tokens: Vec<u32>,
    /// `config.json` as it was read; keys that mean nothing here survive a round trip.
    pub source: Map<String, Value>,
}

/// Rotary position settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How the series is stretched for long windows.
    pub scaling: RopeScaling,
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
    /// Radians a position for each of the `head_width / 2` pairs.
    pub fn frequencies(&self, head_width: usize) -> Vec<f32> {
        (0..head_width / 2)
            .map(|i| {
                // `transformers` rounds the power to f32 before it inverts it.
                let frequency = 1.0 / f64::from(self.theta.powf((2 * i) as f64 / head_width as f64) as f32);
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
    /// What attention scores are multiplied with.
    pub fn attention_scale(&self) -> f32 {
        (1.0 / (self.head_width as f64).sqrt()) as f32
    }

    /// Columns of the matrix of queries, keys and values.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_width
    }

    /// Floating-point operations of one training step's forward and backward passes over a window of `length`
    /// positions, a prediction: six a parameter in a product, and attention's own.
    pub fn training_flops(&self, length: usize) -> f64 {
        let products = self.layers
            * (self.width * (self.qkv_width() + self.heads * self.head_width)
                + 3 * self.width * self.mlp_width)
            + self.width * self.vocab_size;
        let attention = self.layers * self.heads * self.head_width * length * 2 * 7 / 2;
        6.0 * products as f64 + attention as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_frequencies_are_the_geometric_series() {
        let rope = Rope { theta: 10000.0, scaling: RopeScaling::None };
        assert_eq!(rope.frequencies(4), [1.0, 0.01]);
    }

    #[test]
    fn llama3_stretches_long_waves_only() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency: 1.0,
            high_frequency: 4.0,
            original_length: 8192.0,
        };
        let plain = Rope { theta: 500000.0, scaling: RopeScaling::None }.frequencies(128);
        let stretched = Rope { theta: 500000.0, scaling }.frequencies(128);
        assert_eq!(plain[0], stretched[0]);
        assert!((plain[63] / stretched[63] - 8.0).abs() < 1e-5);
        for (plain, stretched) in plain.iter().zip(&stretched) {
            let ratio = plain / stretched;
            assert!((1.0..=8.00001).contains(&ratio), "between kept and stretched: {ratio}");
        }
    }
}
