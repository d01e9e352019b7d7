#!/usr/bin/env python3
"""The PyTorch worker held to the golden values, over the protocol that `remit` talks to it.

Starts `crates/engine/src/torch/worker.py`, plays the other side, and compares with `golden/models/<family>` and with
autograd: log-probabilities, gradients by name, five AdamW steps, continuations, packed documents against documents
alone, accumulation, the z-loss, distillation, recomputation, and saving and going on. Prints a table with the tolerance
beside each figure and ends with status 1 where one falls short.

    python parity/engine.py
    python parity/engine.py --device cuda --dtype bf16 --compile

`Client` below is all it takes to drive the worker from Python; `engine_benchmark.py` uses it too.
"""

import argparse
import json
import math
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parent.parent
WORKER = ROOT / "crates/engine/src/torch/worker.py"
GOLDEN = ROOT / "golden/models"
FAMILIES = ("llama", "llama3", "olmo2", "smollm3", "youtu", "qwen3")
KINDS = {"f32": "<f4", "f64": "<f8", "u32": "<u4", "i64": "<i8", "u8": "|u1"}
OPTIMIZER = {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1}


class WorkerError(Exception):
    """What the worker answered instead."""

    def __init__(self, error):
        super().__init__("\n".join(str(error[key]) for key in ("kind", "message", "hint", "traceback") if error[key]))
        self.error = error


