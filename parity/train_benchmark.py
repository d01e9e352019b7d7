#!/usr/bin/env python3
"""Training steps of a Llama-like model in PyTorch on the CPU, timed round by round.

Reads commands on standard input, one a line:

    round   run some training steps, print one line of JSON with the median tokens per second
    quit    end (so does the end of the input)

Nothing is built or run before the first `round`; steps to warm up, not timed, come first.
Between rounds the process waits, so that another program can be timed in turn. `benchmark.py` does so.

    echo round | python parity/train_benchmark.py --size S --threads 1 --mode fp32
"""

import argparse
import json
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

SIZES = {
    "S": dict(vocab=4096, hidden=256, heads=4, intermediate=688, layers=6, window=256, batch=8),
    "M": dict(vocab=8192, hidden=512, heads=8, intermediate=1376, layers=8, window=512, batch=4),
    # SmolLM2-135M.
    "135M": dict(
        vocab=49152, hidden=576, heads=9, kv_heads=3, intermediate=1536, layers=30, window=512, batch=4, tied=True
    ),
}
MODES = ("fp32", "bf16", "bf16-compile")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mode", choices=MODES, default="fp32")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a round")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before the first round")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    step = None
    for command in sys.stdin:
        command = command.strip()
        if command == "quit":
            return
        if command != "round":
            sys.exit(f"unknown command `{command}`: `round` or `quit`")
        if step is None:
            step = training_step(SIZES[args.size], args.mode)
            for _ in range(args.warm_up):
                step()
        print(json.dumps(measure(step, args)), flush=True)


def measure(step, args):
    size = SIZES[args.size]
    seconds = []
    for _ in range(args.steps):
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    return {
        "mode": args.mode,
        "size": args.size,
        "threads": args.threads,
        "tokens_per_second": size["batch"] * size["window"] / statistics.median(seconds),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss": loss,
    }


def training_step(size, mode):
    """A function that does one step of AdamW on the same random batch and returns the loss."""
    model = Decoder(size)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, fused=True)
    forward = torch.compile(model) if mode == "bf16-compile" else model
    ids = torch.randint(0, size["vocab"], (size["batch"], size["window"] + 1))

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode.startswith("bf16")):
            loss = forward(ids[:, :-1], ids[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


class Decoder(nn.Module):
    """Llama: RMSNorm, RoPE in halves, SwiGLU; gives the mean loss."""

    def __init__(self, size):
        super().__init__()
        hidden, head_dim = size["hidden"], size["hidden"] // size["heads"]
        self.embed = nn.Embedding(size["vocab"], hidden)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size["layers"]))
        self.norm = nn.RMSNorm(hidden, eps=1e-5)
        self.head = nn.Linear(hidden, size["vocab"], bias=False)
        if size.get("tied"):
            self.head.weight = self.embed.weight
        for parameter in self.parameters():
            if parameter.dim() >= 2:
                nn.init.normal_(parameter, std=0.02)
        frequencies = 10000 ** (-torch.arange(0, head_dim, 2).float() / head_dim)
        angles = torch.outer(torch.arange(size["window"]).float(), frequencies)
        angles = torch.cat((angles, angles), -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, inputs, targets):
        x = self.embed(inputs)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        logits = self.head(self.norm(x)).float()
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1))


class Layer(nn.Module):
    def __init__(self, size):
        super().__init__()
        hidden, intermediate, self.heads = size["hidden"], size["intermediate"], size["heads"]
        kv_heads = size.get("kv_heads", self.heads)
        kv_hidden = hidden // self.heads * kv_heads
        self.kv_heads = kv_heads
        self.attention_norm = nn.RMSNorm(hidden, eps=1e-5)
        self.mlp_norm = nn.RMSNorm(hidden, eps=1e-5)
        self.q, self.o = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(hidden, kv_hidden, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(hidden, intermediate, bias=False) for _ in range(2))
        self.down = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, window, hidden = x.shape

        def split(z, heads):
            return z.view(batch, window, heads, -1).transpose(1, 2)

        y = self.attention_norm(x)
        q, k, v = split(self.q(y), self.heads), split(self.k(y), self.kv_heads), split(self.v(y), self.kv_heads)
        q, k = q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv_heads != self.heads)
        x = x + self.o(y.transpose(1, 2).reshape(batch, window, hidden))
        y = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def rotate_half(x):
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


if __name__ == "__main__":
    main()
