"""The PyTorch worker: models, gradients and updates for a program that talks to it over a pair of pipes.

The other side writes requests to standard input and reads answers from the descriptor that was standard output. A
frame is

    b"RMT1" | header length u32 | payload length u64 | header, a JSON object in UTF-8 | payload

with little-endian numbers; `header["tensors"]` lists `{name, dtype, shape}` of what lies in the payload, one after
another. Every request has an `op`; every answer has `ok`, or `error`. Words: `W` windows, `T` predictions a window,
`N = W * T` rows, `D` the hidden width, `V` the vocabulary. Log-probabilities are in nats.

What a loss is, this file does not know: `forward` hands out the log-probability and the log-sum-exp of every row and
keeps the graph, `backward` takes the derivative by both. The only exception is distillation, which needs logits.

Numbers: parameters, gradients and moments are float32. With `dtype` "bf16" the model computes on bfloat16 copies of its
parameters, refreshed after each update, and every gradient is added to its float32 sum as soon as autograd has it. Against
autocast this keeps the stream of activations in bfloat16 too, which is faster and takes half the memory; the log-softmax and
everything after it are float32. On CUDA results are reproducible up to the order of atomic additions, not to the bit.

Many: with `--processes N`, rank 0 starts the others on this machine; with `--launcher torchrun` or `slurm` something else has
started all of them, on one machine or several. Rank 0 alone talks to the program above. It hands every other rank its share of
a request over a socket of its own, in the same frames, does its own share, and puts the answers together in the order of ranks.
Ranks exchange gradients and parameters by `torch.distributed`. A rank that fails ends all of them, and rank 0 says which it was.

Positions count from the start of the window, also where documents do not see one another: rotations are relative, so a
document behaves as if it were alone up to rounding. The engine on the CPU does the same.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import datetime
import functools
import json
import math
import os
import platform
import queue
import re
import resource
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator

PROTOCOL = 1
MAGIC = b"RMT1"
HEADER_BYTES_MAX = 64 << 20
PAYLOAD_BYTES_MAX = 1 << 40
NEEDED = {"numpy": "1.24", "safetensors": "0.4", "torch": "2.6", "transformers": "5.0"}


# --- Frames. Nothing here needs a library, so that a missing one can be reported. ---


class Channel:
    """Frames in both directions."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO):
        self.reader, self.writer = reader, writer
        self.lock = threading.Lock()

    @staticmethod
    def standard() -> Channel:
        """Takes standard input and output for frames. Whatever prints from now on, prints to standard error."""
        reader = os.fdopen(os.dup(0), "rb", buffering=1 << 20)
        writer = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        return Channel(reader, writer)

    @staticmethod
    def over(connection: socket.socket) -> Channel:
        """Frames over a connection between ranks."""
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return Channel(connection.makefile("rb", 1 << 20), connection.makefile("wb", 1 << 20))

    def send(self, header: dict[str, Any], tensors: dict[str, Any] | None = None) -> None:
        """Writes a frame; `tensors` are numpy arrays by name."""
        arrays = {name: numpy.ascontiguousarray(array) for name, array in (tensors or {}).items()}
        if arrays:
            kinds = {array_kind: kind for kind, array_kind in KINDS.items()}
            header = header | {
                "tensors": [
                    {"name": name, "dtype": kinds[array.dtype.str], "shape": list(array.shape)}
                    for name, array in arrays.items()
                ]
            }
        text = json.dumps(header, allow_nan=False).encode()
        size = sum(array.nbytes for array in arrays.values())
        with self.lock:
            self.writer.write(MAGIC + struct.pack("<IQ", len(text), size) + text)
            for array in arrays.values():
                if array.size:
                    self.writer.write(memoryview(array).cast("B"))
            self.writer.flush()

    def receive(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The next frame's header and tensors; `None` at the end of the stream."""
        start = self._read(16, may_end=True)
        if start is None:
            return None
        length, size = struct.unpack("<IQ", start[4:])
        if bytes(start[:4]) != MAGIC or length > HEADER_BYTES_MAX or size > PAYLOAD_BYTES_MAX:
            raise ProtocolError(f"not a frame: it begins with {bytes(start)!r}")
        header = json.loads(self._read(length).decode())
        payload = self._read(size)
        return header, unpack(header.get("tensors", []), payload)

    def _read(self, size: int, may_end: bool = False) -> bytearray | None:
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            count = self.reader.readinto(view[done:])
            if not count:
                if may_end and not done:
                    return None
                raise ProtocolError("the stream ends within a frame")
            done += count
        return data


KINDS = {"f32": "<f4", "f64": "<f8", "u32": "<u4", "i64": "<i8", "u8": "|u1"}


def unpack(descriptions: list[dict[str, Any]], payload: bytearray) -> dict[str, Any]:
    """Tensors of a payload, as arrays that share its memory."""
    tensors, offset = {}, 0
    for description in descriptions:
        if description["dtype"] not in KINDS:
            raise ProtocolError(f"no such element type: {description['dtype']}")
        kind, shape = numpy.dtype(KINDS[description["dtype"]]), description["shape"]
        count = math.prod(shape)
        end = offset + count * kind.itemsize
        if end > len(payload):
            raise ProtocolError(f"tensor `{description['name']}` is longer than its frame")
        tensors[description["name"]] = numpy.frombuffer(payload, kind, count, offset).reshape(shape)
        offset = end
    if offset != len(payload):
        raise ProtocolError(f"{len(payload) - offset} bytes of a frame belong to no tensor")
    return tensors


class ProtocolError(Exception):
    """A frame that the other side should not have sent."""


class UserError(Exception):
    """What the user can put right: a message with the facts, and how to go on."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Place:
    """Which of several processes this is."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    launcher: str | None = None
    """What has started all ranks; without, rank 0 starts the others."""
    limit: float = 600.0
    """Seconds that a request may take."""

    @staticmethod
    def find(arguments: list[str]) -> Place:
        """From the command line, and from the variables of whatever has started this."""
        parser = argparse.ArgumentParser(description="The PyTorch worker of `remit`, which starts it.")
        parser.add_argument("--processes", type=int, default=1)
        parser.add_argument("--rank", type=int, default=0)
        parser.add_argument("--launcher", choices=("torchrun", "slurm"))
        parser.add_argument("--limit", type=float, default=600.0)
        given = parser.parse_args(arguments)
        if given.launcher is None:
            return Place(given.rank, given.processes, given.rank, None, given.limit)
        if given.launcher == "slurm":
            take_slurm()
        rank, world_size, local_rank = (variable(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if not os.environ.get(name):
                raise UserError(f"the variable {name} is not set", LAUNCH_HINT)
        return Place(rank, world_size, local_rank, given.launcher, given.limit)


LAUNCH_HINT = "start `remit` by torchrun or srun, or leave `[engine] launcher` out to start all processes here"


def variable(name: str) -> int:
    """A number that a launcher has left in the environment."""
    text = os.environ.get(name, "")
    if not text.isdigit():
        raise UserError(f"the variable {name} is {repr(text) if text else 'not set'}; it should be a number", LAUNCH_HINT)
    return int(text)


def take_slurm() -> None:
    """Gives SLURM's variables the names that `torch.distributed` reads."""
    for ours, theirs in (("RANK", "SLURM_PROCID"), ("WORLD_SIZE", "SLURM_NTASKS"), ("LOCAL_RANK", "SLURM_LOCALID")):
        os.environ[ours] = str(variable(theirs))
    if not os.environ.get("MASTER_ADDR"):
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST") or ""
        os.environ["MASTER_ADDR"] = first_node(nodes)
    if not os.environ.get("MASTER_PORT"):
        os.environ["MASTER_PORT"] = str(20_000 + variable("SLURM_JOB_ID") % 10_000)


def first_node(nodes: str) -> str:
    """The first of SLURM's list of nodes: `a[03-07,9],b1` begins with `a03`."""
    found = re.match(r"([^\[,]+)(?:\[([^\],-]+)[^\]]*\]([^\[,]*))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else ""


def failure(kind: str, message: str, hint: str | None = None, trace: str | None = None) -> dict[str, Any]:
    """The header of an answer that reports an error."""
    return {
        "ok": False,
        "error": {"kind": kind, "message": message, "hint": hint, "rank": PLACE.rank, "traceback": trace},
    }


def version_of(text: str) -> tuple[int, ...]:
    """`2.11.0+cu130` as (2, 11)."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in text.split("+")[0].split(".")[:2])


def find_libraries() -> str | None:
    """What is wrong with the installed packages, if anything."""
    from importlib.metadata import PackageNotFoundError, version

    for package, needed in NEEDED.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            return f"the Python package `{package}` is not installed (at least {needed} is needed)"
        if version_of(found) < version_of(needed):
            return f"the Python package `{package}` is version {found}, but at least {needed} is needed"
    return None


def refuse_to_start(message: str, hint: str | None = None) -> None:
    """Says why there will be no answers, and ends."""
    if CHANNEL is None:
        print(message, file=sys.stderr)
        os._exit(1)
    packages = " ".join(f"'{package}>={needed}'" for package, needed in NEEDED.items())
    hint = hint or f"install what is missing for the Python that was started: {sys.executable} -m pip install {packages}"
    CHANNEL.send({"protocol": PROTOCOL, **failure("user", message, hint)})
    os._exit(0)


PLACE = Place()


class Children:
    """The ranks that rank 0 has started on this machine, and the end of what each has written to standard error."""

    LINES = 20
    SECRET = "REMIT_RANKS"

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=PLACE.world_size)
        self.secret = secrets.token_hex(16)
        environment = os.environ | {self.SECRET: f"127.0.0.1 {self.listener.getsockname()[1]} {self.secret}"}
        command = [sys.executable, "-u", __file__, "--processes", str(PLACE.world_size), "--limit", str(PLACE.limit)]
        self.processes, self.words = {}, {}
        for rank in range(1, PLACE.world_size):
            self.processes[rank] = subprocess.Popen(
                [*command, "--rank", str(rank)],
                env=environment, stdin=subprocess.DEVNULL, stdout=2, stderr=subprocess.PIPE,
            )
            self.words[rank] = collections.deque(maxlen=self.LINES)
            threading.Thread(target=self._keep, args=(rank,), daemon=True).start()

    def _keep(self, rank: int) -> None:
        for line in self.processes[rank].stderr:
            text = line.decode(errors="replace").rstrip()
            self.words[rank].append(text)
            print(f"[rank {rank}] {text}", file=sys.stderr, flush=True)

    def fate(self, rank: int) -> tuple[str, str]:
        """How a rank that is gone has ended, and its last words."""
        if rank not in self.processes:
            return "has ended; its own standard error may say why", ""
        try:
            status = self.processes[rank].wait(5.0)
        except subprocess.TimeoutExpired:
            return "has closed its connection", "\n".join(self.words[rank])
        time.sleep(0.1)  # Its last words may be on their way.
        how = f"was ended by signal {-status}" if status < 0 else f"has ended with exit status {status}"
        return how, "\n".join(self.words[rank])

    def kill(self) -> None:
        """Ends them, also those that are stopped."""
        for process in self.processes.values():
            with contextlib.suppress(OSError):
                process.kill()


def die_with_parent() -> None:
    """On Linux a rank that another process has started ends with it, even if it is stopped then."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


signal.signal(signal.SIGINT, signal.SIG_IGN)  # The other side decides what an interrupt ends.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
CHANNEL: Channel | None = None
CHILDREN: Children | None = None
try:
    PLACE = Place.find(sys.argv[1:])
except UserError as error:
    CHANNEL = Channel.standard()
    refuse_to_start(str(error), error.hint)
if PLACE.rank == 0:
    CHANNEL = Channel.standard()
else:
    die_with_parent()
if problem := find_libraries():
    refuse_to_start(problem)
if PLACE.rank == 0 and PLACE.launcher is None and PLACE.world_size > 1:
    CHILDREN = Children()  # Early: they load their libraries while this process does.
try:
    import numpy
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    import transformers
    from safetensors import safe_open
    from torch import Tensor
except ImportError as error:
    refuse_to_start(f"a Python package cannot be imported: {error}")
try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None

transformers.utils.logging.disable_progress_bar()


# --- Many ranks ---


class Link:
    """A channel that a thread reads: the process ends at once when the other side is gone, whatever it is doing."""

    def __init__(self, channel: Channel):
        self.channel, self.frames, self.turn = channel, queue.SimpleQueue(), threading.Lock()
        self.send = channel.send
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while (frame := self.channel.receive()) is not None:
                self.frames.put(frame)
        except BaseException:  # noqa: BLE001 - nothing can be answered any more.
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def receive(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The next frame."""
        return self.frames.get()

    def exchange(self, header: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Sends an event and returns the reply to it."""
        with self.turn:
            self.send(header, tensors)
            return self.receive()


Answer = tuple[dict[str, Any], dict[str, Any]]


class Company:
    """The other ranks, seen from rank 0. A thread listens to each; the first that fails ends all of them."""

    GRACE = 1.5
    """Seconds in which failures are gathered: one that fails makes others fail."""
    PATIENCE = 10.0
    """Seconds in which all ranks that cannot have what is asked for will have said so."""
    KINDS = ("out_of_memory", "ended", "user", "internal")
    """Whichever of them comes first explains the others."""

    def __init__(self, link: Link, channels: dict[int, Channel]):
        self.link, self.channels = link, channels
        self.answers: dict[int, queue.SimpleQueue[Answer]] = {rank: queue.SimpleQueue() for rank in channels}
        self.heard = dict.fromkeys(channels, time.monotonic())
        self.waiting: set[int] = set()
        self.deadline = math.inf
        self.number = 0
        self.failures: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        for rank in channels:
            threading.Thread(target=self._listen, args=(rank,), daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def ask(self, header: dict[str, Any], shares: list[Answer]) -> None:
        """Hands its share of a request to every other rank; `shares` are by rank, that of rank 0 among them."""
        self.number += 1
        self.waiting = set(self.channels)
        self.deadline = time.monotonic() + PLACE.limit
        for rank, channel in self.channels.items():
            with contextlib.suppress(OSError):  # Who is gone is found by the thread that listens.
                channel.send(header | shares[rank][0], shares[rank][1])

    def gather(self, own: Answer) -> list[Answer]:
        """The answers of all ranks, in order. One that is an error is an error of all; it is survived only where all say
        that what was asked for cannot be had."""
        self.judge(own[0])
        answers = [own]
        for rank in self.channels:
            # An answer that does not come ends this process, by one of the threads.
            answers.append(self.answers[rank].get())
        self.deadline = math.inf
        bad = [answer for answer in answers if not answer[0]["ok"]]
        if bad and len(bad) < len(answers):
            self.fail(bad[0][0]["error"])
        return bad or answers

    def judge(self, header: dict[str, Any]) -> None:
        """Ends all ranks for an answer that is an error. Where all may say so it is waited for; not for long, as the others
        may be waiting for this one."""
        if header["ok"]:
            return
        number, error = self.number, header["error"]
        if error["kind"] != "user":
            self.fail(error)
        timer = threading.Timer(
            self.PATIENCE, lambda: self.number == number and self.deadline < math.inf and self.fail(error)
        )
        timer.daemon = True
        timer.start()

    def fail(self, error: dict[str, Any]) -> None:
        """Ends all ranks. Does not return to the thread of the requests."""
        with self.lock:
            self.failures.append(error)
            is_first = len(self.failures) == 1
        if is_first:
            threading.Thread(target=self._end).start()
        if threading.current_thread() is threading.main_thread():
            threading.Event().wait()

    def _end(self) -> None:
        time.sleep(self.GRACE)
        error = min(self.failures, key=lambda error: self.KINDS.index(error["kind"]))
        if error["kind"] != "ended":
            error = error | {"message": f"rank {error['rank']}: {error['message']}"}
        with contextlib.suppress(OSError):
            self.link.send({"ok": False, "error": error})
        self.part()
        os._exit(1)

    def part(self) -> None:
        """Lets go of the others, which end with that."""
        self.failures.append({"kind": "internal"})  # That they end is no failure now.
        for channel in self.channels.values():
            with contextlib.suppress(OSError):
                channel.writer.close()
        if CHILDREN is not None:
            CHILDREN.kill()

    def _listen(self, rank: int) -> None:
        channel = self.channels[rank]
        with contextlib.suppress(Exception):
            while (frame := channel.receive()) is not None:
                self.heard[rank] = time.monotonic()
                self._hear(rank, *frame)
        if not self.failures:
            how, words = CHILDREN.fate(rank) if CHILDREN else ("has ended; its own standard error may say why", "")
            self.fail(self.ended(rank, how, words))

    def _hear(self, rank: int, header: dict[str, Any], tensors: dict[str, Any]) -> None:
        if "beat" in header:
            return
        if "event" in header:
            self.channels[rank].send(*self.link.exchange(header, tensors))
            self.deadline = time.monotonic() + PLACE.limit
            return
        self.waiting.discard(rank)
        self.judge(header)
        self.answers[rank].put((header, tensors))

    def _watch(self) -> None:
        """Ends all when a request takes too long."""
        while True:
            time.sleep(0.2)
            now = time.monotonic()
            if now > self.deadline and not self.failures:
                silent = [rank for rank in self.channels if now - self.heard[rank] > 5 * BEAT]
                rank = min(silent or self.waiting or {0})
                how = "has given no sign of life" if silent else "has not answered"
                words = "\n".join(CHILDREN.words[rank]) if CHILDREN and rank in CHILDREN.words else ""
                self.fail(self.ended(rank, f"{how} within {PLACE.limit:g} s", words))

    @staticmethod
    def ended(rank: int, how: str, words: str) -> dict[str, Any]:
        """The error of a rank that is no more, or as good as that."""
        message = f"rank {rank} of {PLACE.world_size} {how}"
        return {"kind": "ended", "message": message, "hint": None, "rank": rank, "traceback": words or None}


BEAT = 1.0
"""Seconds between signs of life."""
STORE: Any = None
"""Where ranks that a launcher has started find one another."""


def meet() -> tuple[Link, Company | None]:
    """Connects rank 0 with the others. Returns what this rank is asked over, and on rank 0 the others."""
    global STORE
    wait = datetime.timedelta(seconds=PLACE.limit)
    if PLACE.launcher is not None and PLACE.world_size > 1:
        # torchrun has a store of its own at this address, which it tells PyTorch in a variable.
        STORE, _, _ = next(dist.rendezvous("env://", PLACE.rank, PLACE.world_size, timeout=wait))
    if PLACE.rank == 0:
        link = Link(CHANNEL)
        return link, Company(link, accept()) if PLACE.world_size > 1 else None
    if STORE is None:
        host, port, secret = os.environ[Children.SECRET].split()
    else:
        port, secret = STORE.get("remit/address").decode().split()
        host = os.environ["MASTER_ADDR"]
    channel = Channel.over(socket.create_connection((host, int(port)), PLACE.limit))
    channel.send({"rank": PLACE.rank, "secret": secret})
    link = Link(channel)
    threading.Thread(target=beat, args=(channel,), daemon=True).start()
    return link, None


def beat(channel: Channel) -> None:
    """Gives signs of life."""
    while True:
        time.sleep(BEAT)
        with contextlib.suppress(OSError):
            channel.send({"beat": True})


def accept() -> dict[int, Channel]:
    """The connections of all other ranks, by rank."""
    if STORE is None:
        listener, secret = CHILDREN.listener, CHILDREN.secret
    else:
        listener, secret = socket.create_server(("", 0), backlog=PLACE.world_size), secrets.token_hex(16)
        STORE.set("remit/address", f"{listener.getsockname()[1]} {secret}")
    channels: dict[int, Channel] = {}
    end = time.monotonic() + PLACE.limit
    listener.settimeout(0.2)
    while len(channels) < PLACE.world_size - 1:
        missing = sorted(set(range(1, PLACE.world_size)) - channels.keys())
        gone = [rank for rank in missing if CHILDREN and CHILDREN.processes[rank].poll() is not None]
        if gone or time.monotonic() > end:
            how, words = CHILDREN.fate(gone[0]) if gone else (f"has not come within {PLACE.limit:g} s", "")
            error = Company.ended((gone or missing)[0], f"{how} before it was ready", words)
            CHANNEL.send({"protocol": PROTOCOL, "ok": False, "error": error})
            if CHILDREN:
                CHILDREN.kill()
            os._exit(1)
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            connection.settimeout(10.0)
            channel = Channel.over(connection)
            with contextlib.suppress(Exception):  # Whoever else it is.
                greeting, _ = channel.receive()
                if secrets.compare_digest(greeting["secret"], secret):
                    channels[greeting["rank"]] = channel
    return dict(sorted(channels.items()))


def share_of(count: int, rank: int) -> slice:
    """A rank's part of so many things in a row, as even as it goes."""
    return slice(count * rank // PLACE.world_size, count * (rank + 1) // PLACE.world_size)


def all_equal(rows: int) -> int:
    """Rows of each rank's part of a tensor that is cut along its first dimension; the last parts may be shorter, or empty."""
    return -(-rows // PLACE.world_size)


def gather_rows(part: Tensor, rows: int) -> Tensor:
    """The whole tensor, of each rank's rows. All ranks call it."""
    size = all_equal(rows)
    if len(part) < size:
        part = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
    whole = part.new_empty(size * PLACE.world_size, *part.shape[1:])
    dist.all_gather_into_tensor(whole, part.contiguous())
    return whole[:rows]


# --- How the worker computes ---


@dataclass
class Settings:
    """What `configure` says."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    compile: bool = False
    attention: str = "auto"
    sharded: bool = False
    """Whether each rank has its part of the learner only."""

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def choose_device(name: str) -> torch.device:
    """The device of a setting: `auto`, `cpu`, `cuda` or `cuda:N`. Each of several ranks has its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if PLACE.world_size > 1 and name == "cuda":
        # Some launchers show each process its own device only.
        alone = PLACE.launcher is not None and torch.cuda.is_available() and torch.cuda.device_count() == 1
        name = "cuda:0" if alone else f"cuda:{PLACE.local_rank}"
    elif PLACE.world_size > 1 and name.startswith("cuda"):
        raise UserError(f"{PLACE.world_size} processes cannot share `{name}`", 'use device = "cuda": each has its own')
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"there is no device `{name}`", "use auto, cuda, cuda:N or cpu") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(
                f"device `{name}` is asked for, but PyTorch {torch.__version__} sees {count} CUDA devices",
                "use `cpu`, or install a PyTorch that was built for the driver of this machine",
            )
        return torch.device("cuda", device.index or 0)
    if device.type != "cpu":
        raise UserError(f"device `{name}` is not supported", "use auto, cuda, cuda:N or cpu")
    return device


def to_device(array: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """An array on the device. Unsigned numbers become int64, which PyTorch indexes with."""
    if array.dtype.kind == "u":
        array = array.astype(numpy.int64)
    elif not array.flags.writeable:
        array = array.copy()
    return torch.from_numpy(array).to(device, dtype)


def to_array(tensor: Tensor) -> Any:
    """A tensor as a numpy array on the host."""
    return tensor.detach().cpu().numpy()


# --- Attention ---

ATTENTION = "remit"


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    documents: Tensor | None = None,
    spans: tuple[tuple[int, int, int], ...] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention as `transformers` asks for it. `query` is [W, H, T, E], `key` [W, G, S, E], `value` [W, G, S, Ev];
    the result [W, T, H, Ev]. One of these says what is seen:

    `attention_mask` [W, 1, 1, S]: of cached keys, while one token a row is decoded;
    `documents` [documents + 1], int32: where documents begin among all rows, for the kernel of variable lengths;
    `spans`: `(window, from, to)` of each document, to be computed one after another;
    none of them: each window is one document.
    """
    if attention_mask is not None:
        result = attend_cached(query, key, value, attention_mask, scaling)
    elif documents is not None:
        return attend_varlen(query, key, value, documents, scaling), None
    elif spans is not None:
        result = attend_spans(query, key, value, spans, scaling)
    else:
        result = attend_causal(query, key, value, scaling)
    return result.transpose(1, 2), None


def attend_causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Each window is one document. On CUDA the arguments are shaped so that the flash kernel takes them: values are
    padded to the width of keys."""
    width, grouped = value.shape[-1], query.shape[1] != key.shape[1]
    if query.is_cuda:
        value = F.pad(value, (0, query.shape[-1] - width)) if query.shape[-1] > width else value
    elif grouped:
        key, value, grouped = *repeat_heads(query, key, value), False
    result = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    return result[..., :width]


def repeat_heads(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """A key and a value head for each query head."""
    times = query.shape[1] // key.shape[1]
    return key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)


@torch.compiler.disable
def attend_spans(
    query: Tensor, key: Tensor, value: Tensor, spans: tuple[tuple[int, int, int], ...], scaling: float | None
) -> Tensor:
    """One document after another. Memory and work are those of the documents, not of a dense mask."""
    windows: list[list[Tensor]] = [[] for _ in range(query.shape[0])]
    for window, start, end in spans:
        part = [tensor[window : window + 1, :, start:end] for tensor in (query, key, value)]
        windows[window].append(attend_causal(*part, scaling))
    return torch.cat([torch.cat(parts, 2) for parts in windows])


def attend_varlen(query: Tensor, key: Tensor, value: Tensor, documents: Tensor, scaling: float | None) -> Tensor:
    """All documents in one call of the flash kernel; the result is [W, T, H, Ev] already. The kernel wants one width of keys
    and values, a multiple of 8."""
    (windows, heads, length, wide), width = query.shape, value.shape[-1]
    if scaling is None:
        scaling = wide**-0.5
    common = -(-max(wide, width) // 8) * 8

    def rows(tensor: Tensor) -> Tensor:
        padded = F.pad(tensor, (0, common - tensor.shape[-1])) if tensor.shape[-1] < common else tensor
        return padded.transpose(1, 2).reshape(windows * length, tensor.shape[1], common)

    # The window's length bounds every document's: a constant, so that compiled code is not made anew for each batch.
    result = varlen_attn(
        rows(query), rows(key), rows(value), documents, documents, length, length, scale=scaling, window_size=(-1, 0)
    )
    return result.view(windows, length, heads, common)[..., :width]


def attend_cached(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """One query a row over cached keys; query heads that share a key are rows of one product."""
    rows, heads, _, width = query.shape
    groups = key.shape[1]
    query = query.view(rows, groups, heads // groups, width)
    result = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return result.reshape(rows, heads, 1, value.shape[-1])


transformers.AttentionInterface.register(ATTENTION, attend)


def varlen_problem(config: Any, settings: Settings) -> str | None:
    """Why the kernel of variable lengths cannot be used for a model, if so: it is tried forward and backward with the
    model's heads and compared with scaled dot products."""
    if settings.device.type != "cuda":
        return "it needs CUDA"
    if varlen_attn is None:
        return f"PyTorch {torch.__version__} has no torch.nn.attention.varlen"
    if settings.dtype != torch.bfloat16:
        return "it needs bf16"
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "qk_head_dim", None) or getattr(config, "head_dim", None) or config.hidden_size // heads
    if getattr(config, "qk_nope_head_dim", None):
        width = config.qk_nope_head_dim + config.qk_rope_head_dim
    value_width = getattr(config, "v_head_dim", None) or width
    try:
        return try_varlen(settings.device, heads, groups, width, value_width)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other kernel serves.
        return f"it fails here: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def try_varlen(device: torch.device, heads: int, groups: int, width: int, value_width: int) -> str | None:
    """Compares both kernels on two windows of two documents each."""
    generator = torch.Generator(device).manual_seed(0)

    def random(count: int, size: int) -> Tensor:
        shape = (2, count, 96, size)
        return torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16).requires_grad_()

    arguments = random(heads, width), random(groups, width), random(groups, value_width)
    starts = torch.tensor([0, 40, 96, 130, 192], dtype=torch.int32, device=device)
    spans = ((0, 0, 40), (0, 40, 96), (1, 0, 34), (1, 34, 96))
    scale = width**-0.5
    found = attend_varlen(*arguments, starts, scale)
    wanted = attend_spans(*(argument.float() for argument in arguments), spans, scale).transpose(1, 2)
    slope = torch.randn(wanted.shape, generator=generator, device=device)
    pairs = [(found.float(), wanted)]
    gradients = [torch.autograd.grad(result, arguments, slope.to(result.dtype)) for result in (found, wanted)]
    pairs += [(a.float(), b.float()) for a, b in zip(*gradients)]
    error = max(((a - b).norm() / b.norm()).item() for a, b in pairs)
    return None if error < 2e-2 else f"its numbers differ from scaled dot products by {error:.1e}"


def sees(starts: Any | None, settings: Settings, varlen: bool) -> dict[str, Any]:
    """The arguments of [`attend`] for the first position that each row may attend to, [W, T]; rows of a document
    follow one another."""
    if starts is None or not starts.any():
        return {}
    begins = starts == numpy.arange(starts.shape[1])
    if varlen:
        # Compiled code is made anew for each number of documents: so it is rounded up, with empty ones at the end.
        places = numpy.flatnonzero(begins)
        count = -(-(len(places) + 1) // 32) * 32
        documents = numpy.full(count, starts.size, numpy.int32)
        documents[: len(places)] = places
        return {"documents": torch.from_numpy(documents).to(settings.device)}
    spans = []
    for window, row in enumerate(begins):
        places = [*numpy.flatnonzero(row).tolist(), starts.shape[1]]
        spans += [(window, start, end) for start, end in zip(places, places[1:])]
    return {"spans": tuple(spans)}


# --- The head ---


class Head:
    """The last product, in chunks of rows: never are there float32 logits of more than `rows` rows."""

    def __init__(self, settings: Settings, vocab_size: int):
        elements = 1 << 28 if settings.device.type == "cuda" else 1 << 22
        self.rows = max(16, elements // vocab_size // 16 * 16)
        self.wide = settings.dtype == torch.float32 or can_widen(settings)
        compiled = functools.partial(torch.compile, dynamic=False) if settings.compile else lambda function: function
        self.score, self.slopes = compiled(score), compiled(slopes)
        self.settings = settings

    def chunks(self, count: int, share: int = 1) -> Iterator[slice]:
        """Slices of `count` rows, `share` times smaller than usual."""
        rows = max(1, self.rows // share)
        return (slice(start, min(start + rows, count)) for start in range(0, count, rows))

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """`left @ right` in float32, not rounded on the way where the device can."""
        if left.dtype == torch.float32 or not self.wide:
            return (left @ right).float()
        return torch.mm(left, right, out_dtype=torch.float32)

    def logits(self, hidden: Tensor, matrix: Tensor, temperature: float = 1.0) -> Tensor:
        """Of `hidden` [n, D] and the head's matrix [V, D]: [n, V] float32, divided by the temperature."""
        logits = self.product(hidden, matrix.T)
        return logits if temperature == 1.0 else logits.div_(temperature)

    @torch.no_grad()
    def log_probs(self, hidden: Tensor, matrix: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """The log-probability of the targets and the log-sum-exp of each row, [n] float32 each."""
        parts = [
            self.score(self.logits(hidden[rows], matrix, temperature), targets[rows])
            for rows in self.chunks(len(hidden))
        ]
        if not parts:
            empty = torch.empty(0, device=hidden.device)
            return empty, empty
        log_probs, lse = zip(*parts)
        return torch.cat(log_probs), torch.cat(lse)

    @torch.no_grad()
    def backward(
        self,
        hidden: Tensor,
        matrix: Tensor,
        targets: Tensor,
        lse: Tensor,
        slope: tuple[Tensor, Tensor],
        temperature: float,
        gradient: Tensor,
    ) -> Tensor:
        """The gradient by `hidden`, from the slope of the loss by log-probability and log-sum-exp, [n] each. The
        gradient by the matrix is added to `gradient` [V, D]."""
        d_hidden = torch.empty_like(hidden)
        d_log_probs, d_lse = (part / temperature for part in slope)
        for rows in self.chunks(len(hidden)):
            logits = self.logits(hidden[rows], matrix, temperature)
            d_logits = self.slopes(logits, lse[rows], targets[rows], d_log_probs[rows], d_lse[rows], hidden.dtype)
            del logits
            torch.mm(d_logits, matrix, out=d_hidden[rows])
            self.add_product(gradient, d_logits, hidden[rows])
        return d_hidden

    def add_product(self, gradient: Tensor, d_logits: Tensor, hidden: Tensor) -> None:
        """Adds the gradient by the matrix of some rows."""
        if d_logits.dtype == torch.float32:
            gradient.addmm_(d_logits.T, hidden)
        else:
            gradient.add_(self.product(d_logits.T, hidden))


def can_widen(settings: Settings) -> bool:
    """Whether products of bfloat16 matrices come in float32."""
    try:
        zeros = torch.zeros(16, 16, dtype=torch.bfloat16, device=settings.device)
        return torch.mm(zeros, zeros, out_dtype=torch.float32).dtype == torch.float32
    except (RuntimeError, TypeError):
        return False


def score(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """`(log p of the targets, log-sum-exp)` of logits [n, V]."""
    lse = torch.logsumexp(logits, -1)
    return logits.gather(1, targets[:, None])[:, 0] - lse, lse


def slopes(
    logits: Tensor, lse: Tensor, targets: Tensor, d_log_probs: Tensor, d_lse: Tensor, dtype: torch.dtype
) -> Tensor:
    """The gradient by logits [n, V], in `dtype`: with `p = softmax(z)`, `d log p_x / dz_v = [v = x] - p_v` and
    `d lse / dz_v = p_v`. Overwrites the logits."""
    factor = d_lse - d_log_probs
    at_target = torch.exp(logits.gather(1, targets[:, None])[:, 0] - lse) * factor + d_log_probs
    result = logits.sub_(lse[:, None]).exp_().mul_(factor[:, None]).to(dtype)
    return result.scatter_(1, targets[:, None], at_target[:, None].to(dtype))


# --- Models ---


class Model:
    """A model that computes; frozen unless it is a [`Learner`]'s."""

    def __init__(self, settings: Settings, path: str, temperature: float, dtype: torch.dtype):
        self.settings, self.temperature, self.path = settings, temperature, path
        self.network = load_network(path, dtype)
        self.body = self.network.base_model
        self.vocab_size = self.network.lm_head.out_features
        self.head = Head(settings, self.vocab_size)
        self.tied = self.network.lm_head.weight is self.body.embed_tokens.weight
        problem = varlen_problem(self.network.config, settings) if settings.attention != "sdpa" else "`sdpa` is asked for"
        if problem and settings.attention == "varlen":
            raise UserError(f"attention over variable lengths cannot be used: {problem}", "use `auto` or `sdpa`")
        self.varlen, self.attention_note = problem is None, problem
        self.network.eval().requires_grad_(False)

    @property
    def matrix(self) -> Tensor:
        """The head's, [V, D]."""
        return self.network.lm_head.weight

    def place(self) -> None:
        """Moves the model to its device and compiles its blocks if asked to."""
        self.network.to(self.settings.device)
        self.compile()

    def compile(self) -> None:
        """Has blocks compiled, if asked to."""
        if self.settings.compile:
            torch._dynamo.config.recompile_limit = 64
            for layer in self.body.layers:
                if isinstance(self, Learner) and self.settings.sharded:
                    layer.forward = torch.compile(layer.forward)  # What FSDP does around it is not compiled.
                else:
                    layer.compile()

    def hidden(self, tensors: dict[str, Any]) -> Tensor:
        """What the head reads, [N, D], of a batch's `inputs` and `starts`, [W, T] each."""
        inputs = self.check(tensors["inputs"])
        positions = torch.arange(inputs.shape[1], device=self.settings.device)[None]
        output = self.body(
            input_ids=to_device(inputs, self.settings.device),
            position_ids=positions,
            use_cache=False,
            **sees(tensors.get("starts"), self.settings, self.varlen),
        )
        return output.last_hidden_state.flatten(0, 1)

    def check(self, ids: Any) -> Any:
        """Token ids, if the model has them: on CUDA a wrong one would end the process."""
        if ids.size and int(ids.max()) >= self.vocab_size:
            raise UserError(f"token id {int(ids.max())} is outside the vocabulary of {self.vocab_size} of {self.path}")
        return ids

    def targets(self, tensors: dict[str, Any]) -> Tensor:
        """[N] on the device."""
        return to_device(self.check(tensors["targets"]).reshape(-1), self.settings.device)

    @torch.no_grad()
    def log_probs(self, tensors: dict[str, Any], unmasked: bool) -> Tensor:
        """Of the targets, [N] or only where the mask is true."""
        hidden, targets = self.hidden(tensors), self.targets(tensors)
        if unmasked:
            rows = unmasked_rows(tensors, self.settings)
            hidden, targets = hidden[rows], targets[rows]
        return self.head.log_probs(hidden, self.matrix, targets, self.temperature)[0]

    def assemble(self) -> None:
        """Has all parameters here until [`Model::take_apart`]; they are, unless it is a learner in parts."""

    def take_apart(self) -> None:
        """Ends [`Model::assemble`]."""

    def close(self) -> None:
        """Forgets the parameters."""
        self.network = self.body = None

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """Blocks as they are, not compiled: shapes change with every token."""
        layers = list(self.body.layers)
        compiled = [(layer._compiled_call_impl, layer.__dict__.pop("forward", None)) for layer in layers]
        was_training = self.network.training
        self.network.eval()
        for layer in layers:
            layer._compiled_call_impl = None
        self.assemble()
        try:
            yield
        finally:
            self.take_apart()
            for layer, (call, forward) in zip(layers, compiled):
                layer._compiled_call_impl = call
                if forward is not None:
                    layer.forward = forward
            self.network.train(was_training)


def unmasked_rows(tensors: dict[str, Any], settings: Settings) -> Tensor:
    """Indices of the rows whose mask is true."""
    return torch.from_numpy(numpy.flatnonzero(tensors["mask"])).to(settings.device)


def load_network(path: str, dtype: torch.dtype) -> Any:
    """A causal language model of a directory in Hugging Face layout, with every parameter that it needs."""
    if not (Path(path) / "config.json").is_file():
        everywhere = "every process reads checkpoints, also fresh ones below TMPDIR: put them where all machines see them"
        raise UserError(f"`{path}` holds no checkpoint: there is no config.json", everywhere if PLACE.launcher else None)
    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
        # A padding token's embedding is one like any other: it has a gradient, and some versions of transformers would
        # replace what the checkpoint has by zeros.
        config.pad_token_id = None
        network, report = transformers.AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            attn_implementation=ATTENTION,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        hint = f"transformers {transformers.__version__} reads checkpoints of the families that it knows"
        raise UserError(f"cannot open the checkpoint `{path}`: {error}", hint) from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if names := sorted(str(name) for name in report.get(what, ())):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            words = what.replace("_", " ").replace("keys", "parameters")
            raise UserError(f"the checkpoint `{path}` does not fit its config.json: {words} {', '.join(names[:3])}{more}")
    head = getattr(network, "lm_head", None)
    if not isinstance(head, torch.nn.Linear) or head.bias is not None or network.base_model is network:
        raise UserError(f"the model of `{path}` has no plain head", "families: llama, olmo2, smollm3, youtu, qwen3")
    return network


# --- The learner ---


@dataclass
class Parameter:
    """One parameter of the learner. On a rank that has its part only, `master` and `gradient` have the rows of
    [`Parameter.rows`]; behind them may be rows of zeros, so that all parts are equal."""

    shape: torch.Size
    master: Tensor
    """Float32."""
    gradient: Tensor
    """Float32, the sum so far."""
    copy: Tensor | None = None
    """What the model computes with, whole; `None` where FSDP has it."""
    whole_gradient: Tensor | None = None
    """Of `copy`, until the parts of all ranks are added up, where `gradient` is a part."""

    def rows(self, is_part: bool) -> slice:
        """Which rows of the whole tensor are here."""
        count = self.shape[0]
        if not is_part:
            return slice(0, count)
        size = all_equal(count)
        return slice(min(size * PLACE.rank, count), min(size * (PLACE.rank + 1), count))


class Learner(Model):
    """A model with float32 parameters, their gradients and an optimiser.

    Several ranks either have all of it each, and add up their gradients before an update; or have their part each. Then
    FSDP has the blocks: it gathers one at a time, in the type to compute with, and reduces its gradient in float32. The
    embedding and the head's matrix are used outside of blocks: each rank has a whole copy to compute with and a whole
    gradient, and its rows of masters and moments.
    """

    def __init__(self, settings: Settings, request: dict[str, Any]):
        super().__init__(settings, request["path"], request["temperature"], torch.float32)
        self.end_tokens = set(request["end_tokens"])
        self.recompute, self.clip_norm = request["recompute"], request["clip_norm"]
        self.updates = request["updates"]
        if request.get("parameters"):
            self._load(request["parameters"], {"": dict(self.network.named_parameters())})
        self._split()
        self._make_optimizer(set(request["decayed"]), request["optimizer"])
        if self.recompute:
            self.network.gradient_checkpointing_enable({"use_reentrant": False})
            self.network.train()
        if request.get("moments"):
            self._load(request["moments"], {f"{key}.": self.moments(key) for key in self.MOMENTS})
        self.kept: tuple[Tensor, Tensor, Tensor] | None = None
        self.is_reduced = False

    MOMENTS = ("exp_avg", "exp_avg_sq")

    def _split(self) -> None:
        """Makes masters, gradients, and copies to compute with."""
        self.parameters: dict[str, Parameter] = {}
        if self.settings.sharded:
            self._shard()
        else:
            self._keep_whole()
        self.gradients = [parameter.gradient for parameter in self.parameters.values()]
        head = self.parameters["model.embed_tokens.weight" if self.tied else "lm_head.weight"]
        self.head_gradient = head.gradient if head.whole_gradient is None else head.whole_gradient

    def _keep_whole(self) -> None:
        """Everything is here. Gradients lie one behind the other, so that they are zeroed and added up at once."""
        device, dtype = self.settings.device, self.settings.dtype
        named = dict(self.network.named_parameters())
        sizes = [-(-parameter.numel() // 64) * 64 for parameter in named.values()]
        self.all_gradients = torch.zeros(sum(sizes), device=device)
        for (name, copy), room in zip(named.items(), self.all_gradients.split(sizes)):
            master = copy.detach().to(device, torch.float32)
            gradient = room[: master.numel()].view(master.shape)
            self.parameters[name] = Parameter(master.shape, master, gradient, copy)
            # In float32 the copy shares the master's memory.
            self._compute_with(copy, master.to(dtype), gradient)
        self.place()

    def _compute_with(self, copy: Tensor, values: Tensor, gradient: Tensor) -> None:
        """Makes a parameter of the model have these values, and leave its gradients there."""
        copy.data = values
        copy.requires_grad_(True)
        add = compiled_add() if self.settings.compile else add_gradient
        copy.register_post_accumulate_grad_hook(functools.partial(move_gradient, add, gradient))

    def _shard(self) -> None:
        """Has a part of everything here."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        device, dtype = self.settings.device, self.settings.dtype
        names = {parameter: name for name, parameter in self.network.named_parameters()}
        shapes = {name: parameter.shape for parameter, name in names.items()}
        apart = {self.body.embed_tokens.weight, self.network.lm_head.weight}
        for copy in apart:
            size = all_equal(len(copy))
            whole = F.pad(copy.detach(), (0, 0, 0, size * PLACE.world_size - len(copy))).to(device, torch.float32)
            master = whole[size * PLACE.rank : size * (PLACE.rank + 1)].clone()
            parameter = Parameter(copy.shape, master, torch.zeros_like(master), copy, torch.zeros_like(whole)[: len(copy)])
            self.parameters[names[copy]] = parameter
            self._compute_with(copy, whole.to(dtype)[: len(copy)], parameter.whole_gradient)
        policy = MixedPrecisionPolicy(None if dtype == torch.float32 else dtype, torch.float32)
        mesh = init_device_mesh(device.type, (PLACE.world_size,))
        self.compile()
        # Block after block goes to the device, and only its part stays.
        for layer in self.body.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        fully_shard(self.body, mesh=mesh, mp_policy=policy, reshard_after_forward=True, ignored_params=apart)
        self.network.to(device)
        self.parts = [module for module in self.body.modules() if isinstance(module, FSDPModule)]
        for part in self.parts:
            # Gradients are added up; what a loss is divided by is not known here.
            part.set_force_sum_reduction_for_comms(True)
            part.set_gradient_divide_factor(1.0)
        for name, parameter in self.network.named_parameters():
            if name not in self.parameters:
                parameter.requires_grad_(True)
                parameter.grad = torch.zeros_like(parameter, requires_grad=False)
                master, gradient = parameter.detach().to_local(), parameter.grad.to_local()
                self.parameters[name] = Parameter(shapes[name], master, gradient)
        self.parameters = {name: self.parameters[name] for name in shapes}

    def _make_optimizer(self, decayed: set[str], settings: dict[str, float]) -> None:
        """AdamW of PyTorch, whose formula is that of the engine on the CPU: decay first, epsilon outside the root."""
        strangers = decayed - self.parameters.keys()
        assert not strangers, f"no such parameters: {sorted(strangers)[:3]}"
        groups = []
        for decays in (True, False):
            members = [
                parameter.master
                for name, parameter in self.parameters.items()
                if (name in decayed) == decays and parameter.master.numel()
            ]
            if members:
                groups.append({"params": members, "weight_decay": settings["weight_decay"] if decays else 0.0})
        betas = settings["beta1"], settings["beta2"]
        # A rank may have no rows of anything.
        groups = groups or [{"params": [torch.zeros(1, device=self.settings.device)]}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=settings["epsilon"], fused=True)
        for parameter in self.parameters.values():
            master = parameter.master
            master.grad = parameter.gradient
            self.optimizer.state[master] = {
                "step": torch.tensor(float(self.updates), device=master.device),
                "exp_avg": torch.zeros_like(master),
                "exp_avg_sq": torch.zeros_like(master),
            }

    def moments(self, key: str) -> dict[str, Tensor]:
        """First or second ones, as far as they are here, by name."""
        return {name: self.optimizer.state[parameter.master][key] for name, parameter in self.parameters.items()}

    def masters(self) -> dict[str, Tensor]:
        """Parameters, as far as they are here, by name."""
        return {name: parameter.master for name, parameter in self.parameters.items()}

    def size(self) -> int:
        """Numbers in all parameters."""
        return sum(parameter.shape.numel() for parameter in self.parameters.values())

    @torch.no_grad()
    def _load(self, path: str, parts: dict[str, dict[str, Tensor]]) -> None:
        """Reads tensors by prefix and name from a safetensors file, exactly; of those that are in parts, the rows that are
        here."""
        try:
            with safe_open(path, "pt") as file:
                for prefix, tensors in parts.items():
                    for name, tensor in tensors.items():
                        found = file.get_slice(prefix + name)
                        parameter = self.parameters.get(name) if hasattr(self, "parameters") else None
                        shape = list(parameter.shape if parameter else tensor.shape)
                        if found.get_shape() != shape:
                            shapes = f"{found.get_shape()}, the model has {shape}"
                            raise UserError(f"in `{path}` tensor `{prefix}{name}` has shape {shapes}")
                        rows = parameter.rows(self.settings.sharded) if parameter else slice(0, shape[0])
                        if rows.start < rows.stop:
                            tensor[: rows.stop - rows.start].copy_(found[rows.start : rows.stop])
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"cannot read `{path}`: {error}") from error

    def whole(self, name: str, part: Tensor) -> Tensor:
        """A parameter or what belongs to it, from the parts of all ranks, which all call this."""
        return gather_rows(part, self.parameters[name].shape[0]) if self.settings.sharded else part

    def assemble(self) -> None:
        """Gathers all blocks, and keeps them. One pass does it: all ranks are here now, and may not be later."""
        if self.settings.sharded:
            self.body.set_reshard_after_forward(False)
            with torch.no_grad():
                one = torch.zeros(1, 1, dtype=torch.int64, device=self.settings.device)
                self.body(input_ids=one, position_ids=one, use_cache=False)

    def take_apart(self) -> None:
        if self.settings.sharded:
            self.body.set_reshard_after_forward(True)
            for part in self.parts:
                part.reshard()

    def begin(self) -> None:
        """Zeroes the gradient."""
        self.kept, self.is_reduced = None, False
        if not self.settings.sharded:
            self.all_gradients.zero_()
            return
        whole = [parameter.whole_gradient for parameter in self.parameters.values()]
        torch._foreach_zero_(self.gradients + [gradient for gradient in whole if gradient is not None])

    @torch.no_grad()
    def reduce(self) -> None:
        """Adds up what ranks have not added up yet, once a step."""
        if self.is_reduced or PLACE.world_size == 1:
            return
        self.is_reduced = True
        if not self.settings.sharded:
            dist.all_reduce(self.all_gradients)
            return
        for parameter in self.parameters.values():
            if (whole := parameter.whole_gradient) is not None:
                room = len(parameter.gradient) * PLACE.world_size - len(whole)
                padded = F.pad(whole, (0, 0, 0, room)) if room else whole
                dist.reduce_scatter_tensor(parameter.gradient, padded)

    @torch.no_grad()
    def refresh(self) -> None:
        """Makes the copies what the masters are."""
        copied = [parameter for parameter in self.parameters.values() if parameter.copy is not None]
        if self.settings.sharded:
            for parameter in copied:
                parameter.copy.copy_(gather_rows(parameter.master.to(parameter.copy.dtype), len(parameter.copy)))
        elif self.settings.dtype != torch.float32:
            copies, masters = zip(*((parameter.copy.data, parameter.master) for parameter in copied))
            torch._foreach_copy_(copies, masters)

    def gradient_norm(self) -> float:
        """The global norm. Parts are added in the order of ranks."""
        if not self.settings.sharded:
            return torch.linalg.vector_norm(self.all_gradients, dtype=torch.float64).item()
        norms = [torch.linalg.vector_norm(gradient, dtype=torch.float64) for gradient in self.gradients if len(gradient)]
        square = torch.stack(norms).square().sum() if norms else torch.zeros((), dtype=torch.float64)
        squares = gather_rows(square.to(self.settings.device)[None], PLACE.world_size).tolist()
        return math.sqrt(sum(squares)) if all(map(math.isfinite, squares)) else math.nan

    def forward(self, tensors: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probabilities and log-sum-exps, [N] each. Keeps the graph up to the head's input."""
        self.kept = None
        targets = self.targets(tensors)
        hidden = self.hidden(tensors)
        log_probs, lse = self.head.log_probs(hidden.detach(), self.matrix, targets, self.temperature)
        self.kept = hidden, targets, lse
        return log_probs, lse

    def backward(self, d_log_probs: Any, d_lse: Any) -> None:
        """Adds the gradient of what [`Learner::forward`] kept, from the slopes of its rows, [N] arrays. Rows without a
        slope cost no logits."""
        assert self.kept is not None, "`forward` comes before `backward`"
        (hidden, targets, lse), self.kept = self.kept, None
        device = self.settings.device
        assert not self.is_reduced, "`begin` comes before the next step"
        rows = numpy.flatnonzero((d_log_probs != 0) | (d_lse != 0))
        if len(rows) == len(hidden):
            inputs = hidden.detach(), self.matrix, targets, lse
            slope = to_device(d_log_probs, device), to_device(d_lse, device)
            d_hidden = self.head.backward(*inputs, slope, self.temperature, self.head_gradient)
        else:
            some = torch.from_numpy(rows).to(device)
            inputs = hidden.detach()[some], self.matrix, targets[some], lse[some]
            slope = to_device(d_log_probs[rows], device), to_device(d_lse[rows], device)
            d_hidden = torch.zeros_like(hidden)  # All that a rank without windows has.
            d_hidden[some] = self.head.backward(*inputs, slope, self.temperature, self.head_gradient)
        hidden.backward(d_hidden)

    def distill(self, tensors: dict[str, Any], teacher: Model, rule: dict[str, Any]) -> dict[str, Any]:
        """Adds the gradient of distillation from a teacher. Returns the sums of the unmasked rows."""
        self.kept = None
        assert teacher.vocab_size == self.vocab_size, "one vocabulary"
        with torch.no_grad():
            teacher_hidden = teacher.hidden(tensors)
        hidden, targets = self.hidden(tensors), self.targets(tensors)
        rows = unmasked_rows(tensors, self.settings)
        d_hidden = torch.zeros_like(hidden)
        sums = []
        with torch.no_grad():
            for chunk in self.head.chunks(len(rows), share=4):
                some = rows[chunk]
                inputs = hidden.detach()[some]
                student = self.head.logits(inputs, self.matrix)
                logits = teacher.head.logits(teacher_hidden[some], teacher.matrix)
                d_logits, cross_entropy, divergence = distill_rows(student, logits, targets[some], rule)
                d_logits = d_logits.to(inputs.dtype)
                d_hidden[some] = d_logits @ self.matrix
                self.head.add_product(self.head_gradient, d_logits, inputs)
                sums.append(torch.stack([cross_entropy, divergence]))
        hidden.backward(d_hidden)
        both = to_array(torch.cat(sums, 1) if sums else torch.zeros(2, 0)).astype(numpy.float64)
        bad = numpy.flatnonzero(~numpy.isfinite(both.sum(0)))
        totals = both.sum(1).tolist()
        return {
            "cross_entropy": finite(totals[0]),
            "divergence": finite(totals[1]),
            "bad_row": int(numpy.flatnonzero(tensors["mask"])[bad[0]]) if len(bad) else None,
        }

    @torch.no_grad()
    def update(self, learning_rate: float) -> float:
        """Clips the gradient, in place, and takes a step. Returns the global norm before; nothing changes where it is
        not finite."""
        self.reduce()
        norm = self.gradient_norm()
        if not math.isfinite(norm):
            return norm
        factor = min(1.0, self.clip_norm / (norm + 1e-6)) if self.clip_norm > 0 else 1.0
        if factor < 1.0:
            torch._foreach_mul_(self.gradients if self.settings.sharded else [self.all_gradients], factor)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.updates += 1
        self.refresh()
        return norm

    def save(self, directory: Path, dtype: str, max_shard_bytes: int | None) -> None:
        """Writes the parameters, and under `state/` the moments and what `dtype` rounds. All ranks call it, rank 0 writes:
        of what is in parts, one tensor at a time is whole."""
        write = write_tensors if PLACE.rank == 0 else fetch_tensors
        shapes = {name: parameter.shape for name, parameter in self.parameters.items()}
        masters = {name: functools.partial(self.whole, name, master) for name, master in self.masters().items()}
        write(directory, "model", shapes, masters, dtype, max_shard_bytes)
        state = directory / "state"
        if PLACE.rank == 0:
            state.mkdir()
        both = {
            f"{key}.{name}": (name, functools.partial(self.whole, name, moment))
            for key in self.MOMENTS
            for name, moment in self.moments(key).items()
        }
        moments = {key: moment for key, (_, moment) in both.items()}
        write(state, "optimizer", {key: shapes[name] for key, (name, _) in both.items()}, moments, "f32", None)
        if dtype != "f32":
            write(state, "parameters", shapes, masters, "f32", None)

    def close(self) -> None:
        super().close()
        self.parameters = self.gradients = self.all_gradients = self.optimizer = self.head_gradient = self.kept = None
        self.parts = None


def add_gradient(total: Tensor, gradient: Tensor) -> None:
    """Adds a gradient, in whatever type, to its float32 sum."""
    total.add_(gradient)


@functools.cache
def compiled_add() -> Callable[[Tensor, Tensor], None]:
    """[`add_gradient`] for any length: where types differ the one of PyTorch is slow."""
    return torch.compile(add_gradient, dynamic=True)


def move_gradient(add: Callable[[Tensor, Tensor], None], total: Tensor, parameter: Tensor) -> None:
    """Moves a gradient that autograd has just made into its sum."""
    gradient, parameter.grad = parameter.grad, None
    if gradient.is_contiguous() and gradient.numel() > 1:
        total, gradient = total.view(-1), gradient.view(-1)
    add(total, gradient)


def finite(value: float) -> float | None:
    """A number that JSON has."""
    return value if math.isfinite(value) else None


def expected(log_p: Tensor, value: Tensor) -> Tensor:
    """`e^log_p value`, and 0 where the probability is 0 whatever the value."""
    p = log_p.exp()
    return torch.where(p == 0, 0.0, p * value)


def distill_rows(
    student: Tensor, teacher: Tensor, targets: Tensor, rule: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient by the student's logits [n, V], and of each row the cross-entropy and the divergence.

    With `tau` the temperature, `s` and `t` the distributions at it: the loss of a row is
    `(1 - alpha) (-log p_x) + alpha tau^2 KL` over the denominator, KL from teacher to student ("forward") or back.
    """
    alpha, tau, denominator = rule["alpha"], rule["temperature"], rule["denominator"]
    plain = torch.log_softmax(student, -1)
    log_s, log_t = torch.log_softmax(student / tau, -1), torch.log_softmax(teacher / tau, -1)
    cross_entropy = -plain.gather(1, targets[:, None])[:, 0]
    if rule["direction"] == "forward":
        divergence = expected(log_t, log_t - log_s).sum(-1)
        pull = log_s.exp() - log_t.exp()
    else:
        divergence = expected(log_s, log_s - log_t).sum(-1)
        pull = expected(log_s, log_s - log_t - divergence[:, None])
    hard = plain.exp()
    hard[torch.arange(len(targets), device=targets.device), targets] -= 1.0
    scale = 1.0 / denominator if denominator else 0.0
    return (hard * (1.0 - alpha) + pull * (alpha * tau)) * scale, cross_entropy, divergence


@torch.no_grad()
def distances(learner: Model, reference: Model, tensors: dict[str, Any]) -> Tensor:
    """How far two distributions are apart at each unmasked row, [n, 8] float64: gap, KL(reference|learner),
    KL(learner|reference), agreement, entropies of both, negative log-likelihoods of both."""
    assert learner.vocab_size == reference.vocab_size, "one vocabulary"
    rows = unmasked_rows(tensors, learner.settings)
    targets = learner.targets(tensors)[rows]
    hidden, other = learner.hidden(tensors)[rows], reference.hidden(tensors)[rows]
    parts = []
    for chunk in learner.head.chunks(len(rows), share=8):
        own = learner.head.logits(hidden[chunk], learner.matrix)
        theirs = reference.head.logits(other[chunk], reference.matrix)
        agreement = (own.argmax(-1) == theirs.argmax(-1)).double()
        log_q, log_p = torch.log_softmax(own.double(), -1), torch.log_softmax(theirs.double(), -1)
        q, p = log_q.exp(), log_p.exp()
        nll, reference_nll = (-part.gather(1, targets[chunk, None])[:, 0] for part in (log_q, log_p))
        columns = [
            nll - reference_nll,
            (p * (log_p - log_q)).sum(-1),
            (q * (log_q - log_p)).sum(-1),
            agreement,
            -(q * log_q).sum(-1),
            -(p * log_p).sum(-1),
            nll,
            reference_nll,
        ]
        parts.append(torch.stack(columns, 1))
    return torch.cat(parts) if parts else torch.empty(0, 8, dtype=torch.float64)


# --- Files ---


Fetch = Callable[[], Tensor]


def fetch_tensors(_: Path, __: str, ___: Any, tensors: dict[str, Fetch], *____: Any) -> None:
    """What a rank that does not write does while rank 0 writes."""
    for name in sorted(tensors, key=str.encode):
        tensors[name]()


def write_tensors(
    directory: Path, stem: str, shapes: dict[str, torch.Size], tensors: dict[str, Fetch], dtype: str, max_shard_bytes: int | None
) -> None:
    """Writes safetensors files in order of name, one tensor at a time; where they take more than `max_shard_bytes`,
    numbered shards and an index."""
    for name in (f"{stem}.safetensors", f"{stem}.safetensors.index.json"):
        if (directory / name).exists():
            raise UserError(f"`{directory / name}` exists already")
    size = 4 if dtype == "f32" else 2
    shards: list[list[str]] = [[]]
    filled = 0
    for name in sorted(tensors, key=str.encode):
        more = shapes[name].numel() * size
        if shards[-1] and max_shard_bytes is not None and filled + more > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += more
    if len(shards) == 1:
        write_file(directory / f"{stem}.safetensors", shapes, {name: tensors[name] for name in shards[0]}, dtype)
        return
    weight_map = {}
    for number, names in enumerate(shards, 1):
        file = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        write_file(directory / file, shapes, {name: tensors[name] for name in names}, dtype)
        weight_map |= dict.fromkeys(names, file)
    total = sum(shape.numel() * size for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    write_whole(directory / f"{stem}.safetensors.index.json", lambda file: file.write(text.encode()))


def write_file(path: Path, shapes: dict[str, torch.Size], tensors: dict[str, Fetch], dtype: str) -> None:
    """One safetensors file, byte for byte as the `safetensors` library writes it."""
    target, size = (torch.float32, 4) if dtype == "f32" else (torch.bfloat16, 2)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in tensors:
        start, end = end, end + shapes[name].numel() * size
        header[name] = {"dtype": dtype.upper(), "shape": list(shapes[name]), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)

    def content(file: BinaryIO) -> None:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, fetch in tensors.items():
            tensor = fetch().detach()
            assert tensor.shape == shapes[name], name
            if tensor.numel():
                numbers = tensor.to(target).cpu().contiguous().view(-1).view(torch.uint8)
                file.write(memoryview(numbers.numpy()))

    write_whole(path, content)


def write_whole(path: Path, content: Callable[[BinaryIO], Any]) -> None:
    """A file that takes its name only when it is complete and on the device."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb", buffering=1 << 18) as file:
            content(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write `{path}`: {error.strerror or error}") from error
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


# --- Generation ---


class Cache:
    """Keys and values of the rows at work, `[rows, heads, capacity, width]` for each block. Each row is filled from its
    own position 0, so that rows of different lengths lie side by side without padding in front.

    It stands where `transformers` expects a cache: blocks call `update`.
    """

    STEP = 256

    def __init__(self, rows: int):
        self.rows, self.layers = rows, {}
        self.used = 0
        self.prompt: tuple[Tensor, Tensor] | None = None
        self.positions: Tensor | None = None

    def get_seq_length(self, *_: Any) -> int:
        """Asked by some models; positions are given to them, so it says nothing."""
        return 0

    def read_prompts(self, rows: Tensor, sources: Tensor) -> None:
        """From now on rows are filled with prompts: `rows[i]` with what is computed in row `sources[i]`."""
        self.prompt, self.positions = (rows, sources), None

    def read_tokens(self, positions: Tensor, used: int) -> None:
        """From now on each row gets a token, at `positions` [rows]; `used` is beyond all of them."""
        self.prompt, self.positions, self.used = None, positions, used

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Adds keys and values, and returns those to attend to."""
        needed = key.shape[2] if self.prompt else self.used
        kept = self.layers[layer] = [
            self._room(tensor, new, needed) for tensor, new in zip(self.layers.get(layer, (None, None)), (key, value))
        ]
        for tensor, new in zip(kept, (key, value)):
            if self.prompt:
                rows, sources = self.prompt
                tensor[rows, :, : new.shape[2]] = new[sources]
            else:
                tensor[torch.arange(len(new), device=new.device), :, self.positions] = new[:, :, 0]
        return (key, value) if self.prompt else (kept[0][:, :, : self.used], kept[1][:, :, : self.used])

    def _room(self, tensor: Tensor | None, new: Tensor, needed: int) -> Tensor:
        have = tensor.shape[2] if tensor is not None else 0
        if have >= needed:
            return tensor
        capacity = max(-(-needed // self.STEP) * self.STEP, have + have // 4)
        larger = new.new_zeros(self.rows, new.shape[1], capacity, new.shape[3])
        if have:
            larger[:, :, :have] = tensor
        return larger

    def keep(self, rows: Tensor) -> None:
        """Forgets all rows but these, which move up."""
        self.rows = len(rows)
        self.layers = {layer: [tensor[rows] for tensor in pair] for layer, pair in self.layers.items()}


@dataclass
class Request:
    """A prompt to continue, and what has become of it."""

    index: int
    prompt: Any
    max_new: int
    random: Any
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finish: int = 2

    END, STOP, LENGTH = 0, 1, 2


class Generation:
    """Continues requests, `max_batch` at a time: a finished one leaves, the next enters. Each draws from its own stream, so
    what becomes of it does not depend on the others beyond rounding."""

    PROMPT_TOKENS = 1 << 14

    def __init__(self, model: Model, header: dict[str, Any], tensors: dict[str, Any], link: Link):
        self.model, self.link, self.device = model, link, model.settings.device
        self.settings = header
        self.ends = set(header["end_tokens"]) | getattr(model, "end_tokens", set())
        self.stops = [list(stop) for stop in header["stop_sequences"]]
        ends = numpy.cumsum(tensors["lengths"], dtype=numpy.int64)
        prompts = numpy.split(model.check(tensors["prompts"]), ends[:-1]) if len(ends) else []
        self.requests = [
            Request(index, prompt, int(max_new), numpy.random.Generator(numpy.random.Philox(int(seed) & (1 << 64) - 1)))
            for index, (prompt, max_new, seed) in enumerate(
                zip(prompts, tensors["max_new"], tensors["seeds"]), header.get("first", 0)
            )
        ]
        if any(not len(request.prompt) for request in self.requests):
            raise UserError("a prompt is empty")
        self.waiting = [request for request in self.requests if request.max_new > 0][::-1]
        self.places: list[Request | None] = [None] * min(header["max_batch"], len(self.waiting))
        self.cache = Cache(len(self.places))

    @torch.no_grad()
    def run(self) -> list[Request]:
        """All requests, finished."""
        with self.model.decoding():
            while True:
                self.shrink()
                while entering := self.enter():
                    self.read_prompts(entering)
                if not any(self.places):
                    return self.requests
                self.decode()

    def shrink(self) -> None:
        """Gives up places that nobody will take, once they are half of all."""
        live = [place for place, request in enumerate(self.places) if request]
        if not self.waiting and 0 < len(live) <= len(self.places) // 2:
            self.cache.keep(torch.tensor(live, device=self.device))
            self.places = [self.places[place] for place in live]

    def enter(self) -> list[int]:
        """Gives free places to the next requests, as many prompts as are read at a time."""
        entered: list[int] = []
        longest = 0
        for place, request in enumerate(self.places):
            if request is None and self.waiting:
                longest = max(longest, len(self.waiting[-1].prompt))
                if entered and longest * (len(entered) + 1) > self.PROMPT_TOKENS:
                    break
                self.places[place] = self.waiting.pop()
                entered.append(place)
        return entered

    def read_prompts(self, places: list[int]) -> None:
        """Fills the caches of places, each different prompt read once, and chooses their first tokens."""
        prompts = [self.places[place].prompt for place in places]
        different = {prompt.tobytes(): prompt for prompt in prompts}
        order = {key: number for number, key in enumerate(different)}
        sources = torch.tensor([order[prompt.tobytes()] for prompt in prompts], device=self.device)
        length = max(map(len, different.values()))
        ids = numpy.zeros((len(different), length), numpy.int64)
        for row, prompt in zip(ids, different.values()):
            row[: len(prompt)] = prompt
        self.cache.read_prompts(torch.tensor(places, device=self.device), sources)
        # Rows are filled up behind their prompts; what is computed there is overwritten before anyone attends to it.
        hidden = self.pass_through(torch.from_numpy(ids).to(self.device), torch.arange(length, device=self.device)[None])
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.device)
        self.choose(places, hidden[sources, last])

    def decode(self) -> None:
        """One more token for every request at work. Free places compute along; nobody looks at them."""
        positions = [len(request.prompt) + len(request.tokens) - 1 if request else 0 for request in self.places]
        ids = [request.tokens[-1] if request else 0 for request in self.places]
        used = -(-(max(positions) + 1) // 64) * 64
        state = torch.tensor([ids, positions], device=self.device)
        self.cache.read_tokens(state[1], used)
        mask = torch.arange(used, device=self.device)[None] <= state[1][:, None]
        hidden = self.pass_through(state[0][:, None], state[1][:, None], attention_mask=mask[:, None, None])
        live = [place for place, request in enumerate(self.places) if request]
        self.choose(live, hidden[torch.tensor(live, device=self.device), 0])

    def pass_through(self, ids: Tensor, positions: Tensor, **more: Any) -> Tensor:
        """The hidden rows of tokens, [rows, T, D]."""
        body = self.model.body
        return body(
            input_ids=ids, position_ids=positions, past_key_values=self.cache, use_cache=True, **more
        ).last_hidden_state

    def choose(self, places: list[int], hidden: Tensor) -> None:
        """Chooses a token for each place from its row of `hidden`, tells the other side, and lets go of who is finished."""
        logits = self.model.head.logits(hidden, self.model.matrix)
        live = [self.places[place] for place in places]
        tokens = self.sample(logits, live)
        scores = torch.log_softmax(logits / self.settings["log_prob_temperature"], -1)
        scores = scores.gather(1, tokens[:, None])[:, 0]
        good = torch.isfinite(logits).all(-1)
        tokens, scores, good = (to_array(part) for part in (tokens, scores, good))
        for request, token, log_prob, is_finite in zip(live, tokens.tolist(), scores.tolist(), good.tolist()):
            if not is_finite:
                position = len(request.prompt) + len(request.tokens) - 1
                raise UserError(f"request {request.index}: the logits at position {position} are not finite")
            request.tokens.append(token)
            request.log_probs.append(log_prob)
        stopped = self.watch(live, tokens, scores) if self.settings["watch"] else set()
        for place, request in zip(places, live):
            if self.is_finished(request, request.index in stopped):
                self.places[place] = None

    def sample(self, logits: Tensor, live: list[Request]) -> Tensor:
        """A token for each row of logits; the likeliest is the lowest id among equals."""
        if self.settings["greedy"]:
            return logits.argmax(-1)
        draws = torch.tensor([request.random.random() for request in live], dtype=torch.float64, device=self.device)
        masses = torch.softmax(logits / self.settings["temperature"], -1)
        top_k, top_p = self.settings.get("top_k"), self.settings["top_p"]
        if top_k is None and top_p >= 1.0:
            return draw(masses, draws)
        masses, order = torch.sort(masses, dim=-1, descending=True, stable=True)
        if top_k is not None:
            masses[:, top_k:] = 0.0
        if top_p < 1.0:
            sums = masses.double().cumsum(-1)
            before = sums - masses
            masses = torch.where(before < top_p * sums[:, -1:], masses, 0.0)
        return order.gather(1, draw(masses, draws)[:, None])[:, 0]

    def watch(self, live: list[Request], tokens: Any, scores: Any) -> set[int]:
        """Tells the other side what has been chosen; the requests that it ends."""
        arrays = {
            "requests": numpy.array([request.index for request in live], numpy.uint32),
            "tokens": tokens.astype(numpy.uint32),
            "log_probs": scores.astype(numpy.float32),
        }
        header, _ = self.link.exchange({"event": "tokens"}, arrays)
        if header.get("op") != "continue":
            raise ProtocolError(f"`continue` was expected, not `{header.get('op')}`")
        return set(header.get("stop", []))

    def is_finished(self, request: Request, stopped: bool) -> bool:
        """Whether a request ends with its last token; says why."""
        tokens = request.tokens
        if tokens[-1] in self.ends:
            request.finish = Request.END
        elif stopped or any(tokens[-len(stop) :] == stop for stop in self.stops):
            request.finish = Request.STOP
        else:
            return len(tokens) == request.max_new
        return True


def draw(masses: Tensor, draws: Tensor) -> Tensor:
    """The token of each row at which the sum of masses passes the drawn share of their total."""
    sums = masses.cumsum(-1, dtype=torch.float64)
    found = torch.searchsorted(sums, (draws * sums[:, -1])[:, None], right=True)[:, 0]
    # A draw so high that rounding took it past the last mass.
    last = (masses > 0).int() * torch.arange(masses.shape[-1], device=masses.device)
    return torch.minimum(found, last.amax(-1))


# --- Requests ---


class Worker:
    """Answers one request at a time."""

    LEARNER = 0

    def __init__(self, link: Link, company: Company | None):
        self.link, self.company = link, company
        self.settings = Settings(choose_device("auto"))
        self.models: dict[int, Model] = {}
        self.shares = Shares()

    def hello(self) -> dict[str, Any]:
        """What is here."""
        devices = []
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            properties = torch.cuda.get_device_properties(index)
            capability = f"{properties.major}.{properties.minor}"
            devices.append({"name": properties.name, "memory_bytes": properties.total_memory, "capability": capability})
        on_cuda = self.settings.device.type == "cuda"
        with contextlib.suppress(Exception):
            nccl = ".".join(map(str, torch.cuda.nccl.version())) if on_cuda else None
            return self._hello(devices, nccl, on_cuda)
        return self._hello(devices, None, on_cuda)

    def _hello(self, devices: list[dict[str, Any]], nccl: str | None, on_cuda: bool) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "device": str(self.settings.device),
            "devices": devices,
            "attention": "varlen" if on_cuda and varlen_attn is not None else "sdpa",
            "nccl": nccl,
            "world_size": PLACE.world_size,
            "bf16": torch.cuda.is_bf16_supported() if on_cuda else True,
        }

    def serve(self) -> None:
        """Answers until the stream ends or `bye`."""
        if PLACE.rank == 0:
            self.link.send(self.hello())
        while True:
            header, tensors = self.link.receive()
            if header.get("op") == "bye":
                self.link.send({"ok": True})
                if self.company:
                    self.company.part()
                # Without the end of Python, which would wait for the thread that reads.
                os._exit(0)
            started = time.perf_counter()
            answer, arrays = self.answer_all(header, tensors)
            # So that the other side can tell computing from talking.
            answer["seconds"] = time.perf_counter() - started
            self.link.send(answer, arrays)
            # The largest buffers go before the next request makes its own.
            del header, tensors, answer, arrays

    def answer_all(self, header: dict[str, Any], tensors: dict[str, Any]) -> Answer:
        """The answer of all ranks together."""
        if self.company is None:
            return self.answer(header, tensors)
        if header.get("op") == "configure":
            header = header | {"store": self.open_store()}
        shares = self.shares.cut(header, tensors)
        self.company.ask(header, shares)
        answers = self.company.gather(self.answer(header | shares[0][0], shares[0][1]))
        return self.shares.join(header["op"], answers) if answers[0][0]["ok"] else answers[0]

    def open_store(self) -> int | None:
        """The port where the ranks of this machine find one another; those of a launcher have found one another."""
        global STORE
        if CHILDREN is not None and STORE is None:
            STORE = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
        return STORE.port if CHILDREN is not None else None

    def answer(self, header: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The answer to one request: what it gives, or what went wrong."""
        try:
            operation = getattr(self, f"op_{header.get('op')}", None)
            if operation is None:
                raise ProtocolError(f"there is no operation `{header.get('op')}`")
            given, arrays = operation(header, tensors) or ({}, {})
            return {"ok": True, **given}, arrays
        except UserError as error:
            return failure("user", str(error), error.hint), {}
        except (torch.cuda.OutOfMemoryError, MemoryError) as error:
            return self.out_of_memory(error), {}
        except Exception as error:  # noqa: BLE001 - it is reported, whatever it is.
            if "out of memory" in str(error) or "can't allocate memory" in str(error):
                return self.out_of_memory(error), {}
            return failure("internal", f"{type(error).__name__}: {error}", None, traceback.format_exc()), {}

    def out_of_memory(self, error: BaseException) -> dict[str, Any]:
        """The device's figures, once what the failed request held is freed."""
        trace = traceback.format_exc()
        traceback.clear_frames(error.__traceback__)
        if isinstance(learner := self.models.get(self.LEARNER), Learner):
            learner.kept = None
        message, gib = f"out of memory on {self.settings.device}", 1 << 30
        if self.settings.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.settings.device)
            torch.cuda.empty_cache()
            free, total = torch.cuda.mem_get_info(self.settings.device)
            name = torch.cuda.get_device_name(self.settings.device)
            held = torch.cuda.memory_allocated(self.settings.device)
            message += (
                f" ({name}): {total / gib:.1f} GiB, of which the models and the optimiser hold {held / gib:.1f}; "
                f"the peak was {peak / gib:.1f}, and {free / gib:.1f} are free without this batch"
            )
        return failure("out_of_memory", message, "smaller micro-batches, or recompute = true", trace)

    def learner(self) -> Learner:
        """The learner, which the other side has made before it asks for anything of it."""
        learner = self.models.get(self.LEARNER)
        assert isinstance(learner, Learner), "there is no learner"
        return learner

    def describe(self, model: Model) -> dict[str, Any]:
        """What the other side may want to know of a model that has been opened."""
        note = f"attention over variable lengths is not used: {model.attention_note}" if model.attention_note else None
        if note and self.settings.device.type == "cuda":
            print(note, file=sys.stderr)
        return {"attention": "varlen" if model.varlen else "sdpa", "attention_note": note, "vocab_size": model.vocab_size}

    def op_configure(self, header: dict[str, Any], _: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        if header["dtype"] not in ("f32", "bf16"):
            raise UserError(f"there is no dtype `{header['dtype']}`", "use f32 or bf16")
        if header["attention"] not in ("auto", "varlen", "sdpa"):
            raise UserError(f"there is no attention `{header['attention']}`", "use auto, varlen or sdpa")
        if header.get("sharding", "full") not in ("full", "none"):
            raise UserError(f"there is no sharding `{header['sharding']}`", "use full or none")
        device = choose_device(header["device"])
        dtype = torch.float32 if header["dtype"] == "f32" else torch.bfloat16
        if device.type == "cuda":
            torch.cuda.set_device(device)
            if dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
                raise UserError(f"{torch.cuda.get_device_name(device)} has no bf16", 'use dtype = "f32"')
        sharded = PLACE.world_size > 1 and header.get("sharding", "full") == "full"
        self.settings = Settings(device, dtype, bool(header["compile"]), header["attention"], sharded)
        join_ranks(device, header.get("store"))
        torch.set_float32_matmul_precision("high" if header["tf32"] else "highest")
        torch.manual_seed(header["seed"] & (1 << 63) - 1)
        if header.get("threads"):
            torch.set_num_threads(header["threads"])
        return {"device": str(device)}, {}

    def op_open(self, header: dict[str, Any], _: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        model = Model(self.settings, header["path"], header["temperature"], self.settings.dtype)
        model.place()
        self.models[header["model"]] = model
        return self.describe(model), {}

    def op_learn(self, header: dict[str, Any], _: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self.models.pop(self.LEARNER, None)
        learner = self.models[header["model"]] = Learner(self.settings, header)
        return self.describe(learner) | {"parameters": learner.size()}, {}

    def op_close(self, header: dict[str, Any], _: Any) -> None:
        if model := self.models.pop(header["model"], None):
            model.close()
        if self.settings.device.type == "cuda":
            torch.cuda.empty_cache()

    def op_log_probs(self, header: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        log_probs = self.models[header["model"]].log_probs(tensors, header["unmasked"] or header.get("idle", False))
        return {}, {"log_probs": to_array(log_probs)}

    def op_distances(self, header: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        models = self.models[header["learner"]], self.models[header["reference"]]
        return {}, {"distances": to_array(distances(*models, tensors))}

    def op_begin(self, *_: Any) -> None:
        self.learner().begin()

    def op_forward(self, header: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        log_probs, lse = (to_array(part) for part in self.learner().forward(tensors))
        rows = 0 if header.get("idle") else len(log_probs)
        return {}, {"log_probs": log_probs[:rows], "lse": lse[:rows]}

    def op_backward(self, _: Any, tensors: dict[str, Any]) -> None:
        self.learner().backward(tensors["d_log_probs"], tensors["d_lse"])

    def op_forget(self, *_: Any) -> None:
        self.learner().kept = None

    def op_distill(self, header: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.learner().distill(tensors, self.models[header["teacher"]], header), {}

    def op_update(self, header: dict[str, Any], _: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"gradient_norm": finite(self.learner().update(header["learning_rate"]))}, {}

    def op_gradients(self, *_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        learner = self.learner()
        learner.reduce()
        return {}, self.collect({name: parameter.gradient for name, parameter in learner.parameters.items()})

    def op_parameters(self, *_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, self.collect(self.learner().masters())

    def collect(self, parts: dict[str, Tensor]) -> dict[str, Any]:
        """Whole tensors of the learner by name, on rank 0."""
        arrays = {}
        for name, part in parts.items():
            whole = self.learner().whole(name, part)
            if PLACE.rank == 0:
                arrays[name] = to_array(whole)
        return arrays

    def op_save(self, header: dict[str, Any], _: Any) -> None:
        self.learner().save(Path(header["directory"]), header["dtype"], header.get("max_shard_bytes"))

    def op_generate(self, header: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        requests = Generation(self.models[header["model"]], header, tensors, self.link).run()
        tokens = [token for request in requests for token in request.tokens]
        log_probs = [log_prob for request in requests for log_prob in request.log_probs]
        return {}, {
            "tokens": numpy.array(tokens, numpy.uint32),
            "lengths": numpy.array([len(request.tokens) for request in requests], numpy.uint32),
            "log_probs": numpy.array(log_probs, numpy.float32),
            "finish": numpy.array([request.finish for request in requests], numpy.uint8),
        }

    def op_memory(self, *_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.settings.device.type == "cuda":
            self.settings.synchronize()
            peak = torch.cuda.max_memory_allocated(self.settings.device)
            torch.cuda.reset_peak_memory_stats(self.settings.device)
            return {"peak_bytes": peak, "allocated_bytes": torch.cuda.memory_allocated(self.settings.device)}, {}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * resource.getpagesize()
        return {"peak_bytes": peak, "allocated_bytes": resident}, {}


def join_ranks(device: torch.device, port: int | None) -> None:
    """Makes ranks able to exchange tensors."""
    if PLACE.world_size == 1 or dist.is_initialized():
        return
    wait = datetime.timedelta(seconds=PLACE.limit + 60)
    store = STORE or dist.TCPStore("127.0.0.1", port, None, False)
    backend, more = ("nccl", {"device_id": device}) if device.type == "cuda" else ("gloo", {})
    dist.init_process_group(
        backend, store=dist.PrefixStore("remit", store), rank=PLACE.rank, world_size=PLACE.world_size, timeout=wait, **more
    )


class Shares:
    """How requests are cut into the parts of ranks, and their answers joined."""

    OF_WINDOWS = ("log_probs", "distances", "forward", "distill")
    """Requests with a batch."""

    def __init__(self):
        self.rows: list[int] = []
        """Predictions of each rank in the last batch."""

    def cut(self, header: dict[str, Any], tensors: dict[str, Any]) -> list[Answer]:
        """What each rank gets beside the request: more of a header, and its arrays."""
        op, ranks = header.get("op"), range(PLACE.world_size)
        if op in self.OF_WINDOWS:
            self.rows = []
            return [self.windows(tensors, share_of(len(tensors["inputs"]), rank)) for rank in ranks]
        if op == "backward":
            return [({}, self.slopes(tensors, rank)) for rank in ranks]
        if op == "generate":
            return [self.requests(tensors, share_of(len(tensors["lengths"]), rank)) for rank in ranks]
        return [({}, tensors) for _ in ranks]

    def windows(self, tensors: dict[str, Any], share: slice) -> Answer:
        """Some windows. A rank without any computes the first one with nothing unmasked: parameters are gathered by all ranks."""
        count = share.stop - share.start
        part = {name: array[share] if count else array[:1] for name, array in tensors.items()}
        if not count:
            part["mask"] = numpy.zeros_like(part["mask"])
        self.rows.append(part["inputs"].size if count else 0)
        return {"idle": not count}, part

    def slopes(self, tensors: dict[str, Any], rank: int) -> dict[str, Any]:
        """The slopes of a rank's rows."""
        start = sum(self.rows[:rank])
        return {name: array[start : start + self.rows[rank]] for name, array in tensors.items()}

    @staticmethod
    def requests(tensors: dict[str, Any], share: slice) -> Answer:
        """Some requests to continue."""
        ends = numpy.concatenate([[0], numpy.cumsum(tensors["lengths"], dtype=numpy.int64)])
        part = {name: array[share] for name, array in tensors.items() if name != "prompts"}
        return {"first": share.start}, part | {"prompts": tensors["prompts"][ends[share.start] : ends[share.stop]]}

    def join(self, op: str, answers: list[Answer]) -> Answer:
        """One answer of all. Sums are added in the order of ranks."""
        headers, arrays = [header for header, _ in answers], [arrays for _, arrays in answers]
        first = dict(headers[0])
        if op in (*self.OF_WINDOWS, "generate"):
            if op == "distill":
                for key in ("cross_entropy", "divergence"):
                    values = [header[key] for header in headers]
                    first[key] = None if None in values else finite(sum(values))
                bad = [sum(self.rows[:rank]) + header["bad_row"] for rank, header in enumerate(headers) if header["bad_row"] is not None]
                first["bad_row"] = bad[0] if bad else None
            return first, {name: numpy.concatenate([part[name] for part in arrays]) for name in arrays[0]}
        if op == "memory":
            first |= {key: max(header[key] for header in headers) for key in ("peak_bytes", "allocated_bytes")}
        return first, arrays[0]


if __name__ == "__main__":
    Worker(*meet()).serve()