class Client:
    """The other side of the worker: one request, one answer.

    `talking` sums what was spent on pipes: between sending and answer, less what the worker says it computed.
    """

    def __init__(self, python=sys.executable, worker=WORKER, processes=1, limit=600, **configure):
        command = [python, "-u", worker, "--processes", str(processes), "--limit", str(limit)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.talking = 0.0
        self.hello, _ = self._receive()
        settings = {"device": "auto", "dtype": "f32", "compile": False, "attention": "auto", "tf32": False, "seed": 0, "threads": None}
        self.ask("configure", **settings | configure)

    def send(self, header, tensors=None):
        names = {kind: name for name, kind in KINDS.items()}
        arrays = {name: np.ascontiguousarray(array) for name, array in (tensors or {}).items()}
        header["tensors"] = [{"name": n, "dtype": names[a.dtype.str], "shape": list(a.shape)} for n, a in arrays.items()]
        text = json.dumps(header).encode()
        self.process.stdin.write(b"RMT1" + struct.pack("<IQ", len(text), sum(a.nbytes for a in arrays.values())) + text)
        for array in arrays.values():
            self.process.stdin.write(array.tobytes())
        self.process.stdin.flush()

    def _receive(self):
        stream = self.process.stdout
        start = stream.read(16)
        if len(start) < 16:
            sys.exit(f"the worker ended with status {self.process.wait()}")
        magic, (length, size) = start[:4], struct.unpack("<IQ", start[4:])
        assert magic == b"RMT1", start
        header, payload = json.loads(stream.read(length)), stream.read(size)
        if header.get("error"):
            raise WorkerError(header["error"])
        tensors, offset = {}, 0
        for part in header.get("tensors", []):
            kind, count = np.dtype(KINDS[part["dtype"]]), math.prod(part["shape"])
            tensors[part["name"]] = np.frombuffer(payload, kind, count, offset).reshape(part["shape"])
            offset += count * kind.itemsize
        assert offset == size
        return header, tensors

    def ask(self, op, tensors=None, on_event=None, **header):
        """The answer's header and tensors. `on_event` gets the tensors of each event, returns the requests to end."""
        started = time.perf_counter()
        self.send({"op": op, **header}, tensors)
        answer = self._receive()
        while "event" in answer[0]:
            self.send({"op": "continue", "stop": on_event(answer[1])})
            answer = self._receive()
        self.talking += time.perf_counter() - started - answer[0].get("seconds", 0.0)
        return answer

    def learn(self, path, decayed=None, model=0, **more):
        """Makes the learner; parameters of two and more dimensions decay."""
        defaults = {
            "temperature": 1.0, "parameters": None, "moments": None, "updates": 0, "decayed": decayed or matrices(path),
            "optimizer": OPTIMIZER, "clip_norm": 1.0, "recompute": False, "end_tokens": [],
        }
        return self.ask("learn", model=model, path=str(path), **defaults | more)[0]

    def open(self, model, path, temperature=1.0):
        return self.ask("open", model=model, path=str(path), temperature=temperature)[0]

    def log_probs(self, model, batch, unmasked=False):
        return self.ask("log_probs", batch, model=model, unmasked=unmasked)[1]["log_probs"]

    def accumulate(self, batch, rule):
        """Adds the gradient of a batch. `rule(log_probs, lse)` gives the derivative by both, [N] each."""
        forward = self.ask("forward", batch)[1]
        d_log_probs, d_lse = rule(forward["log_probs"], forward["lse"])
        self.ask("backward", {"d_log_probs": np.float32(d_log_probs), "d_lse": np.float32(d_lse)})
        return forward

    def update(self, learning_rate):
        return self.ask("update", learning_rate=learning_rate)[0]["gradient_norm"]

    def gradients(self):
        return self.ask("gradients")[1]

    def generate(self, model, prompts, max_new, watch=None, **more):
        """Completions as dictionaries with `tokens`, `log_probs` and `finish`."""
        settings = {
            "max_batch": 64, "greedy": True, "temperature": 1.0, "top_k": None, "top_p": 1.0, "log_prob_temperature": 1.0,
            "stop_sequences": [], "end_tokens": [], "watch": watch is not None,
        }
        seeds = more.pop("seeds", range(len(prompts)))
        lengths = [max_new] * len(prompts) if isinstance(max_new, int) else max_new
        tensors = {
            "prompts": np.concatenate([np.array(prompt, np.uint32) for prompt in prompts]),
            "lengths": np.array([len(prompt) for prompt in prompts], np.uint32),
            "max_new": np.array(lengths, np.uint32),
            "seeds": np.array(list(seeds), np.int64),
        }
        found = self.ask("generate", tensors, watch, model=model, **settings | more)[1]
        ends = np.cumsum(found["lengths"])[:-1]
        parts = np.split(found["tokens"], ends), np.split(found["log_probs"], ends), found["finish"]
        return [{"tokens": t.tolist(), "log_probs": p, "finish": int(f)} for t, p, f in zip(*parts)]

    def close(self):
        self.process.stdin.close()
        return self.process.wait()


def matrices(path):
    """Names of the parameters of a checkpoint that have two and more dimensions."""
    return [name for name, array in load_file(Path(path) / "model.safetensors").items() if array.ndim >= 2]


def batch_of(tokens, starts=None, mask=None):
    """The tensors of windows of token ids, [W, T + 1]."""
    tokens = np.asarray(tokens, np.uint32)
    batch = {"inputs": tokens[:, :-1], "targets": tokens[:, 1:]}
    batch["mask"] = np.ones(batch["inputs"].shape, np.uint8) if mask is None else np.asarray(mask, np.uint8)
    if starts is not None:
        batch["starts"] = np.asarray(starts, np.uint32)
    return batch


def part_of(batch, windows):
    """Some windows of a batch."""
    return {name: array[windows] for name, array in batch.items()}


def ntp(denominator):
    """Next-token prediction."""
    return lambda log_probs, lse: (np.full_like(log_probs, -1 / denominator), np.zeros_like(lse))


def remit_weights(learner, reference, epsilon=0.2):
    """ReMiT's weights, [W, T] each: twice the sigmoid of the gap less its window's mean, clipped around 1."""
    gap = (reference - learner).astype(np.float64)
    weights = 2 / (1 + np.exp(gap.mean(1, keepdims=True) - gap))
    return np.clip(weights, 1 - epsilon, 1 + epsilon)


def remit(reference, denominator):
    """ReMiT's rule beside a reference's log-probabilities, [W, T]."""

    def rule(log_probs, lse):
        weights = remit_weights(log_probs.reshape(reference.shape), reference).reshape(-1)
        return -weights / denominator, np.zeros_like(lse)

    return rule


def off(found, wanted):
    """Norm of the difference over the norm of what is wanted."""
    found, wanted = (np.asarray(array, np.float64).ravel() for array in (found, wanted))
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-30))


def cosine(found, wanted):
    """Of all tensors together, by name."""
    a, b = (np.concatenate([part[name].ravel().astype(np.float64) for name in wanted]) for part in (found, wanted))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


