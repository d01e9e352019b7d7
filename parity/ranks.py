#!/usr/bin/env python3
"""Several processes of the PyTorch engine held to one, through `remit`, on the CPUs of this machine (gloo).

With 1, 2 and 4 processes, sharded and replicated, the same mid-training (ReMiT, the reference beside the learner, documents
hidden from one another, z-loss, clipping) must come to the same up to rounding. Then one process after the other is killed
(SIGKILL) in the middle of a run, which must end with an error that names it; what is left is gone on with by 1, 2 and 4
processes and by the engine of `remit` itself, and must come to what the undisturbed run came to, over exactly the same
batches. One that stops and one that runs out of memory must end a run as well, a launcher must be able to start all, and
scores must be those of one process.

    cargo build --release
    python parity/ranks.py --remit target/release/remit

Prints a table with the tolerance beside each figure and ends with status 1 where one falls short. Takes some minutes. Linux.
"""

import argparse
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

STEPS, EVERY, KILLED_AFTER = 60, 10, 24
RECIPE = """
[prepare]
vocab_size = 256
eos = 0
sources = [{{ name = "random", path = "tokens.npy" }}]

[pretrain]
steps = 10

[pretrain.data]
tokens = "store"
window = 48
batch_windows = 8

[pretrain.optimizer]
learning_rate = 3e-3

[pretrain.model]
kind = "{family}"
hidden_size = 64
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
intermediate_size = 128
max_position_embeddings = 64
tie_word_embeddings = {tied}

[score]
reference = "reference"
tokens = "store"
window = 48
dtype = "f32"

[midtrain]
from = "base"
steps = {steps}
z_loss = 1e-4

[midtrain.data]
tokens = "store"
window = 48
batch_windows = 10
micro_batch_windows = 5

[midtrain.optimizer]
learning_rate = 1e-3

[midtrain.objective]
kind = "remit"

[midtrain.reference]
checkpoint = "reference"

[midtrain.checkpoints]
ephemeral_every = {every}
keep_last = 2

[engine]
kind = "torch"
device = "cpu"
python = "{listener}"
"""

# Stands where Python is looked for: starts the worker and notes the hash of every batch that goes to it.
LISTENER = """#!{python}
import hashlib, json, os, struct, subprocess, sys, threading
worker = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE)

def end():
    status = worker.wait()
    os.kill(os.getpid(), -status) if status < 0 else os._exit(status)

threading.Thread(target=end).start()
source, log = os.fdopen(0, "rb"), os.environ.get("BATCHES")
try:
    while start := source.read(16):
        length, size = struct.unpack("<IQ", start[4:])
        header, payload = source.read(length), source.read(size)
        if log and json.loads(header)["op"] == "forward":
            with open(log, "a") as file:
                file.write(hashlib.sha256(payload).hexdigest() + "\\n")
        worker.stdin.write(start + header + payload)
        worker.stdin.flush()
    worker.stdin.close()
except OSError:
    pass
"""


