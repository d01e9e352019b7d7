//! The parameters of the Qwen 3 family, in the order of the flat buffer.

use crate::Architecture;
use crate::families::common;
use crate::layout::{Layout, LayoutBuilder};

/// The parameters of `architecture`.
pub fn layout(architecture: &Architecture) -> Layout {
    let Architecture { vocab_size, width, layers, tied, .. } = *architecture;
    LayoutBuilder::decoder(vocab_size, width, layers, tied, |block| {
        block.ranges.attention_norm = block.gain("input_layernorm", width);
        common::qkv(block, architecture);
        block.ranges.query_norm = block.gain("self_attn.q_norm", architecture.qk_width());
        block.ranges.key_norm = block.gain("self_attn.k_norm", architecture.qk_width());
        common::attention_output(block, architecture);
        block.ranges.mlp_norm = block.gain("post_attention_layernorm", width);
        common::mlp(block, architecture);
    })
}