class Checks:
    """The worker's figures of a family, each with what is allowed."""

    def __init__(self, client, family, exact, folder):
        self.client, self.exact, self.folder = client, exact, Path(folder)
        self.home, self.family = GOLDEN / family, family
        self.golden = json.loads((self.home / "golden.json").read_text())
        self.values = load_file(self.home / "forward.safetensors")
        self.batch = batch_of(self.values["input_ids"])
        self.reference = self.values["logp_reference"]
        self.rows = []

    def row(self, what, figure, tolerance, at_least=False):
        good = figure >= tolerance if at_least else figure <= tolerance
        self.rows.append((self.family, what, figure, f"{'>=' if at_least else '<='} {tolerance:g}", good))

    def gradient_row(self, what, found, wanted, tolerance):
        """Tensor by tensor in float32; in bf16 the direction of all together."""
        if self.exact:
            worst = max(wanted, key=lambda name: off(found[name], wanted[name]))
            self.row(what, off(found[worst], wanted[worst]), tolerance)
        else:
            self.row(f"{what}: cosine", cosine(found, wanted), 0.999, at_least=True)

    def learner(self, **more):
        return self.client.learn(self.home / "learner", **more)

    def gradient(self, batch, rule, parts=None):
        """Of a batch, in so many micro-batches."""
        self.client.ask("begin")
        for windows in np.array_split(np.arange(len(batch["inputs"])), parts or 1):
            self.client.accumulate(part_of(batch, windows), rule)
        return {name: array.copy() for name, array in self.client.gradients().items()}

    def run(self):
        self.learner()
        self.client.open(1, self.home / "reference")
        for check in (
            self.forward, self.remit_gradient, self.ntp_norms, self.steps, self.greedy, self.sampling, self.documents,
            self.accumulation, self.masked, self.temperature, self.z_loss, self.distillation, self.distances,
            self.recompute, self.round_trip,
        ):
            started = time.perf_counter()
            check()
            print(f"{self.family} {check.__name__}: {time.perf_counter() - started:.2f} s", file=sys.stderr)
        for model in (0, 1):
            self.client.ask("close", model=model)
        return self.rows

    def forward(self):
        tolerance = 1e-4 if self.exact else 2e-2
        for model, name in ((0, "logp_learner"), (1, "logp_reference")):
            found = self.client.log_probs(model, self.batch)
            self.row(f"log-probabilities, {name[5:]}", off(found, self.values[name]), tolerance)
        if not self.exact:  # Both sides compute in bf16 from here on, so weights come from their own numbers.
            self.reference = self.client.log_probs(1, self.batch).reshape(self.reference.shape)

    def remit_gradient(self):
        wanted = load_file(self.home / "grad_remit.safetensors")
        rule = remit(self.reference, self.reference.size)
        found = self.gradient(self.batch, rule)
        assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
        self.gradient_row("ReMiT gradient", found, wanted, 1e-3)

    def ntp_norms(self):
        wanted = self.golden["grad_ntp_norms"]
        found = self.gradient(self.batch, ntp(self.reference.size))
        errors = [abs(np.linalg.norm(found[name].astype(np.float64)) / norm - 1) for name, norm in wanted.items()]
        self.row("NTP gradient norms", max(errors), 1e-3 if self.exact else 0.1)

    def steps(self):
        """Losses and gradient norms of five steps, and the parameters after them against the optimiser's formula."""
        worst = {"loss": 0.0, "ntp_loss": 0.0, "grad_norm": 0.0, "mean_weight": 0.0}
        self.learner()
        for step in self.golden["adamw"]["steps"]:
            self.client.ask("begin")
            log_probs = self.client.accumulate(self.batch, remit(self.reference, self.reference.size))["log_probs"]
            weights = remit_weights(log_probs.reshape(self.reference.shape), self.reference).reshape(-1)
            found = {
                "loss": -(weights * log_probs).mean(), "ntp_loss": -log_probs.mean(), "mean_weight": weights.mean(),
                "grad_norm": self.client.update(self.golden["adamw"]["lr"]),
            }
            for name, value in found.items():
                worst[name] = max(worst[name], abs(value / step[name] - 1))
        for name, error in worst.items():
            exact = 1e-3 if name == "grad_norm" else 1e-4
            self.row(f"five AdamW steps, {name}", error, exact if self.exact else 5e-2 if name == "grad_norm" else 1e-2)
        self.adamw()

    def adamw(self):
        """One more step by the formula, in float64."""
        self.learner()
        before = {name: array.astype(np.float64) for name, array in self.client.ask("parameters")[1].items()}
        gradient = self.gradient(self.batch, ntp(self.reference.size))
        norm = np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in gradient.values()))
        found_norm, rate = self.client.update(1e-3), 1e-3
        self.row("gradient norm", abs(found_norm / norm - 1), 1e-5)
        errors, found = [], self.client.ask("parameters")[1]
        for name, p in before.items():
            g = gradient[name].astype(np.float64) * min(1, 1 / (norm + 1e-6))
            p = p * (1 - rate * OPTIMIZER["weight_decay"]) if p.ndim >= 2 else p
            m_hat, v_hat = g, g * g  # Of the first step.
            errors.append(np.abs(found[name] - (p - rate * m_hat / (np.sqrt(v_hat) + OPTIMIZER["epsilon"]))).max())
        self.row("AdamW by its formula, largest difference", float(max(errors)), 1e-6)
        self.learner()

    def greedy(self):
        length = self.golden["greedy_prompt_len"]
        wanted = self.golden["greedy_ids"]
        prompts = self.values["input_ids"][:, :length].tolist()
        found = self.client.generate(0, prompts, len(wanted[0]) - length, max_batch=2)
        differ = sum(a["tokens"] != b[length:] for a, b in zip(found, wanted))
        if self.exact:
            self.row("greedy continuations that differ", differ, 0)
        # What was written, scored by the model itself.
        windows = [prompt + completion["tokens"] for prompt, completion in zip(prompts, found)]
        scores = self.client.log_probs(0, batch_of(windows)).reshape(len(prompts), -1)[:, length - 1 :]
        errors = [off(completion["log_probs"], row) for completion, row in zip(found, scores)]
        self.row("log-probabilities of what was written", max(errors), 1e-4 if self.exact else 5e-2)

    def sampling(self):
        """Batches, order and the number of places change no completion; end tokens, stops and watching end them."""
        generator = np.random.default_rng(5)
        prompts = [generator.integers(1, 160, size).tolist() for size in (3, 17, 9, 1, 9, 12, 30)]
        prompts[4] = prompts[2]
        lengths, more = [12, 40, 5, 33, 5, 0, 20], {"greedy": False, "temperature": 1.3, "top_p": 0.95, "top_k": 60}
        all_at_once = self.client.generate(0, prompts, lengths, **more)
        two_places = self.client.generate(0, prompts, lengths, max_batch=2, **more)
        alone = [self.client.generate(0, [p], [n], seeds=[s], **more)[0] for s, (p, n) in enumerate(zip(prompts, lengths))]
        same = all(a["tokens"] == b["tokens"] == c["tokens"] for a, b, c in zip(all_at_once, two_places, alone))
        assert [len(completion["tokens"]) for completion in alone] == lengths
        assert all_at_once[2]["tokens"] != all_at_once[4]["tokens"], "seeds make the difference"
        if self.exact:
            self.row("samples that depend on the batch", int(not same), 0)
        whole = alone[1]["tokens"]
        end, stop = whole[7], whole[3:5]
        first_end, first_stop = whole.index(end), next(i for i in range(40) if whole[i : i + 2] == stop) + 1
        ended = self.client.generate(0, [prompts[1]], 40, seeds=[1], end_tokens=[end], **more)[0]
        stopped = self.client.generate(0, [prompts[1]], 40, seeds=[1], stop_sequences=[stop], **more)[0]
        seen = []

        def watch(event):
            seen.extend(event["tokens"].tolist())
            return [0] if len(seen) == 6 else []

        watched = self.client.generate(0, [prompts[1]], 40, watch=watch, seeds=[1], **more)[0]
        good = (ended["tokens"], ended["finish"]) == (whole[: first_end + 1], 0)
        good &= (stopped["tokens"], stopped["finish"]) == (whole[: first_stop + 1], 1)
        good &= (watched["tokens"], watched["finish"], seen) == (whole[:6], 1, whole[:6])
        self.row("ends, stops and watching that fail", int(not good), 0)

    def documents(self):
        """Three documents in each window: rows as if each document were alone, and the same gradient."""
        ids, cuts = self.values["input_ids"], [(0, 13), (13, 14), (14, 48)]
        starts = np.concatenate([np.full(end - start, start) for start, end in cuts])
        packed = batch_of(ids, np.tile(starts, (len(ids), 1)))
        alone = [batch_of(ids[:, start : end + 1]) for start, end in cuts]
        wanted = [self.client.log_probs(0, part).reshape(len(ids), -1) for part in alone]
        found = self.client.log_probs(0, packed)
        tolerance = 1e-4 if self.exact else 2e-2
        self.row("packed documents against documents alone", off(found, np.concatenate(wanted, 1)), tolerance)
        rule = ntp(self.reference.size)
        self.client.ask("begin")
        for part in alone:
            self.client.accumulate(part, rule)
        wanted = {name: array.copy() for name, array in self.client.gradients().items()}
        self.gradient_row("packed documents, gradient", self.gradient(packed, rule), wanted, 1e-3)

    def accumulation(self):
        generator = np.random.default_rng(3)
        batch = batch_of(generator.integers(0, 160, (8, 33)))
        rule = ntp(8 * 32)
        one, eight = self.gradient(batch, rule), self.gradient(batch, rule, parts=8)
        self.gradient_row("gradient of 8 x 1 windows against 1 x 8", eight, one, 1e-5)

    def masked(self):
        """Rows without a slope, and predictions that are not asked for."""
        generator = np.random.default_rng(4)
        batch = self.batch | {"mask": generator.integers(0, 2, self.batch["mask"].shape).astype(np.uint8)}
        mask = batch["mask"].reshape(-1) == 1
        every, some = self.client.log_probs(0, batch), self.client.log_probs(0, batch, unmasked=True)
        self.row("unmasked log-probabilities", off(some, every[mask]), 1e-5 if self.exact else 1e-2)

        def rule(value):
            return lambda log_probs, lse: (np.where(mask, -1e-2, value), np.zeros_like(lse))

        tiny, zero = self.gradient(batch, rule(1e-30)), self.gradient(batch, rule(0.0))
        self.gradient_row("gradient of masked rows left out", zero, tiny, 1e-5)

    def temperature(self):
        """Log-probabilities at a temperature against logits, and their gradient by finite differences."""
        self.learner(temperature=0.7)
        logits = self.values["logits"][:, :-1].astype(np.float64) / 0.7
        logits = logits - logits.max(-1, keepdims=True)
        wanted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        wanted = np.take_along_axis(wanted, self.batch["targets"].astype(np.int64)[..., None], -1)
        self.row("log-probabilities at temperature 0.7", off(self.client.log_probs(0, self.batch), wanted), 1e-4 if self.exact else 2e-2)
        self.differences("gradient at temperature 0.7", ntp(self.reference.size), lambda log_probs, lse: -log_probs.mean())
        self.learner()

    def z_loss(self):
        count = self.reference.size

        def rule(log_probs, lse):
            return np.full_like(log_probs, -1 / count), 2e-1 * lse / count

        def loss(log_probs, lse):
            return -log_probs.mean() + 1e-1 * (lse.astype(np.float64) ** 2).mean()

        self.differences("gradient with z-loss", rule, loss)

    def differences(self, what, rule, loss):
        """A gradient against the change of the loss along it, by central differences of checkpoints."""
        if not self.exact:
            return
        names = ("model.norm.weight", "model.embed_tokens.weight", "model.layers.1.self_attn.o_proj.weight")
        temperature = 0.7 if "0.7" in what else 1.0
        gradient = self.gradient(self.batch, rule)
        worst = 0.0
        for name in names:
            direction = gradient[name].astype(np.float64) / np.linalg.norm(gradient[name])
            values = []
            for step in (1e-3, -1e-3):
                self.moved(name, step * direction, temperature)
                found = self.client.ask("forward", self.batch)[1]
                self.client.ask("forget")
                values.append(loss(found["log_probs"].astype(np.float64), found["lse"]))
            slope = (values[0] - values[1]) / 2e-3
            worst = max(worst, abs(slope / np.linalg.norm(gradient[name].astype(np.float64)) - 1))
        self.learner(temperature=temperature)
        self.row(f"{what}, against finite differences", worst, 2e-3)

    def moved(self, name, change, temperature):
        """The learner with one parameter changed."""
        from safetensors.numpy import save_file

        parameters = load_file(self.home / "learner/model.safetensors")
        parameters[name] = (parameters[name] + change).astype(np.float32)
        path = self.folder / "moved.safetensors"
        save_file(parameters, path)
        self.learner(parameters=str(path), temperature=temperature)

    def distillation(self):
        """Sums and gradients against autograd of whole logits, in float64."""
        import torch

        student, teacher = self.network("learner"), self.network("reference")
        mask = np.random.default_rng(6).integers(0, 2, self.batch["mask"].shape).astype(np.uint8)
        ids, rows = torch.tensor(self.batch["inputs"].astype(np.int64)), torch.tensor(mask == 1)
        targets = torch.tensor(self.batch["targets"].astype(np.int64))[rows]
        with torch.no_grad():
            aim = teacher(ids).logits[rows].double()
        for direction, alpha, tau in (("forward", 0.5, 1.0), ("reverse", 0.3, 2.0)):
            logits = student(ids).logits[rows].double()
            log_s, log_t = torch.log_softmax(logits / tau, -1), torch.log_softmax(aim / tau, -1)
            over, other = (log_t, log_s) if direction == "forward" else (log_s, log_t)
            divergence = (over.exp() * (over - other)).sum()
            cross_entropy = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
            student.zero_grad()
            (((1 - alpha) * cross_entropy + alpha * tau**2 * divergence) / int(mask.sum())).backward()
            wanted = {name: parameter.grad.numpy() for name, parameter in student.named_parameters()}
            self.client.ask("begin")
            rule = {"alpha": alpha, "temperature": tau, "direction": direction, "denominator": float(mask.sum())}
            found = self.client.ask("distill", self.batch | {"mask": mask}, teacher=1, **rule)[0]
            assert found["bad_row"] is None
            pairs = (found["cross_entropy"], cross_entropy.item()), (found["divergence"], divergence.item())
            error = max(abs(a / b - 1) for a, b in pairs)
            self.row(f"distillation, {direction}: sums", error, 1e-4 if self.exact else 2e-2)
            self.gradient_row(f"distillation, {direction}: gradient", self.client.gradients(), wanted, 1e-3)

    def network(self, role):
        """A checkpoint in `transformers`, for autograd. Without a padding token: some versions zero its embedding."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.set_num_threads(1)
        config = AutoConfig.from_pretrained(self.home / role)
        config.pad_token_id = None
        return AutoModelForCausalLM.from_pretrained(self.home / role, config=config, dtype=torch.float32).eval()

    def distances(self):
        """Against logits, in float64, by the definitions."""
        import torch

        self.client.open(2, self.home / "learner")
        found = self.client.ask("distances", self.batch, learner=2, reference=1)[1]["distances"]
        nothing = self.client.ask("distances", self.batch, learner=2, reference=2)[1]["distances"]
        self.client.ask("close", model=2)
        ids = torch.tensor(self.batch["inputs"].astype(np.int64))
        targets = torch.tensor(self.batch["targets"].astype(np.int64))[..., None]
        with torch.no_grad():
            q, p = (
                torch.log_softmax(self.network(role)(ids).logits.double(), -1) for role in ("learner", "reference")
            )
        nll, reference_nll = (-part.gather(-1, targets)[..., 0] for part in (q, p))
        columns = [
            nll - reference_nll, (p.exp() * (p - q)).sum(-1), (q.exp() * (q - p)).sum(-1), q.argmax(-1) == p.argmax(-1),
            -(q.exp() * q).sum(-1), -(p.exp() * p).sum(-1), nll, reference_nll,
        ]
        wanted = torch.stack([column.double() for column in columns], -1).reshape(-1, 8).numpy()
        errors = [off(found[:, i], wanted[:, i]) for i in range(8)]
        self.row("distances", max(errors) if self.exact else max(errors[:3] + errors[4:]), 1e-4 if self.exact else 5e-2)
        self.row("distances of a model to itself", float(np.abs(nothing[:, :3]).max()), 0)

    def recompute(self):
        rule = ntp(self.reference.size)
        wanted = self.gradient(self.batch, rule)
        self.learner(recompute=True)
        self.gradient_row("gradient with recomputation", self.gradient(self.batch, rule), wanted, 1e-6)
        cuts = np.repeat([[0, 20]], [20, 28], 1)[0]
        batch = batch_of(self.values["input_ids"], np.tile(cuts, (3, 1)))
        again = self.gradient(batch, rule)
        self.learner()
        self.gradient_row("the same with documents", again, self.gradient(batch, rule), 1e-6)

    def round_trip(self):
        """Two steps, saved, opened, two more: as four in one go. Files are those of the `safetensors` library."""
        rule = ntp(self.reference.size)

        def steps(count):
            for _ in range(count):
                self.client.ask("begin")
                self.client.accumulate(self.batch, rule)
                self.client.update(1e-3)

        self.learner()
        steps(2)
        differ = 0
        for dtype, limit in (("f32", None), ("bf16", 30_000)):
            directory = self.folder / f"{self.family}-{dtype}"
            directory.mkdir()
            self.client.ask("save", directory=str(directory), dtype=dtype, max_shard_bytes=limit)
            for name in ("config.json", "generation_config.json"):
                (directory / name).write_bytes((self.home / "learner" / name).read_bytes())
            differ += sum(not library_writes(path) for path in directory.rglob("*.safetensors"))
        self.row("files that the safetensors library writes otherwise", differ, 0)
        steps(2)
        wanted = {name: array.copy() for name, array in self.client.ask("parameters")[1].items()}
        worst = 0.0
        for dtype in ("f32", "bf16"):
            directory = self.folder / f"{self.family}-{dtype}"
            exact = str(directory / "state/parameters.safetensors") if dtype == "bf16" else None
            moments = str(directory / "state/optimizer.safetensors")
            decayed = [name for name, array in wanted.items() if array.ndim >= 2]
            self.client.learn(directory, decayed, parameters=exact, moments=moments, updates=2)
            steps(2)
            found = self.client.ask("parameters")[1]
            worst = max(worst, max(float(np.abs(found[name] - wanted[name]).max()) for name in wanted))
        self.row("saved and gone on, largest difference", worst, 0 if self.exact else 1e-3)


def library_writes(path):
    """Whether the safetensors library writes the same bytes."""
    from safetensors.torch import load_file, save

    return save(load_file(path), metadata={"format": "pt"}) == path.read_bytes()


def errors(client):
    """What is asked wrongly is answered, and the worker goes on."""
    wrong = (
        ("open", {"model": 1, "path": "/nowhere", "temperature": 1.0}, "user"),
        ("open", {"model": 1, "path": str(ROOT / "golden"), "temperature": 1.0}, "user"),
        ("configure", {"device": "cuda:99", "dtype": "f32", "attention": "auto", "compile": False, "tf32": False, "seed": 0}, "user"),
        ("dance", {}, "internal"),
        ("begin", {}, "internal"),
    )
    bad = 0
    for op, header, kind in wrong:
        try:
            client.ask(op, **header)
            bad += 1
        except WorkerError as error:
            bad += error.error["kind"] != kind
    client.ask("memory")
    return [("-", "mistakes that are not answered", bad, "<= 0", bad == 0)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="f32", choices=("f32", "bf16"))
    parser.add_argument("--attention", default="auto", choices=("auto", "varlen", "sdpa"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of the worker, on the CPU; the models are tiny")
    parser.add_argument("--processes", type=int, default=1, help="ranks")
    parser.add_argument("--sharding", default="full", choices=("full", "none"), help="of several ranks")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    args = parser.parse_args()
    settings = {key: getattr(args, key) for key in ("device", "dtype", "attention", "compile", "threads", "processes", "sharding")}
    client = Client(**settings)
    hello = client.hello
    print(f"torch {hello['torch']}, transformers {hello['transformers']}, {args.device}, {args.dtype}", flush=True)
    # What is a mistake of one rank ends several.
    rows = errors(client) if args.processes == 1 else []
    with tempfile.TemporaryDirectory() as folder:
        for family in args.families:
            kind = client.learn(GOLDEN / family / "learner")
            print(f"{family}: attention {kind['attention']} ({kind['attention_note']})", flush=True)
            rows += Checks(client, family, args.dtype == "f32", folder).run()
    status = client.close()
    rows.append(("-", "status after the end of its input", status, "<= 0", status == 0))
    print("\n| family | figure | found | allowed | |\n|---|---|---:|---:|---|")
    for family, what, figure, allowed, good in rows:
        print(f"| {family} | {what} | {figure:.3g} | {allowed} | {'' if good else '**FALLS SHORT**'} |")
    bad = sum(not row[-1] for row in rows)
    print(f"\n{len(rows)} figures, {bad} fall short")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