class Bench:
    """A directory with a corpus, a learner and a reference, in which `remit` is run."""

    def __init__(self, remit, folder, family, tied):
        self.remit, self.folder, self.family = remit, Path(folder) / family, family
        self.folder.mkdir()
        listener = self.folder / "python"
        listener.write_text(LISTENER.format(python=sys.executable))
        listener.chmod(0o755)
        generator = np.random.default_rng(0)
        tokens = generator.integers(1, 255, 60_000, dtype=np.uint32)
        tokens[:: 31] = 0
        np.save(self.folder / "tokens.npy", tokens)
        recipe = RECIPE.format(family=family, tied=tied, steps=STEPS, every=EVERY, listener=listener)
        (self.folder / "recipe.toml").write_text(recipe)
        self.run("prepare", "--out", "store")
        self.run("pretrain", "--run", "base", "--engine", "cpu", "--pretrain.seed=1")
        self.run("pretrain", "--run", "reference", "--engine", "cpu", "--pretrain.seed=2")

    def start(self, verb, *arguments, processes=1, batches=None, launch=()):
        several = [f"--engine.processes={processes}"] if processes > 1 else []
        command = [*launch, self.remit, verb, "--config", "recipe.toml", "-q", *arguments, *several]
        environment = os.environ | ({"BATCHES": str(self.folder / batches)} if batches else {})
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, verb, *arguments, **more):
        """Runs a verb to its end; what it says on standard error."""
        process = self.start(verb, *arguments, **more)
        _, words = process.communicate(timeout=600)
        if process.returncode:
            sys.exit(f"{verb} {arguments} {more} ended with status {process.returncode}:\n{words}")
        return words

    def midtrain(self, name, *arguments, **more):
        return self.run("midtrain", "--run", name, *arguments, batches=f"{name}.batches", **more)

    def batches(self, name):
        path = self.folder / f"{name}.batches"
        return path.read_text().split() if path.exists() else []

    def steps(self, name):
        """Losses and gradient norms, in order of steps."""
        path = self.folder / name / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [(line["step"], line["loss"], line["grad_norm"]) for line in lines if "grad_norm" in line]

    def last(self, name):
        """The last checkpoint."""
        return max((self.folder / name / "checkpoints").glob("step-*"))

    def state(self, name):
        """Parameters and moments of the last checkpoint."""
        path = self.last(name)
        return load_file(path / "model.safetensors"), load_file(path / "state/optimizer.safetensors")

    def apart(self, name, wanted="one"):
        """Of two runs: the largest relative difference of losses, of gradient norms, and the differences of what has become of
        parameters and of moments, over their norms."""
        found, other = self.steps(name), self.steps(wanted)
        assert [step for step, *_ in found] == [step for step, *_ in other] == list(range(1, STEPS + 1)), name
        columns = [max(abs(a[i] / b[i] - 1) for a, b in zip(found, other)) for i in (1, 2)]
        base = self.state("base")[0]
        (a, a_moments), (b, b_moments) = self.state(name), self.state(wanted)
        assert a.keys() == b.keys() == base.keys() and a_moments.keys() == b_moments.keys(), name
        columns.append(distance(a, b) / distance(b, base))
        zero = {key: np.zeros_like(value) for key, value in b_moments.items()}
        return columns + [distance(a_moments, b_moments) / distance(b_moments, zero)]


def distance(a, b):
    """Euclidean, of all tensors together."""
    return math.sqrt(sum(float(((a[key].astype(np.float64) - b[key]) ** 2).sum()) for key in a))


def pid_of(rank, processes):
    """The process of a rank of the worker below `remit`, which is `processes`' first."""
    found = {}
    for status in Path("/proc").glob("[0-9]*"):
        try:
            words = (status / "cmdline").read_bytes().decode().split("\0")
            found[int(status.name)] = (int((status / "stat").read_text().rsplit(")", 1)[1].split()[1]), words)
        except (OSError, ValueError):
            continue

    def below(pid):
        while pid in found and pid != processes:
            pid = found[pid][0]
        return pid == processes

    for pid, (_, words) in found.items():
        is_worker = any(word.endswith("worker.py") for word in words)
        of = int(words[words.index("--rank") + 1]) if "--rank" in words else 0
        # The listener has the same words; the worker is what it started.
        if is_worker and of == rank and below(pid) and not words[1].endswith("/python"):
            return pid
    sys.exit(f"there is no process of rank {rank}")


