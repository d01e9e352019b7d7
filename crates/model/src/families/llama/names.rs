//! The parameters of the Llama family, in the order of the flat buffer.

use crate::Architecture;
use crate::families::common;
use crate::layout::{Layout, LayoutBuilder};

/// The parameters of `architecture`.
pub fn layout(architecture: &Architecture) -> Layout {
    let Architecture { vocab_size, width, layers, tied, .. } = *architecture;
    LayoutBuilder::decoder(vocab_size, width, layers, tied, |block| {
        block.ranges.attention_norm = block.gain("input_layernorm", width);
        common::qkv(block, architecture);
        common::attention_output(block, architecture);
        block.ranges.mlp_norm = block.gain("post_attention_layernorm", width);
        common::mlp(block, architecture);
    })
}
