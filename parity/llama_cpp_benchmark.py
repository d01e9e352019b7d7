#!/usr/bin/env python3
"""Generation by llama.cpp on the CPU, one sequence, timed round by round: its side of `benchmark.py --task generate`.

Reads commands on standard input as `generate_benchmark.py` does. Tokens are sampled at temperature 1 with nothing cut
off behind a random prompt, and end tokens do not end a sequence.

    pip install llama-cpp-python
    echo round | python parity/llama_cpp_benchmark.py --gguf MODEL.gguf --threads 1
"""

import argparse
import itertools
import json
import random
import resource
import sys
import time

from llama_cpp import Llama

PROMPT = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    model = None
    for command in sys.stdin:
        command = command.strip()
        if command == "quit":
            return
        if command != "round":
            sys.exit(f"unknown command `{command}`: `round` or `quit`")
        if model is None:
            threads = dict(n_threads=args.threads, n_threads_batch=args.threads)
            model = Llama(args.gguf, n_ctx=PROMPT + args.new_tokens + 8, verbose=False, seed=0, **threads)
            continue_prompt(model, 4)
        start = time.perf_counter()
        continue_prompt(model, args.new_tokens)
        seconds = time.perf_counter() - start
        answer = {"batch": 1, "threads": args.threads, "tokens": args.new_tokens}
        answer["tokens_per_second"] = args.new_tokens / seconds
        answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer), flush=True)


def continue_prompt(model, new_tokens):
    prompt = [random.randrange(model.n_vocab()) for _ in range(PROMPT)]
    tokens = model.generate(prompt, temp=1.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0)
    for _ in itertools.islice(tokens, new_tokens):
        pass


if __name__ == "__main__":
    main()
