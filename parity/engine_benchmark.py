#!/usr/bin/env python3
"""Training speed of the PyTorch engine, beside plain `transformers` with FSDP2.

For the shapes of OLMo-2-1B, SmolLM3-3B and Youtu-2B with random parameters: tokens a second, model FLOP utilisation and peak
memory of `remit midtrain` with next-token prediction, ReMiT from scores and ReMiT with its reference beside the learner, at
windows of 2048 and 4096, eager and compiled; and of a loop of `transformers`, FSDP2 and AdamW on the same model.
Prints a line as soon as it has a figure, and at the end a table with the device's name and limits.

    cargo build --release
    python parity/engine_benchmark.py --remit target/release/remit            # everything; about an hour on one GPU
    python parity/engine_benchmark.py --remit target/release/remit --quick    # OLMo-2-1B at 4096, within four minutes
    python parity/engine_benchmark.py --remit target/release/remit --tiny     # does it run? on the CPU
    python parity/engine_benchmark.py --remit target/release/remit --exchange # on the CPU: what talking to `remit` costs

`remit` runs hide documents of 700 tokens from one another; `transformers` attends over whole windows. MFU counts
`(6 N + 12 L A c)` operations a token over the device's nominal peak in dense bf16: `N` parameters without the input embedding,
`L` blocks, `A` the width of all heads (the mean of keys' and values'), `c` the mean number of tokens that one attends to.
Each run that is out of memory is tried again with half the windows at a time, then with recomputation, and says so.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = 700
STORE_WINDOWS = 48
PEAKS = {"H100": 989.4, "H200": 989.4, "H800": 989.4, "A100": 312.0, "B200": 2250.0, "L40S": 362.0}
"""TFLOP/s in dense bf16, of the data sheets (SXM where there are several)."""
GIB = 1 << 30

COMMON = {"vocab_size": 128_256, "hidden_size": 2048, "num_attention_heads": 16, "max_position_embeddings": 4096}
MODELS = {
    "OLMo-2-1B": COMMON | {
        "model_type": "olmo2", "vocab_size": 100_352, "num_hidden_layers": 16, "num_key_value_heads": 16,
        "intermediate_size": 8192, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    },
    "SmolLM3-3B": COMMON | {
        "model_type": "smollm3", "num_hidden_layers": 36, "num_key_value_heads": 4, "intermediate_size": 11_008,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": None,
    },
    "Youtu-2B": COMMON | {
        "model_type": "youtu", "num_hidden_layers": 32, "num_key_value_heads": 16, "intermediate_size": 6144,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "kv_lora_rank": 512, "q_lora_rank": 1536,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "head_dim": 64,
    },
}
TINY = {
    "vocab_size": 512, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 160,
    "max_position_embeddings": 256,
}
TINY_YOUTU = {
    "kv_lora_rank": 32, "q_lora_rank": 48, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "head_dim": 8,
}
EXCHANGE = COMMON | {
    "model_type": "llama", "vocab_size": 8192, "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 8, "intermediate_size": 1408, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}
"""34 million parameters."""

OBJECTIVES = {
    "NTP": "",
    "ReMiT, scored": 'objective = {{ kind = "remit" }}\nreference = {{ checkpoint = "{checkpoint}", scores = "scores" }}',
    "ReMiT, online": 'objective = {{ kind = "remit" }}\nreference = {{ checkpoint = "{checkpoint}" }}',
}
PLAIN = "transformers"
RECIPE = """
[engine]
kind = "torch"
python = "{python}"
device = "{device}"
compile = {compile}
processes = {processes}

[prepare]
vocab_size = {vocab}
eos = 0
sources = [{{ name = "random", path = "tokens.npy" }}]

[score]
reference = "{checkpoint}"
tokens = "store"
out = "scores"
window = {window}

[midtrain]
run = "run"
from = "{checkpoint}"
moments = "reset"
steps = 100000
recompute = {recompute}
{objective}

[midtrain.data]
tokens = "store"
window = {window}
batch_windows = {batch}
micro_batch_windows = {micro}