class Table:
    """Figures, each with what is allowed."""

    def __init__(self):
        self.rows = []

    def row(self, family, what, figures, tolerances):
        good = all(figure <= tolerance for figure, tolerance in zip(figures, tolerances))
        self.rows.append((family, what, figures, good))
        cells = " ".join(f"{figure:.1e}" for figure in figures)
        print(f"{family} {what}: {cells}{'' if good else '  FALLS SHORT'}", file=sys.stderr, flush=True)

    def print(self):
        limits = " | ".join(f"{tolerance:.0e}" for tolerance in SAME)
        print("\n| | | losses | gradient norms | parameters | moments |\n|---|---|---:|---:|---:|---:|")
        print(f"| | at most | {limits} |")
        for family, what, figures, good in self.rows:
            cells = [f"{figure:.1e}" for figure in figures] + [""] * (4 - len(figures))
            print(f"| {family} | {what}{'' if good else ' **FALLS SHORT**'} | {' | '.join(cells)} |")
        bad = sum(not good for *_, good in self.rows)
        print(f"\n{len(self.rows)} rows, {bad} fall short")
        return bad


SAME = (1e-6, 1e-5, 1e-4, 1e-4)
"""Losses and gradient norms of all steps, relative; what has become of parameters, and the moments, relative norms."""


def words_of(process):
    """What a run that is to fail says, and whether it has failed."""
    _, words = process.communicate(timeout=120)
    return words if process.returncode == 1 else f"status {process.returncode}: {words}"


def wait_for_step(bench, name, process, step):
    """Until the run has taken it."""
    while len(bench.steps(name)) < step:
        if process.poll() is not None:
            sys.exit(f"{name} ended before step {step}: {process.communicate()[1]}")
        time.sleep(0.02)


def equal(bench, table, numbers):
    """Undisturbed runs."""
    bench.midtrain("one")
    bench.midtrain("again")
    table.row(bench.family, "1 process, again", bench.apart("again"), SAME)
    bench.midtrain("remit", "--engine", "cpu")
    table.row(bench.family, "the engine of `remit`", bench.apart("remit"), SAME)
    for processes in numbers:
        for sharding in ("full", "none"):
            name = f"{sharding}-{processes}"
            bench.midtrain(name, f"--engine.sharding={sharding}", processes=processes)
            assert bench.batches(name) == bench.batches("one"), "the same batches"
            table.row(bench.family, f"{processes} processes, sharding {sharding}", bench.apart(name), SAME)


