#!/usr/bin/env python3
"""Speed and memory of remit and PyTorch, training or generating, side by side in one interleaved run.

Every contestant is a process that works only when told to (`round` on its standard input) and waits otherwise. They
take turns, round after round, so that whatever else slows the machine down slows all of them alike; the figures are
medians over the rounds. The first round of each is not counted. The result is a Markdown table.

    cargo build --release --example train_benchmark
    python parity/benchmark.py --sizes S M --threads 1 2 --rounds 5

    cargo build --release --example generate_benchmark
    python parity/benchmark.py --task generate --contestants remit:1 transformers:1 remit:64 transformers:64
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT = ["remit:ntp:f32", "remit:remit-scored:f32", "remit:remit-online:f32"]
DEFAULT += ["torch:fp32", "torch:bf16", "torch:bf16-compile"]
DEFAULT_GENERATE = ["remit:64", "transformers:64"]
# What the ratios are taken to, where it takes part: heading and contestant.
BASES = {f"transformers, batch {batch}": f"transformers:{batch}" for batch in (1, 16, 64)}
BASES |= {f"transformers bf16, batch {batch}": f"transformers:{batch}:bf16" for batch in (1, 16, 64)}
BASES |= {"llama.cpp bf16": "llama.cpp:1:bf16"}
BASES |= {"PyTorch fp32": "torch:fp32", "PyTorch bf16": "torch:bf16", "PyTorch bf16 + compile": "torch:bf16-compile"}
BASES |= {"remit NTP f32": "remit:ntp:f32", "remit NTP bf16": "remit:ntp:bf16"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["train", "generate"], default="train")
    parser.add_argument("--sizes", nargs="+", default=["S", "M"], help="S, M; of training also 135M")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds; one more comes before them")
    parser.add_argument("--steps", type=int, default=3, help="steps a round, for PyTorch")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two turns, for threads to settle")
    parser.add_argument("--new-tokens", type=int, default=128, help="tokens a sequence and round, of `generate`")
    names = "remit:MODE:PRECISION|torch:MODE, of `generate` remit:BATCH[:bf16]|transformers:BATCH[:bf16]|llama.cpp:1:bf16"
    parser.add_argument("--model", help="a checkpoint that generates, instead of random parameters")
    parser.add_argument("--gguf", help="the same for `llama.cpp`: see `bf16_gguf.py`")
    parser.add_argument("--contestants", nargs="+", metavar=names)
    parser.add_argument("--examples", default=HERE.parent / "target/release/examples", type=Path)
    parser.add_argument("--json", type=Path, help="write every round's figures here as well")
    args = parser.parse_args()
    args.contestants = args.contestants or (DEFAULT if args.task == "train" else DEFAULT_GENERATE)

    everything = []
    print(f"{machine()}, {datetime.date.today().isoformat()}; medians of {args.rounds} interleaved rounds")
    for size in args.sizes:
        for threads in args.threads:
            figures = compare(args, size, threads)
            everything.append({"size": size, "threads": threads, "rounds": figures})
            print(f"\n{table(size, threads, figures)}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(everything, indent=1) + "\n")


def compare(args, size, threads):
    """The rounds of every contestant, by its name."""
    processes = {name: start(args, name, size, threads) for name in args.contestants}
    figures = {name: [] for name in args.contestants}
    try:
        for index in range(args.rounds + 1):
            for name, process in processes.items():
                time.sleep(args.pause)
                answer = take_turn(name, process)
                if index > 0:
                    figures[name].append(answer)
                print(f"{size} {threads} {name} {answer['tokens_per_second']:.0f} tokens/s", file=sys.stderr)
    finally:
        for process in processes.values():
            end(process)
    return figures


def start(args, name, size, threads):
    program, *modes = name.split(":")
    common = ["--size", size, "--threads", str(threads)]
    if args.task == "generate":
        command = generate_command(args, name, common)
    elif program == "remit" and len(modes) == 2:
        command = [str(args.examples / "train_benchmark"), *common, "--mode", modes[0], "--precision", modes[1]]
    elif program == "torch" and len(modes) == 1:
        script = str(HERE / "train_benchmark.py")
        command = [sys.executable, script, *common, "--mode", modes[0], "--steps", str(args.steps)]
    else:
        sys.exit(f"unknown contestant `{name}`: `remit:MODE:PRECISION` or `torch:MODE`")
    # Libraries that size their pools on their own must not take more threads than were given.
    pools = {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **pools}
        )
    except OSError as error:
        sys.exit(f"cannot start `{command[0]}`: {error.strerror}")


def generate_command(args, name, common):
    program, batch, precision = (name.split(":") + ["f32"])[:3]
    if args.model:
        common = ["--model", args.model, *common[2:]]
    new = ["--new-tokens", str(args.new_tokens)]
    dtypes = {"f32": "float32", "bf16": "bfloat16"}
    if program == "remit" and batch.isdigit():
        command = [str(args.examples / "generate_benchmark"), *common, "--batch", batch, *new]
        return [*command, "--precision", precision]
    if program == "transformers" and batch.isdigit() and precision in dtypes:
        command = [sys.executable, str(HERE / "generate_benchmark.py"), *common, "--batch", batch, *new]
        return [*command, "--dtype", dtypes[precision]]
    if program == "llama.cpp" and batch == "1" and args.gguf:
        script = str(HERE / "llama_cpp_benchmark.py")
        return [sys.executable, script, "--gguf", args.gguf, *common[-2:], *new]
    sys.exit(f"unknown contestant `{name}`: `remit:BATCH`, `transformers:BATCH`, `llama.cpp:1:bf16` with `--gguf`")


def take_turn(name, process):
    try:
        process.stdin.write("round\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass
    line = process.stdout.readline()
    if not line:
        sys.exit(f"`{name}` ended without an answer, exit status {process.wait()}")
    return json.loads(line)


def end(process):
    try:
        process.stdin.write("quit\n")
        process.stdin.close()
        process.wait(timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()


def table(size, threads, figures):
    speed = {name: statistics.median(r["tokens_per_second"] for r in rounds) for name, rounds in figures.items()}
    memory = {name: max(r["peak_mib"] for r in rounds) for name, rounds in figures.items()}
    bases = {heading: base for heading, base in BASES.items() if base in figures}
    headings = ["contestant", "tokens/s", "lowest - highest", *(f"over {heading}" for heading in bases), "peak MiB"]
    if "torch:fp32" in figures:
        headings.append("memory over PyTorch fp32")
    lines = [f"Size {size}, {threads} thread{'s' if threads > 1 else ''}", ""]
    lines += ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    for name, rounds in figures.items():
        each = [r["tokens_per_second"] for r in rounds]
        cells = [name.replace(":", " "), f"{speed[name]:.0f}", f"{min(each):.0f} - {max(each):.0f}"]
        # Taken round by round, a ratio compares neighbours in time.
        cells += [f"{ratio(rounds, figures[base]):.2f}" for base in bases.values()]
        cells.append(f"{memory[name]:.0f}")
        if "torch:fp32" in figures:
            cells.append(f"{memory[name] / memory['torch:fp32']:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio(rounds, base):
    return statistics.median(a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(rounds, base))


def machine():
    try:
        text = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
        names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("Model name")]
        name = names[0]
        name += "".join(f", {flag}" for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in text)
    except (OSError, subprocess.CalledProcessError, IndexError):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