[midtrain.checkpoints]
ephemeral_every = 0
"""


@dataclass(frozen=True)
class Case:
    """One measurement."""

    model: str
    window: int
    objective: str
    compiled: bool

    def __str__(self):
        return f"{self.model} {self.window} {'compiled' if self.compiled else 'eager'} {self.objective}"


class OutOfMemory(Exception):
    """A run did not fit."""


class Device:
    """What measures take place on."""

    def __init__(self, name, peak):
        self.is_cuda = name.startswith("cuda")
        self.name, self.limits, self.memory, self.peak = "CPU", f"{os.cpu_count()} cores", None, peak
        if self.is_cuda:
            query = "name,memory.total,power.limit,clocks.max.sm,driver_version"
            found = self.smi(query)
            self.name = found[0] if found else "CUDA device"
            self.limits = ", ".join(part for part in found[1:]) if found else "nvidia-smi says nothing"
            self.peak = peak or next((peak for key, peak in PEAKS.items() if key in self.name), None)

    @staticmethod
    def smi(query):
        """What nvidia-smi says of the first device."""
        with contextlib.suppress(Exception):
            command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "--id=0"]
            text = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
            return [part.strip() for part in text.splitlines()[0].split(",")]
        return []

    def used(self, group):
        """Bytes in use: of the device, or by a group of processes."""
        if self.is_cuda:
            found = self.smi("memory.used")
            return int(found[0]) << 20 if found and found[0].isdigit() else 0
        total = 0
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                if os.getpgid(int(folder.name)) == group:
                    total += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return total


class Peak:
    """The most memory that is in use while something runs."""

    def __init__(self, device, group):
        self.device, self.group, self.bytes, self.ended = device, group, 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        while not self.ended.wait(0.3):
            self.bytes = max(self.bytes, self.device.used(self.group))

    def end(self):
        self.ended.set()
        self.thread.join(5)
        return self.bytes


class Started:
    """A program in a group of its own, which is ended with all that it started."""

    def __init__(self, command, folder, log, variables=()):
        self.log = folder / log
        with open(self.log, "w") as file:
            environment = os.environ | dict(variables)
            self.process = subprocess.Popen(
                [str(word) for word in command], cwd=folder, stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                start_new_session=True, env=environment,
            )

    def words(self):
        return self.log.read_text(errors="replace")[-3000:]

    def end(self):
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Bench:
    """Everything of a model at a window: its checkpoint, a store, scores."""

    def __init__(self, args, device, folder, model, window):
        self.args, self.device, self.model, self.window = args, device, model, window
        self.config = shape_of(model, args.tiny)
        self.home = Path(folder) / f"{model}-{window}"
        self.home.mkdir()
        self.checkpoint, self.python = Path(folder) / model, sys.executable
        if not self.checkpoint.exists():
            # In a process of its own, whose memory on the device goes with it.
            text = json.dumps(self.config)
            command = [sys.executable, Path(__file__).resolve(), "--make", text, "--device", args.device, "--out", self.checkpoint]
            subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        import numpy

        size = STORE_WINDOWS * (window + 1)
        tokens = numpy.random.default_rng(0).integers(1, self.config["vocab_size"], size, dtype=numpy.uint32)
        tokens[::DOCUMENT] = 0
        numpy.save(self.home / "tokens.npy", tokens)
        self.recipe(Case(model, window, "NTP", False), args.micro, False)
        self.finish("prepare", "--out", "store", "--engine", "cpu")

    def recipe(self, case, micro, recompute):
        args = self.args
        objective = OBJECTIVES[case.objective].format(checkpoint=self.checkpoint)
        text = RECIPE.format(
            python=self.python, device=args.device, compile=str(case.compiled).lower(), processes=args.processes,
            vocab=self.config["vocab_size"], checkpoint=self.checkpoint, window=self.window, batch=args.batch, micro=micro,
            recompute=str(recompute).lower(), objective=objective,
        )
        (self.home / "recipe.toml").write_text(text)

    def finish(self, verb, *arguments):
        """Runs a verb of `remit` to its end. Returns its seconds."""
        began = time.monotonic()
        started = Started([self.args.remit, verb, "--config", "recipe.toml", *arguments], self.home, f"{verb}.log")
        try:
            status = started.process.wait(timeout=600)
        finally:
            started.end()
        if status:
            raise RuntimeError(f"{verb} ended with status {status}: {started.words()}")
        return time.monotonic() - began

    def measure(self, case):
        """Tokens a second, peak memory, and how it fitted."""
        micro = self.args.micro
        tries = [(size, False) for size in (micro, micro // 2, micro // 4) if size] + [(micro, True), (1, True)]
        if self.args.recompute:
            tries = [attempt for attempt in tries if attempt[1]]
        for size, recompute in dict.fromkeys(tries):
            try:
                run = self.run_plain if case.objective == PLAIN else self.run_remit
                rate, peak = run(case, size, recompute)
                return {"tokens_per_second": rate, "peak_bytes": peak, "micro": size, "recompute": recompute}
            except OutOfMemory:
                print(f"  {case}: out of memory with {size} windows at a time{', recomputed' * recompute}", flush=True)
        raise RuntimeError("out of memory in every way")

    def run_remit(self, case, micro, recompute):
        self.recipe(case, micro, recompute)
        if case.objective == "ReMiT, scored" and not (self.home / "scores").exists():
            self.finish("score", "--engine.compile=false")
        number = len(list(self.home.glob("run-*")))
        run = self.home / f"run-{number}"
        command = [self.args.remit, "midtrain", "--config", "recipe.toml", "--run", run.name, "-q"]
        started = Started(command, self.home, f"{run.name}.log")
        peak = Peak(self.device, started.process.pid)
        try:
            seconds = self.follow(case, started, run / "timings.jsonl")
        finally:
            started.end()
            bytes_used = peak.end()
        return self.args.batch * self.window / statistics.median(seconds), bytes_used

    def follow(self, case, started, path):
        """Seconds of the steps that count."""
        warm, wanted = self.args.warm, self.args.steps
        deadline = time.monotonic() + self.args.patience
        while True:
            time.sleep(0.1)
            lines = path.read_text().splitlines() if path.exists() else []
            if len(lines) >= warm + wanted:
                return [json.loads(line)["seconds"] for line in lines[warm : warm + wanted]]
            if started.process.poll() is not None:
                words = started.words()
                if "out of memory" in words.lower():
                    raise OutOfMemory
                raise RuntimeError(f"{case} ended with status {started.process.returncode}: {words}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{case} took {len(lines)} steps in {self.args.patience} s: {started.words()}")

    def run_plain(self, case, micro, recompute):
        # One process without `torchrun`, whose processes are beyond the reach of [`Started.end`].
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", self.args.processes]
        command = [sys.executable, *(launch if self.args.processes > 1 else []), Path(__file__).resolve(), "--plain", self.checkpoint, "--device", self.args.device]
        command += ["--window", self.window, "--micro", micro, "--batch", self.args.batch]
        command += ["--warm", self.args.warm, "--steps", self.args.steps]
        command += ["--recompute"] * recompute + ["--compile"] * case.compiled
        path = self.home / "plain.jsonl"
        path.unlink(missing_ok=True)
        variables = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        variables = (variables if self.args.processes == 1 else {}) | {"OMP_WAIT_POLICY": "PASSIVE"}  # As `remit` does.
        started = Started(command + ["--out", path], self.home, "plain.log", variables)
        peak = Peak(self.device, started.process.pid)
        try:
            seconds = self.follow(case, started, path)
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.process.wait(10 if self.args.processes > 1 else 0)
            started.end()
            bytes_used = peak.end()
        return self.args.batch * self.window / statistics.median(seconds), bytes_used


def free_port():
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def shape_of(model, tiny):
    """The keys of a model's config.json."""
    config = dict(MODELS[model])
    if tiny:
        config |= TINY | {"num_hidden_layers": 4} | (TINY_YOUTU if config["model_type"] == "youtu" else {})
    return config


