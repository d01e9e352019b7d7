//! The parameters of the Youtu-LLM family, in the order of the flat buffer.

use crate::families::common;
use crate::layout::{Layout, LayoutBuilder};
use crate::{Architecture, Attention};

/// The parameters of `architecture`.
///
/// The projections to the short rows (or to the queries themselves, where they have none) stand side by side.
pub fn layout(architecture: &Architecture) -> Layout {
    let Attention::Latent { query_rank, rank, own, turned, value, .. } = architecture.attention else {
        unreachable!("the family has no other attention");
    };
    let (heads, queries) = (architecture.heads, architecture.queries_width());
    let Architecture { vocab_size, width, layers, tied, .. } = *architecture;
    LayoutBuilder::decoder(vocab_size, width, layers, tied, |block| {
        block.ranges.attention_norm = block.gain("input_layernorm", width);
        let reduced = ("self_attn.kv_a_proj_with_mqa", rank + turned);
        match query_rank {
            Some(query_rank) => {
                block.ranges.qkv = block.matrices([("self_attn.q_a_proj", query_rank), reduced], width);
                block.ranges.query_norm = block.gain("self_attn.q_a_layernorm", query_rank);
                block.ranges.query_up = block.matrices([("self_attn.q_b_proj", queries)], query_rank);
            }
            None => {
                block.ranges.qkv = block.matrices([("self_attn.q_proj", queries), reduced], width);
            }
        }
        block.ranges.key_norm = block.gain("self_attn.kv_a_layernorm", rank);
        block.ranges.kv_up = block.matrices([("self_attn.kv_b_proj", heads * (own + value))], rank);
        common::attention_output(block, architecture);
        block.ranges.mlp_norm = block.gain("post_attention_layernorm", width);
        common::mlp(block, architecture);
    })
}
