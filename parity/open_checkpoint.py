#!/usr/bin/env python3
"""Opens a checkpoint with `transformers` and compares what it computes with what remit computes.

Log-probabilities, weights and losses of `remit weights --json`, and the greedy continuations of
`remit generate --json`, beside the same from `AutoModelForCausalLM` in float32. Ends with status 1 where the two
differ by more than the tolerance, or where the checkpoint lacks a parameter or has one too many. Without `--remit`
only `transformers` is tried.

    python parity/open_checkpoint.py runs/quickstart/checkpoint --remit target/release/remit
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM
from transformers.utils import logging

EPSILON = 0.2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR", help="the checkpoint, the learner")
    parser.add_argument("--reference", metavar="DIR", help="a second checkpoint; default: the first again")
    parser.add_argument("--ids", type=Path, metavar="FILE.json", help="arrays of token ids; default: random ones")
    parser.add_argument("--remit", metavar="PATH", help="the program to compare with")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative, absolute below one")
    args = parser.parse_args()
    logging.disable_progress_bar()

    problems = []
    learner = load(args.directory, problems)
    reference = load(args.reference, problems) if args.reference else learner
    check_tokenizer(args.directory, learner, problems)
    sequences = json.loads(args.ids.read_text()) if args.ids else random_ids(learner.config)
    expected = weigh(sequences, learner, reference)
    continuations = [greedy(learner, ids, args.max_new_tokens) for ids in sequences]
    summary = expected["summary"]
    print(f"transformers: {len(sequences)} sequences, NTP loss {summary['ntp_loss']:.6f}, ", end="")
    print(f"ReMiT loss {summary['remit_loss']:.6f}, mean weight {summary['mean_weight']:.6f}")
    if args.remit:
        compare_weights(expected, run_weights(args, sequences), args.tolerance, problems)
        compare_greedy(sequences, continuations, run_generate(args, sequences), learner, args.tolerance, problems)
    for problem in problems:
        print(f"FAILED: {problem}")
    if problems:
        sys.exit(1)
    print("all equal within the tolerance" if args.remit else "opened")


def load(directory, problems):
    # Eager attention, for the other kernels reorder sums.
    model, info = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            problems.append(f"`{directory}`: {kind.replace('_', ' ')} {sorted(map(str, info[kind]))}")
    restore_padding_row(directory, model)
    return model.eval()


@torch.no_grad()
def restore_padding_row(directory, model):
    """Youtu's class zeroes the embedding of the padding token whenever it opens a checkpoint (`_init_weights` writes to
    a slice, which escapes the note that the tensor was loaded); what the file says is what was trained."""
    embedding = model.get_input_embeddings()
    if embedding.padding_idx is None:
        return
    for path in Path(directory).glob("model*.safetensors"):
        with safe_open(path, "pt") as file:
            if "model.embed_tokens.weight" in file.keys():
                row = file.get_slice("model.embed_tokens.weight")[embedding.padding_idx]
                embedding.weight[embedding.padding_idx] = row.float()


def check_tokenizer(directory, model, problems):
    path = Path(directory) / "tokenizer.json"
    if not path.exists():
        return
    import tokenizers

    size = tokenizers.Tokenizer.from_file(str(path)).get_vocab_size()
    print(f"tokenizer.json: {size} tokens, model: {model.config.vocab_size}")
    if size > model.config.vocab_size:
        problems.append(f"`{path}` has {size} tokens, the model {model.config.vocab_size}")


def random_ids(config):
    """Three sequences of different lengths, the same at every call."""
    random = np.random.default_rng(0)
    longest = min(49, config.max_position_embeddings)
    return [random.integers(0, config.vocab_size, length).tolist() for length in (longest, longest // 2, 2)]


@torch.no_grad()
def logits(model, ids):
    return model(torch.tensor([ids])).logits[0].double()


def log_probabilities(model, ids):
    rows = torch.log_softmax(logits(model, ids)[:-1], -1)
    return rows.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()


def weigh(sequences, learner, reference):
    """ReMiT's weights with the paper's settings: gap, centred over the sequence, sigmoid, epsilon 0.2."""
    rows = []
    for ids in sequences:
        row = {"ids": ids, "logp_learner": log_probabilities(learner, ids)}
        row["logp_reference"] = log_probabilities(reference, ids)
        row["delta"] = row["logp_reference"] - row["logp_learner"]
        raw = 2 / (1 + np.exp(-(row["delta"] - row["delta"].mean())))
        row["weights"] = np.clip(raw, 1 - EPSILON, 1 + EPSILON)
        rows.append(row)
    weights = np.concatenate([row["weights"] for row in rows])
    losses = -np.concatenate([row["logp_learner"] for row in rows])
    summary = {
        "mean_weight": weights.mean(),
        "clipped_low": (weights <= 1 - EPSILON).mean(),
        "clipped_high": (weights >= 1 + EPSILON).mean(),
        "ntp_loss": losses.mean(),
        "remit_loss": (weights * losses).mean(),
    }
    return {"sequences": rows, "summary": summary}


def greedy(model, ids, count):
    """The prompt with `count` tokens more, by whole forward passes: no cache that could hide a mistake."""
    ids = list(ids)
    for _ in range(count):
        ids.append(int(logits(model, ids)[-1].argmax()))
    return ids


def run_weights(args, sequences):
    reference = args.reference or args.directory
    return run(args.remit, sequences, "weights", "--learner", args.directory, "--reference", reference)


def run_generate(args, sequences):
    count = str(args.max_new_tokens)
    return run(args.remit, sequences, "generate", "--model", args.directory, "--max-new-tokens", count, "--greedy")


def run(remit, sequences, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ids.json"
        path.write_text(json.dumps(sequences))
        command = [remit, *arguments, "--ids", str(path), "--json"]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            sys.exit(f"cannot start `{remit}`: {error.strerror}")
    if done.returncode != 0:
        sys.exit(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def compare_weights(expected, found, tolerance, problems):
    if len(found["sequences"]) != len(expected["sequences"]):
        problems.append(f"{len(found['sequences'])} sequences, not {len(expected['sequences'])}")
        return
    for key in ("logp_learner", "logp_reference", "delta", "weights"):
        pairs = [(row[key], other[key]) for row, other in zip(expected["sequences"], found["sequences"])]
        if any(len(ours) != len(theirs) for ours, theirs in pairs):
            problems.append(f"`{key}`: {[len(b) for _, b in pairs]} values, not {[len(a) for a, _ in pairs]}")
            continue
        ours, theirs = (np.concatenate([np.asarray(pair[side]) for pair in pairs]) for side in (0, 1))
        report(key, ours, theirs, tolerance, problems)
    if any(row["ids"] != other["ids"] for row, other in zip(expected["sequences"], found["sequences"])):
        problems.append("`ids` are not those given")
    predictions = sum(len(row["weights"]) for row in expected["sequences"])
    for key, value in expected["summary"].items():
        # A weight at the very edge may be counted as clipped by one of the two only.
        slack = 1.5 / predictions if key.startswith("clipped") else tolerance
        report(key, np.array([value]), np.array([found["summary"][key]]), slack, problems)


def report(key, expected, found, tolerance, problems):
    difference = np.abs(expected - found)
    relative = difference / np.maximum(np.abs(expected), 1)
    print(f"{key:15} largest difference {difference.max():.2e}, relative {relative.max():.2e}")
    if not relative.max() <= tolerance:  # so that NaN fails too
        problems.append(f"`{key}` differs by {relative.max():.2e}, more than {tolerance:.0e}")


def compare_greedy(prompts, expected, found, model, tolerance, problems):
    found = found["sequences"]
    if len(found) != len(expected):
        problems.append(f"{len(found)} continuations, not {len(expected)}")
        return
    equal = 0
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    for index, (prompt, ours, theirs) in enumerate(zip(prompts, expected, found)):
        # It may stop at an end-of-text token; otherwise it goes on to the asked length.
        stopped = len(theirs) > len(prompt) and theirs[-1] in ends
        if theirs == ours or (stopped and theirs == ours[: len(theirs)]):
            equal += 1
            continue
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        if at < min(len(ours), len(theirs)) and at >= len(prompt):
            best = logits(model, ours[:at])[-1].topk(2).values
            if best[0] - best[1] <= tolerance * max(1, abs(best[0])):
                print(f"continuation {index}: a tie at position {at}, not compared further")
                equal += 1
                continue
        problems.append(f"continuation {index} differs from position {at} on: {theirs[at:]}, not {ours[at:]}")
    print(f"greedy          {equal} of {len(expected)} continuations equal")


if __name__ == "__main__":
    main()
