#!/usr/bin/env python3
"""`generate` of `transformers` on the CPU, timed round by round: its side of `benchmark.py --task generate`.

Reads commands on standard input, one a line:

    round   continue a batch of prompts, print one line of JSON with the new tokens a second
    quit    end (so does the end of the input)

Nothing is built or run before the first `round`; a few tokens to warm up, not timed, come first. The models are those
of remit's `generate_benchmark` example: Llama with random parameters and no end token, or a checkpoint. Tokens are
sampled at temperature 1 with nothing cut off, prompts are of one length, which spares `transformers` the padding.

    echo round | python parity/generate_benchmark.py --size S --batch 64 --threads 1
"""

import argparse
import json
import resource
import sys
import time

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

SIZES = {
    "S": dict(vocab_size=4096, hidden_size=256, num_attention_heads=4, intermediate_size=688, num_hidden_layers=6),
    "M": dict(vocab_size=8192, hidden_size=512, num_attention_heads=8, intermediate_size=1376, num_hidden_layers=8),
}
PROMPT = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--size", choices=SIZES, default="S")
    model.add_argument("--model", help="a checkpoint directory instead")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = None
    for command in sys.stdin:
        command = command.strip()
        if command == "quit":
            return
        if command != "round":
            sys.exit(f"unknown command `{command}`: `round` or `quit`")
        if model is None:
            model = build(args)
            continue_prompts(model, args.batch, 4)
        start = time.perf_counter()
        tokens = continue_prompts(model, args.batch, args.new_tokens)
        seconds = time.perf_counter() - start
        answer = {"batch": args.batch, "threads": args.threads, "tokens": tokens, "tokens_per_second": tokens / seconds}
        answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer), flush=True)


def build(args):
    dtype = getattr(torch, args.dtype)
    if args.model:
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).eval()
        model.generation_config.eos_token_id = None
        return model
    config = LlamaConfig(**SIZES[args.size], tie_word_embeddings=False, bos_token_id=None, eos_token_id=None)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


@torch.inference_mode()
def continue_prompts(model, batch, new_tokens):
    """New tokens of a batch of prompts."""
    prompts = torch.randint(0, model.config.vocab_size, (batch, PROMPT))
    ids = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=new_tokens,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=0,
    )
    return (ids.shape[1] - PROMPT) * batch


if __name__ == "__main__":
    main()
