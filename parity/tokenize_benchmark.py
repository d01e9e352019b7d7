#!/usr/bin/env python3
"""Tokenizing speed of `remit prepare` and of `tokenizers` in Python, side by side in one interleaved run.

Python reads the JSON lines, encodes batches on all the given threads and collects the ids in one array: what
`prepare` does, without packing and writing. Its time leaves out the start of the interpreter; the time of the command
is all of it. The command comes after `--`; `{out}` in it becomes a fresh path in every round. Figures are medians.

    python parity/tokenize_benchmark.py --jsonl text.jsonl --tokenizer tokenizer.json --threads 2 -- \\
        target/release/remit prepare --config prepare.toml out={out}
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jsonl", type=Path, required=True, help="the text, a record a line")
    parser.add_argument("--field", default="text")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds; one more comes before them")
    parser.add_argument("--batch", type=int, default=1024, help="records a call of encode_batch")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="what to compare with, after --")
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(encode(args)))
        return

    environment = {**os.environ, "RAYON_NUM_THREADS": str(args.threads), "TOKENIZERS_PARALLELISM": "true"}
    rounds = {"tokenizers in Python": []}
    if args.command:
        rounds[Path(args.command[0]).name] = []
    for index in range(args.rounds + 1):
        for name, figures in rounds.items():
            is_python = name == "tokenizers in Python"
            figure = run_worker(environment) if is_python else run_command(args.command, environment)
            if index > 0:
                figures.append(figure)
    print(table(rounds, args.jsonl.stat().st_size / 1e6, args.threads))


def encode(args):
    """Encodes the whole file once; the ids are kept, as `prepare` keeps them."""
    import array

    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(args.tokenizer))
    ids = array.array("H" if tokenizer.get_vocab_size() <= 65536 else "I")
    start = time.perf_counter()
    with open(args.jsonl, encoding="utf-8") as lines:
        batch = []
        for line in lines:
            batch.append(json.loads(line)[args.field])
            if len(batch) == args.batch:
                extend(ids, tokenizer, batch)
                batch.clear()
        extend(ids, tokenizer, batch)
    seconds = time.perf_counter() - start
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mib": peak_mib, "tokens": len(ids)}


def extend(ids, tokenizer, batch):
    for encoding in tokenizer.encode_batch(batch, add_special_tokens=False):
        ids.extend(encoding.ids)


def run_worker(environment):
    # Its own process, for the number of threads is read once and the memory counted for the whole life.
    command = [sys.executable, *sys.argv, "--worker"]
    if "--" in sys.argv:
        at = sys.argv.index("--")
        command = [sys.executable, *sys.argv[:at], "--worker"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"tokenizing in Python ended with {done.returncode}")
    return json.loads(done.stdout)


def run_command(command, environment):
    with tempfile.TemporaryDirectory() as folder:
        command = [part.replace("{out}", str(Path(folder) / "out")) for part in command]
        start = time.perf_counter()
        try:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        except OSError as error:
            sys.exit(f"cannot start `{command[0]}`: {error.strerror}")
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"`{' '.join(command)}` ended with {process.returncode}:\n{said.decode(errors='replace')}")
    return {"seconds": seconds, "peak_mib": usage.ru_maxrss / 1024}


def table(rounds, megabytes, threads):
    speeds = {name: [megabytes / r["seconds"] for r in figures] for name, figures in rounds.items()}
    base = speeds["tokenizers in Python"]
    lines = [f"{megabytes:.1f} MB of JSON lines, {threads} threads, medians of {len(base)} interleaved rounds", ""]
    lines += ["| | MB/s | lowest - highest | ratio | peak MiB |", "|---|---:|---:|---:|---:|"]
    for name, each in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(each, base))
        peak = max(r["peak_mib"] for r in rounds[name])
        lines.append(
            f"| {name} | {statistics.median(each):.1f} | {min(each):.1f} - {max(each):.1f} | {ratio:.2f} | {peak:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
