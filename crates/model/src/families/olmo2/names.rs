//! The parameters of the OLMo 2 family, in the order of the flat buffer.

use crate::Architecture;
use crate::families::common;
use crate::layout::{Layout, LayoutBuilder};

/// The parameters of `architecture`.
pub fn layout(architecture: &Architecture) -> Layout {
    let Architecture { vocab_size, width, layers, tied, .. } = *architecture;
    LayoutBuilder::decoder(vocab_size, width, layers, tied, |block| {
        common::qkv(block, architecture);
        let keys = architecture.kv_heads() * architecture.qk_width();
        block.ranges.query_norm = block.gain("self_attn.q_norm", architecture.queries_width());
        block.ranges.key_norm = block.gain("self_attn.k_norm", keys);
        common::attention_output(block, architecture);
        block.ranges.attention_norm = block.gain("post_attention_layernorm", width);
        common::mlp(block, architecture);
        block.ranges.mlp_norm = block.gain("post_feedforward_layernorm", width);
    })
}