def killed(bench, table, numbers):
    """Every rank once; gone on with by other numbers, with the other kind of sharding, and by the other engine."""
    for processes in numbers:
        for rank in range(processes):
            sharding, other = ("full", "none") if rank % 2 == 0 else ("none", "full")
            name = f"killed-{processes}-{rank}"
            process = bench.start("midtrain", "--run", name, f"--engine.sharding={sharding}", processes=processes, batches=f"{name}.batches")
            wait_for_step(bench, name, process, KILLED_AFTER)
            os.kill(pid_of(rank, process.pid), signal.SIGKILL)
            words = words_of(process)
            told = "signal 9" in words or "signal: 9" in words
            told &= rank == 0 or f"rank {rank} of {processes}" in words
            assert told, f"rank {rank} of {processes} was killed: {words}"
            step = int(bench.last(name).name[5:])
            assert step in (10 * (KILLED_AFTER // 10), 10 * (KILLED_AFTER // 10) + 10), step
            assert bench.batches(name) == bench.batches("one")[: len(bench.batches(name))], "the same batches"
            for again in (1, *numbers, "cpu"):
                copy = f"{name}-{again}"
                shutil.copytree(bench.folder / name, bench.folder / copy)
                if again == "cpu":
                    bench.midtrain(copy, "--engine", "cpu")
                else:
                    bench.midtrain(copy, f"--engine.sharding={other if again == processes else sharding}", processes=again)
                    assert bench.batches(copy) == bench.batches("one")[2 * step :], "the same batches"
                by = "the engine of `remit`" if again == "cpu" else f"{again}"
                table.row(bench.family, f"rank {rank} of {processes} killed, gone on with by {by}", bench.apart(copy), SAME)


def stopped(bench, table):
    """A rank that gives no sign of life, and one without memory."""
    name = "stopped"
    process = bench.start("midtrain", "--run", name, "--engine.timeout_seconds=8", processes=2)
    wait_for_step(bench, name, process, KILLED_AFTER)
    os.kill(pid_of(1, process.pid), signal.SIGSTOP)
    started = time.monotonic()
    words = words_of(process)
    assert "rank 1 of 2 has given no sign of life within 8 s" in words, words
    table.row(bench.family, "rank 1 stopped: seconds until the run ended, at most 20", [time.monotonic() - started], [20])
    bench.midtrain(name)
    table.row(bench.family, "and gone on with by 1", bench.apart(name), SAME)

    name = "starved"
    process = bench.start("midtrain", "--run", name, processes=2)
    wait_for_step(bench, name, process, KILLED_AFTER)
    pid = pid_of(1, process.pid)
    resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
    words = words_of(process)
    assert "rank 1" in words, words
    print(words, file=sys.stderr)
    bench.midtrain(name)
    table.row(bench.family, "rank 1 out of memory, gone on with by 1", bench.apart(name), SAME)


def launched(bench, table):
    """All ranks by torchrun, and by variables as SLURM sets them; a fresh learner."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python", "--"]
    bench.midtrain("torchrun", "--engine.launcher=torchrun", launch=torchrun)
    table.row(bench.family, "2 processes of `torchrun`", bench.apart("torchrun"), SAME)
    slurm = 'for i in 1 0; do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & last=$!; done; wait $last'
    variables = ["env", "SLURM_NTASKS=2", "SLURM_JOB_ID=7", "SLURM_JOB_NODELIST=localhost"]
    bench.midtrain("slurm", "--engine.launcher=slurm", launch=[*variables, "sh", "-c", slurm, "sh"])
    table.row(bench.family, "2 processes of SLURM's variables", bench.apart("slurm"), SAME)
    for processes in (1, 2):
        bench.run("pretrain", "--run", f"fresh-{processes}", processes=processes)
    a, b = bench.state("fresh-2"), bench.state("fresh-1")
    table.row(bench.family, "2 processes, a fresh learner: parameters", [distance(a[0], b[0])], [1e-4])


def scored(bench, table):
    """Scores of a store by several ranks, whole and in shards of two ranks each."""
    bench.run("score", "--out", "scores-1")
    bench.run("score", "--out", "scores-4", processes=4)
    for part in ("2/2", "1/2"):
        bench.run("score", "--out", "scores-shards", "--shard", part, processes=2)
    wanted = scores_of(bench.folder / "scores-1")
    for name, what in (("scores-4", "scores of 4 processes"), ("scores-shards", "scores of 2 shards of 2 processes")):
        found = scores_of(bench.folder / name)
        table.row(bench.family, f"{what}, nats", [float(np.abs(found - wanted).max())], [1e-5])


def scores_of(folder):
    """All numbers of a store of scores."""
    files = sorted(path for path in folder.rglob("*") if path.name == "scores.bin")
    assert files, list(folder.rglob("*"))
    return np.concatenate([np.fromfile(path, "<f4") for path in files])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--remit", default="target/release/remit", help="the program")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="numbers of processes to try")
    parser.add_argument("--only", nargs="+", choices=("equal", "killed", "stopped", "launched", "scored"))
    args = parser.parse_args()
    table, chosen = Table(), lambda part: not args.only or part in args.only
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(args.remit).resolve(), folder, "llama", "true")
        if chosen("equal"):
            equal(bench, table, args.processes)
            equal(Bench(Path(args.remit).resolve(), folder, "olmo2", "false"), table, args.processes)
        else:
            bench.midtrain("one")
        for part, check in (("killed", killed), ("stopped", stopped), ("launched", launched), ("scored", scored)):
            if chosen(part):
                check(bench, table, args.processes) if part == "killed" else check(bench, table)
    sys.exit(table.print() > 0)


if __name__ == "__main__":
    main()