def make_checkpoint(config, path, device):
    """Random parameters in bf16, as `transformers` draws and writes them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    keys = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None} | config
    config = AutoConfig.for_model(keys.pop("model_type"), **keys)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(path)


def flops_per_token(config, is_plain, window):
    """Of a forward and a backward pass."""
    width, layers, vocab = config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    if config["model_type"] == "youtu":
        rope, nope, value = config["qk_rope_head_dim"], config["qk_nope_head_dim"], config["v_head_dim"]
        latent, queries = config["kv_lora_rank"], config["q_lora_rank"]
        attention = width * (queries + latent + rope) + queries * heads * (nope + rope)
        attention += latent * heads * (nope + value) + heads * value * width
        both = heads * (nope + rope + value) / 2
    else:
        head = config.get("head_dim") or width // heads
        attention = 2 * width * head * (heads + groups)
        both = heads * head
    parameters = layers * (attention + 3 * width * config["intermediate_size"]) + vocab * width
    seen = window / 2 if is_plain else min(window, DOCUMENT) / 2
    return 6 * parameters + 12 * layers * both * seen


# --- The loop of `transformers` ---


def plain(args):
    """Trains a checkpoint as its users do, and writes a line a step."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from transformers import AutoModelForCausalLM

    is_cuda = args.device.startswith("cuda")
    device = torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if is_cuda else "cpu")
    if is_cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if is_cuda else "gloo", **({"device_id": device} if is_cuda else {}))
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = AutoModelForCausalLM.from_pretrained(args.plain, dtype=torch.float32, attn_implementation="sdpa").to(device)
    model.config.use_cache = False
    model.train()
    if args.recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if args.compile:
        for layer in model.model.layers:
            layer.forward = torch.compile(layer.forward)
    policy = MixedPrecisionPolicy(torch.bfloat16 if is_cuda else None, torch.float32)
    mesh = init_device_mesh(device.type, (ranks,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    generator = torch.Generator(device).manual_seed(rank)
    vocab, micro = model.config.vocab_size, max(1, args.micro // ranks)
    parts = args.batch // (micro * ranks)
    for _ in range(args.warm + args.steps):
        started = time.perf_counter()
        for part in range(parts):
            ids = torch.randint(vocab, (micro, args.window + 1), generator=generator, device=device)
            model.set_requires_gradient_sync(part == parts - 1)
            (model(input_ids=ids[:, :-1], labels=ids[:, :-1]).loss / parts).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if is_cuda:
            torch.cuda.synchronize()
        if rank == 0:
            with open(args.out, "a") as file:
                file.write(json.dumps({"seconds": time.perf_counter() - started}) + "\n")
    dist.barrier()
    dist.destroy_process_group()


# --- What talking costs ---

CLOCK = """#!{python}
import json, os, runpy, sys, time
program = sys.argv[2]
sys.argv = sys.argv[2:]
names = runpy.run_path(program, run_name="worker")

class Worker(names["Worker"]):
    def answer_all(self, header, tensors):
        started = time.perf_counter()
        answer = super().answer_all(header, tensors)
        with open("clock.jsonl", "a") as file:
            file.write(json.dumps([header.get("op"), started, time.perf_counter()]) + "\\n")
        return answer

Worker(*names["meet"]()).serve()
"""


def exchange(args, device):
    """On the CPU, 34 million parameters: which part of a step the worker waits for `remit`, and what ReMiT from scores costs over
    next-token prediction; in turns, as other programs come and go."""
    MODELS["34M"] = EXCHANGE
    args.batch, args.micro, args.warm, args.steps, window = 4, 2, 2, 8, 512
    speeds, waits = {"NTP": [], "ReMiT, scored": []}, {"NTP": [], "ReMiT, scored": []}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, device, folder, "34M", window)
        bench.finish("score")
        clock = bench.home / "python"
        clock.write_text(CLOCK.format(python=sys.executable))
        clock.chmod(0o755)
        bench.python = clock
        for turn in range(args.turns + 1):
            for objective in speeds:
                log = bench.home / "clock.jsonl"
                log.unlink(missing_ok=True)
                rate, _ = bench.run_remit(Case("34M", window, objective, False), args.micro, False)
                share = waiting([json.loads(line) for line in log.read_text().splitlines()], args.warm)
                print(f"turn {turn}: {objective}: {rate:.0f} tokens/s, waits {100 * share:.2f}%", flush=True)
                if turn > 0:  # The first finds everything cold.
                    speeds[objective].append(rate)
                    waits[objective].append(share)
    print(f"\n34M parameters, {args.batch} windows of {window} a step, {device.limits}")
    for objective, found in speeds.items():
        rates = ", ".join(f"{rate:.0f}" for rate in found)
        share = statistics.median(waits[objective])
        print(f"{objective}: {rates} tokens/s; the worker waits for `remit` {100 * share:.2f}% of a step (median)")


def waiting(lines, warm):
    """The share of steps, from update to update, in which the worker has nothing to do; their median. `lines` are `(operation,
    start, end)`."""
    ends = [index for index, (op, *_) in enumerate(lines) if op == "update"][warm - 1 :]
    shares = []
    for first, last in zip(ends, ends[1:]):
        wall = lines[last][2] - lines[first][2]
        shares.append(1 - sum(end - start for _, start, end in lines[first + 1 : last + 1]) / wall)
    return statistics.median(shares)


# --- What is run ---


def cases_of(args):
    """What to measure, the most telling first."""
    if args.quick:
        model, window = args.models[0], args.windows[-1]
        order = [("NTP", True), ("ReMiT, scored", True), (PLAIN, True), ("ReMiT, online", True), ("NTP", False), (PLAIN, False)]
        return [Case(model, window, objective, compiled) for objective, compiled in order]
    modes = [False] if args.eager or args.tiny else [False, True]
    return [
        Case(model, window, objective, compiled)
        for model in args.models
        for window in args.windows
        for compiled in modes
        for objective in (*OBJECTIVES, PLAIN)
    ]


def product_speed(args):
    """TFLOP/s of a large product in bf16: what this device gives at most."""
    program = (
        "import torch, time\n"
        "a = torch.randn(8192, 8192, device='cuda', dtype=torch.bfloat16); b = a.clone()\n"
        "for _ in range(10): a @ b\n"
        "torch.cuda.synchronize(); t = time.perf_counter()\n"
        "for _ in range(50): a @ b\n"
        "torch.cuda.synchronize(); print(50 * 2 * 8192**3 / (time.perf_counter() - t) / 1e12)\n"
    )
    with contextlib.suppress(Exception):
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        return float(found.stdout)
    return None


def table(args, device, rows, versions):
    """The figures, as Markdown."""
    lines = [f"{device.name} ({device.limits}); {versions}; {args.processes} process(es), {args.batch} windows a step"]
    if device.peak:
        lines.append(f"nominal peak {device.peak:.0f} TFLOP/s in dense bf16")
    if args.product:
        lines.append(f"measured on a product of 8192 x 8192 x 8192: {args.product:.0f} TFLOP/s")
    lines += ["", "| model | window | | | windows at a time | tokens/s | of NTP | MFU | peak GiB |", "|---|---:|---|---|---:|---:|---:|---:|---:|"]
    rates = {case: row["tokens_per_second"] for case, row in rows}
    for case, row in rows:
        rate = row["tokens_per_second"]
        ntp = rates.get(Case(case.model, case.window, "NTP", case.compiled))
        per_token = flops_per_token(shape_of(case.model, args.tiny), case.objective == PLAIN, case.window)
        utilisation = f"{rate * per_token / (device.peak * 1e12 * args.processes):.3f}" if device.peak else "-"
        size = f"{row['micro']}{', recomputed' * row['recompute']}"
        mode = "compiled" if case.compiled else "eager"
        ratio = f"{rate / ntp:.3f}" if ntp else "-"
        memory = f"{row['peak_bytes'] / GIB:.1f}"
        lines.append(f"| {case.model} | {case.window} | {mode} | {case.objective} | {size} | {rate:.0f} | {ratio} | {utilisation} | {memory} |")
    return "\n".join(lines)


def versions():
    """Of the packages."""
    from importlib.metadata import version

    return f"torch {version('torch')}, transformers {version('transformers')}, Python {sys.version.split()[0]}"


def measure_all(args, device):
    """Runs every case that there is time for."""
    began, rows, longest = time.monotonic(), [], 30.0
    if device.is_cuda:
        args.product = product_speed(args)
    report = lambda: table(args, device, rows, versions())
    with tempfile.TemporaryDirectory() as folder:
        benches = {}
        for case in cases_of(args):
            left = args.seconds - (time.monotonic() - began)
            if left < longest:
                print(f"{case}: left out, {left:.0f} s remain", flush=True)
                continue
            started = time.monotonic()
            args.patience = min(args.patience, left)
            try:
                key = case.model, case.window
                if key not in benches:
                    benches[key] = Bench(args, device, folder, *key)
                row = benches[key].measure(case)
            except Exception as error:  # noqa: BLE001 - the others are measured all the same.
                print(f"{case}: {error}", flush=True)
                continue
            rows.append((case, row))
            took = time.monotonic() - started
            print(f"{case}: {row['tokens_per_second']:.0f} tokens/s, {row['peak_bytes'] / GIB:.1f} GiB ({took:.0f} s)", flush=True)
            if args.out:
                args.out.write_text(report() + "\n")
    print(f"\n{report()}")
    return len(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--remit", default="target/release/remit", help="the program")
    parser.add_argument("--device", help="cuda or cpu; what there is by default")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--windows", nargs="+", type=int, help="2048 and 4096 by default")
    parser.add_argument("--batch", type=int, default=8, help="windows a step")
    parser.add_argument("--micro", type=int, default=2, help="windows at a time, of all processes together")
    parser.add_argument("--processes", type=int, default=1, help="each on a device of its own")
    parser.add_argument("--warm", type=int, default=6, help="steps that do not count")
    parser.add_argument("--steps", type=int, default=15, help="steps that count, of which the median is taken")
    parser.add_argument("--seconds", type=float, default=1e6, help="of everything together")
    parser.add_argument("--patience", type=float, default=600, help="seconds of one run")
    parser.add_argument("--peak", type=float, help="nominal TFLOP/s of the device in dense bf16, where it is not known")
    parser.add_argument("--turns", type=int, default=3, help="of --exchange")
    parser.add_argument("--quick", action="store_true", help="the first model at the longest window, within 230 seconds")
    parser.add_argument("--tiny", action="store_true", help="small shapes")
    parser.add_argument("--exchange", action="store_true", help="what talking to `remit` costs, on the CPU")
    parser.add_argument("--eager", action="store_true", help="nothing compiled")
    parser.add_argument("--recompute", action="store_true", help="recomputation in every run")
    parser.add_argument("--out", type=Path, help="file for the table, written anew with each figure")
    parser.add_argument("--make", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--window", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        return make_checkpoint(args.make, args.out, args.device)
    if args.plain:
        return plain(args)
    args.remit, args.product = Path(args.remit).resolve(), None
    if args.device is None:
        args.device = "cuda" if Device.smi("name") else "cpu"
    if args.tiny or args.exchange:
        args.device = "cpu"
        args.batch, args.warm, args.steps = 4, 2, 6
    args.windows = args.windows or ([128, 256] if args.tiny else [2048, 4096])
    if args.quick:
        args.seconds = min(args.seconds, 230)
    device = Device(args.device, args.peak)
    if args.exchange:
        return exchange(args, device)
    sys.exit(measure_all(args, device) == 0)


if __name__ == "__main__":
    main()
