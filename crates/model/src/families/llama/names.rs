//! The parameters of the Llama family, in the order of the flat buffer.

use crate::Architecture;
use crate::layout::{Layout, LayoutBuilder};

/// Query, key and value projections stand side by side, as do gate and up, so that one product makes each group.
pub fn layout(architecture: &Architecture) -> Layout {
    let Architecture { vocab_size, width, layers, heads, kv_heads, head_width, mlp_width, tied, .. } =
        *architecture;
    let mut build = LayoutBuilder::default();
    build.embedding("model.embed_tokens.weight", vocab_size, width);
    for layer in 0..layers {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
        build.begin_block();
        build.attention_norm(name("input_layernorm"), width);
        build.qkv(
            [name("self_attn.q_proj"), name("self_attn.k_proj"), name("self_attn.v_proj")],
            [heads * head_width, kv_heads * head_width, kv_heads * head_width],
            width,
        );
        build.attention_output(name("self_attn.o_proj"), width, heads * head_width);
        build.mlp_norm(name("post_attention_layernorm"), width);
        build.gate_up([name("mlp.gate_proj"), name("mlp.up_proj")], mlp_width, width);
        build.down(name("mlp.down_proj"), width, mlp_width);
    }
    build.final_norm("model.norm.weight", width);
    if !tied {
        build.head("lm_head.weight", vocab_size, width);
    }
    build.finish()
}
