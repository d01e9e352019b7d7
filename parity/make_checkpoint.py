#!/usr/bin/env python3
"""Writes a checkpoint with random parameters, as `transformers` saves it, of a family and shape to choose.

For trying a program on other checkpoints than the golden ones: grouped queries, heads of any width, tied embeddings,
RoPE scaling, blocks without RoPE, latent attention, bfloat16, shards. Two runs that differ in `--seed` give a learner
and a reference.

    python parity/make_checkpoint.py learner --family llama3 --tied --dtype bfloat16 --max-shard-size 50KB
    python parity/make_checkpoint.py learner --family youtu --heads 5 --hidden 40 --q-rank 0 --half-split
"""

import argparse
import json

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

FAMILIES = ("llama", "llama3", "olmo2", "smollm3", "youtu", "qwen3")
THETAS = {"llama3": 500000.0, "smollm3": 2000000.0, "qwen3": 1000000.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", help="the directory to write")
    parser.add_argument("--family", choices=FAMILIES, default="llama", help="llama3 is llama with scaled RoPE")
    parser.add_argument("--vocab", type=int, default=160)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--intermediate", type=int, default=80)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=2, help="youtu has as many as heads")
    parser.add_argument("--head-dim", type=int, help="default: hidden over heads; youtu has its own widths")
    parser.add_argument("--max-positions", type=int, default=128)
    parser.add_argument("--scaled-rope", action="store_true", help="llama3's RoPE scaling in any family")
    parser.add_argument("--original-positions", type=int, default=32, help="of llama3's scaling")
    parser.add_argument("--rope-theta", type=float, help="default: what the family is published with")
    parser.add_argument("--norm-epsilon", type=float, default=1e-5)
    parser.add_argument("--tied", action="store_true", help="the embedding is also the head")
    parser.add_argument("--no-rope-layers", type=json.loads, metavar="LIST", help="smollm3: such as [1,0,1]; 0 has none")
    parser.add_argument("--q-rank", type=int, default=24, help="youtu: 0 for queries straight from the stream")
    parser.add_argument("--kv-rank", type=int, default=16, help="youtu")
    parser.add_argument("--nope-dim", type=int, default=8, help="youtu")
    parser.add_argument("--rope-dim", type=int, default=4, help="youtu")
    parser.add_argument("--v-dim", type=int, default=8, help="youtu")
    parser.add_argument("--half-split", action="store_true", help="youtu: RoPE pairs half a head apart")
    parser.add_argument("--std", type=float, default=0.15, help="of the parameters; wide, so that predictions differ")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--max-shard-size", default="5GB", help="such as 50KB, to get several files")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.disable_progress_bar()

    torch.manual_seed(args.seed)
    model = AutoModelForCausalLM.from_config(config(args))
    randomise(model, args.std)
    model.to(getattr(torch, args.dtype)).save_pretrained(args.out, max_shard_size=args.max_shard_size)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.out}: {model.config.model_type}, {count} parameters, {args.dtype}")


def config(args):
    family = "llama" if args.family == "llama3" else args.family
    rope = {"rope_type": "default", "rope_theta": args.rope_theta or THETAS.get(args.family, 10000.0)}
    if args.scaled_rope or args.family == "llama3":
        rope |= {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": args.original_positions,
        }
    own = {"num_key_value_heads": args.kv_heads}
    if family != "youtu":
        own["head_dim"] = args.head_dim or args.hidden // args.heads
    if family == "smollm3" and args.no_rope_layers:
        own["no_rope_layers"] = args.no_rope_layers
    if family == "youtu":
        own = {
            "num_key_value_heads": args.heads,
            "q_lora_rank": args.q_rank or None,
            "kv_lora_rank": args.kv_rank,
            "qk_nope_head_dim": args.nope_dim,
            "qk_rope_head_dim": args.rope_dim,
            "v_head_dim": args.v_dim,
            "rope_interleave": not args.half_split,
        }
    return AutoConfig.for_model(
        family,
        vocab_size=args.vocab,
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        max_position_embeddings=args.max_positions,
        rms_norm_eps=args.norm_epsilon,
        tie_word_embeddings=args.tied,
        rope_parameters=rope,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **own,
    )


@torch.no_grad()
def randomise(model, std):
    """Every parameter is random, the norms around one, so that none can be left out unnoticed."""
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            parameter.normal_(std=std)
        else:
            parameter.normal_(mean=1.0, std=0.2)


if __name__ == "__main__":
    main()
