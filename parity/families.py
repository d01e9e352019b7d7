#!/usr/bin/env python3
"""Every family at several shapes against `transformers`: checkpoints that it saved, what remit writes of them, and
fresh models of remit's own.

For each shape: two random checkpoints (`make_checkpoint.py`), compared as learner and reference
(`open_checkpoint.py`); then remit trains one step at a vanishing learning rate from the learner and saves it sharded in bfloat16
or float32, and the result must hold the same bytes and give the same numbers. For each family: a fresh model after two
steps. Prints a Markdown table of the largest differences and ends with status 1 where one is too large.

    python parity/families.py --remit target/release/remit
"""

import argparse
import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import make_checkpoint
import numpy as np
import open_checkpoint
from safetensors import safe_open

ODD = ["--heads", "5", "--hidden", "40", "--kv-heads", "1", "--layers", "5", "--vocab", "203"]
SMALL = ["--dtype", "bfloat16", "--max-shard-size", "60KB"]
SHAPES = {
    "llama": [("untied, 4 heads on 2", []), ("tied, 5 heads of 12 on 1, scaled RoPE", [*ODD, "--head-dim", "12", "--tied", "--scaled-rope"])],
    "olmo2": [("untied, 4 heads on 4", ["--kv-heads", "4"]), ("tied, 5 heads on 1", [*ODD, "--tied"])],
    "smollm3": [("tied, 4 heads on 2, every 4th unturned", ["--tied", "--layers", "5"]), ("untied, 5 heads on 1, a list", [*ODD, "--no-rope-layers", "[0,1,0,0,1]"])],
    "youtu": [
        ("tied, rank 24", ["--tied"]),
        ("untied, 5 heads, queries from the stream", [*ODD, "--q-rank", "0", "--kv-rank", "11", "--nope-dim", "6", "--v-dim", "10"]),
        ("tied, half-split RoPE, scaled", [*ODD, "--tied", "--half-split", "--scaled-rope", "--rope-dim", "8", "--v-dim", "3"]),
    ],
    "qwen3": [("tied, heads of 16", ["--tied", "--head-dim", "16"]), ("untied, 6 heads of 10 on 2", [*ODD, "--heads", "6", "--kv-heads", "2", "--head-dim", "10"])],
}
MODELS = {
    "llama": {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 6},
    "olmo2": {"num_attention_heads": 5, "num_key_value_heads": 1},
    "smollm3": {"num_attention_heads": 5, "num_key_value_heads": 1, "no_rope_layer_interval": 2},
    "youtu": {"num_attention_heads": 5, "kv_lora_rank": 11, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 7},
    "qwen3": {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10},
}
QUANTITIES = ("logp_learner", "logp_reference", "delta", "weights", "ntp_loss", "remit_loss")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--remit", metavar="PATH", default="target/release/remit")
    parser.add_argument("--tolerance", default="1e-4")
    parser.add_argument("--families", nargs="+", choices=SHAPES, default=list(SHAPES))
    args = parser.parse_args()
    print("| family | checkpoint | log-probabilities | weights | losses | greedy |")
    print("|---|---|---:|---:|---:|---|")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for family in args.families:
            failed |= not check(args, family, Path(folder) / family)
    sys.exit(failed)


def check(args, family, folder):
    good = True
    for index, (words, shape) in enumerate(SHAPES[family]):
        home = folder / str(index)
        stored = SMALL if index % 2 else []
        for seed, role in ((1, "learner"), (2, "reference")):
            script(make_checkpoint, home / role, "--family", family, *shape, *stored, "--seed", seed)
        words += ", bfloat16 shards" if index % 2 else ", float32"
        good &= row(args, family, f"saved by `transformers`: {words}", home / "learner", home / "reference")
        rewritten = train(args, home, ["--pretrain.from", home / "learner", "--pretrain.optimizer.learning_rate=1e-30",
                                       "--pretrain.steps=1", *dtype(index)], vocab(home / "learner"))
        equal = tensors(rewritten) == tensors(home / "learner")
        good &= equal
        words = f"the same, written by remit, {'every byte equal' if equal else '**BYTES DIFFER**'}"
        good &= row(args, family, words, rewritten, home / "reference")
    shared = {"kind": family, "hidden_size": 40, "num_hidden_layers": 5, "intermediate_size": 60, "initializer_range": 0.2}
    model = [f"--pretrain.model.{key}={json.dumps(value)}" for key, value in (shared | MODELS[family]).items()]
    fresh = train(args, folder / "fresh", [*model, "--pretrain.optimizer.learning_rate=0.01", "--pretrain.steps=2",
                                           *dtype(1)], 203)
    return row(args, family, "fresh, two steps, written by remit in bfloat16 shards", fresh, None) and good


def dtype(index):
    stored = ["--pretrain.checkpoints.dtype=bf16", "--pretrain.checkpoints.max_shard_bytes=50000"]
    return stored if index % 2 else []


def train(args, home, settings, vocab_size):
    """A run on random tokens; its last checkpoint."""
    home.mkdir(parents=True, exist_ok=True)
    ids = np.random.default_rng(3).integers(3, vocab_size, 400).astype(np.uint16)
    np.save(home / "ids.npy", ids)
    run([args.remit, "prepare", home / "ids.npy", "--out", home / "store", "--quiet",
         f"--prepare.vocab_size={vocab_size}", "--prepare.eos=2"])
    done = run([args.remit, "pretrain", "--run", home / "run", "--tokens", home / "store", "--quiet", "--json",
                "--pretrain.data.window=20", "--pretrain.data.batch_windows=2", *settings])
    return Path(json.loads(done)["checkpoint"])


def vocab(directory):
    return json.loads((directory / "config.json").read_text())["vocab_size"]


def tensors(directory):
    """Bytes by name."""
    found = {}
    for path in sorted(directory.glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                tensor = file.get_tensor(name).contiguous()
                found[name] = (str(tensor.dtype), tuple(tensor.shape), tensor.view(-1).numpy(force=True).tobytes()
                               if tensor.element_size() == 4 else tensor.view(-1).float().numpy().tobytes())
    return found


def row(args, family, words, learner, reference):
    more = ["--reference", reference] if reference else []
    failed, output = script(open_checkpoint, learner, "--remit", args.remit, "--tolerance", args.tolerance, *more)
    largest = dict(re.findall(r"^(\w+) +largest difference (\S+),", output, re.M))
    greedy = re.search(r"^greedy +(.*) continuations equal", output, re.M)
    figures = [max((float(largest[key]) for key in keys if key in largest), default=float("nan"))
               for keys in (QUANTITIES[:2], QUANTITIES[3:4], QUANTITIES[4:])]
    print(f"| `{family}` | {words} | {' | '.join(f'{figure:.1e}' for figure in figures)} | "
          f"{greedy.group(1) if greedy else '?'} |", flush=True)
    if failed:
        print(failed, output, file=sys.stderr)
    return not failed


def script(module, *words):
    """What `python parity/MODULE.py WORDS` ends with and prints, without the seconds that importing takes."""
    output, argv = io.StringIO(), sys.argv
    sys.argv = [module.__name__, *map(str, words)]
    try:
        with contextlib.redirect_stdout(output):
            module.main()
        return None, output.getvalue()
    except SystemExit as end:
        return end.code, output.getvalue()
    finally:
        sys.argv = argv


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"`{' '.join(map(str, command))}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
