"""The judge's side of the reference worker: starts it confined, asks it, and turns its answers into records."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import mmap
import os
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.harness import channel, devices, memory, sandbox
from kernelevolve_lab.harness.worker import WorkerProcess, python_command, python_environment
from kernelevolve_lab.languages.abi import ITEMSIZE
from kernelevolve_lab.operators.base import Tolerance, Work
from kernelevolve_lab.records import Case, ErrorStats, OperatorRef, Profile, TensorSpec


class ReferenceFailed(Exception):
    """The reference worker died, hung or failed inside: our trouble, or the task's, never a candidate's."""


@dataclass(frozen=True)
class Description:
    """What the reference worker says about the operator; `work`, and `modules` (how a `ModelNew` is built, as text), are by the name of the
    case."""

    name: str
    title: str
    family: str
    semantics: str
    work_formula: str
    input_names: tuple[str, ...]
    distributions: tuple[str, ...]
    tolerance: Tolerance
    cases: tuple[Case, ...]
    work: dict[str, Work]
    modules: dict[str, str]
    versions: dict[str, Any]


@dataclass
class InputSet:
    """A draw of inputs: sealed memory that candidates may map, and where the tensors lie in it and in an output arena."""

    id: int
    case: Case
    fd: int
    size: int
    inputs: tuple[memory.Placed, ...]
    outputs: tuple[memory.Placed, ...]
    arena_size: int
    has_golden: bool
    trivial: dict[str, float] = field(default_factory=dict)
    on_device: bool = False
    closed: bool = False

    def touch(self) -> None:
        """Read one word of each cache line, so that the contents are in this machine's caches; nothing where kernels read copies of them
        on a device."""
        if self.on_device:
            return
        with mmap.mmap(self.fd, self.size, prot=mmap.PROT_READ) as view:
            words = np.frombuffer(view, np.uint64)[::8]
            words.max()
            del words

    def close(self) -> None:
        """Free the memory here."""
        if not self.closed:
            self.closed = True
            os.close(self.fd)


@dataclass(frozen=True)
class Comparison:
    """How far one call's outputs are from the golden; `unwritten` counts elements that still hold the poison."""

    stats: ErrorStats
    unwritten: int
    numel: int
    finite: bool

    @property
    def ok(self) -> bool:
        return self.finite and self.stats.candidate <= self.stats.gate and self.unwritten == 0


def task_cache(cache: Path, ref: OperatorRef) -> Path:
    """Where compiled baselines of that operator are kept: apart for each that is not registered, since its code can write there."""
    if ref.kind == "registered":
        return cache
    return cache / "unregistered" / hashlib.sha256(ref.text.encode()).hexdigest()[:16]


class Reference:
    """One reference worker; thread-safe, one question at a time. Raises `ReferenceFailed`, and `LabError` for trouble of the user's."""

    def __init__(self, *, threads: int, cache: Path, confined: bool, device: str = "cpu", start_seconds: float = 120.0):
        self.device = device
        self._lock = threading.RLock()
        self._constructed: tuple[str, ...] = ()
        self._ids = itertools.count(1)
        ours, theirs = channel.pair()
        ours.watch_peer()
        inductor = cache / "inductor"
        inductor.mkdir(parents=True, exist_ok=True)
        compilers = "1" if device == "cpu" else str(min(16, len(os.sched_getaffinity(0))))
        environment = {**python_environment(threads), "TORCHINDUCTOR_CACHE_DIR": str(inductor), "TORCHINDUCTOR_COMPILE_THREADS": compilers}
        environment |= devices.environment(device)
        argv = python_command("reference_worker", (str(theirs.fileno()), str(threads), device))
        confinement = None
        if confined:
            confinement = sandbox.Confinement(
                readable=sandbox.python_paths(),
                writable=(inductor,),
                environment=environment,
                scratch_mb=512,
                filter="python",
                gpus=device != "cpu",
            )
        else:
            argv = ["/usr/bin/env", *(f"{name}={value}" for name, value in environment.items()), *argv]
        self._channel = ours
        try:
            self._process = WorkerProcess(argv, confinement, (theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            self._receive(start_seconds)
        except BaseException:
            self.close()
            raise

    def open(self, ref: OperatorRef, profile: Profile, timeout: float = 120.0) -> Description:
        """Load the operator."""
        answer, _ = self._ask({"do": "open", "ref": ref.model_dump(), "profile": profile}, timeout=timeout)
        cases = tuple(Case(**entry["case"]) for entry in answer["cases"])
        work = {entry["case"]["name"]: Work(entry["flops"], entry["bytes"]) for entry in answer["cases"]}
        texts = {key: str(answer[key]) for key in ("name", "title", "family", "semantics", "work_formula")}
        lists = {key: tuple(map(str, answer[key])) for key in ("input_names", "distributions")}
        return Description(
            **texts,
            **lists,
            tolerance=Tolerance(**answer["tolerance"]),
            cases=cases,
            work=work,
            modules=answer["modules"],
            versions=answer["versions"],
        )

    def draw(self, case: Case, *, golden: bool, trivial: bool = False, timeout: float = 300.0) -> InputSet:
        """Draw fresh inputs from a new secret seed."""
        identifier = next(self._ids)
        request = {
            "do": "draw",
            "id": identifier,
            "case": case.model_dump(),
            "seed": secrets.randbits(62),
            "golden": golden,
            "trivial": trivial,
            "constructed": self._constructed,
        }
        answer, fds = self._ask(request, timeout=timeout)
        if len(fds) != 1 or not memory.is_sealed(fds[0], answer["size"]):
            for fd in fds:
                os.close(fd)
            raise ReferenceFailed("the reference worker sent inputs that are not sealed")
        inputs, size = memory.layout(TensorSpec(**spec) for spec in answer["inputs"])
        outputs, arena_size = memory.layout((TensorSpec(**spec) for spec in answer["outputs"]), first=len(inputs))
        drawn = InputSet(
            identifier, case, fds[0], size, inputs, outputs, arena_size, golden, answer.get("trivial", {}), self.device != "cpu"
        )
        if size != answer["size"]:
            drawn.close()
            raise ReferenceFailed("the reference worker lays tensors out differently")
        return drawn

    def constructing(self, names: Sequence[str]) -> Reference:
        """This worker, drawing inputs in which the module's state of these names has the values that its constructor gives it."""
        view = copy.copy(self)
        view._constructed = tuple(names)
        return view

    def expect(self, drawn: InputSet, timeout: float = 300.0) -> None:
        """Compute what the outputs of a set must be, if that was not done yet."""
        if not drawn.has_golden:
            self._ask({"do": "expect", "id": drawn.id}, timeout=timeout)
            drawn.has_golden = True

    def flush(self) -> None:
        """Read and write more than twice what the device's L2 cache holds, so that nothing useful is left in it."""
        self._ask({"do": "flush"})

    def drop(self, sets: Sequence[InputSet] = (), arenas: Sequence[int] = ()) -> None:
        """Free sets, here and there, and forget arenas."""
        for drawn in sets:
            drawn.close()
        if sets or arenas:
            self._ask({"do": "drop", "sets": [drawn.id for drawn in sets], "arenas": list(arenas)})

    def show(self, arena: memory.Arena) -> int:
        """Let the worker look at an arena; returns its number."""
        identifier = next(self._ids)
        self._ask({"do": "arena", "id": identifier, "size": arena.size}, fds=(arena.fd,))
        return identifier

    def compare(
        self,
        drawn: InputSet,
        arena: int,
        poison: dict[int, bytes] | None,
        places: Sequence[memory.Placed] | None = None,
        sampled: bool = False,
        timeout: float = 120.0,
    ) -> Comparison:
        """Compare an arena with what the set's outputs must be; `poison` is what it was filled with, if it was, `places` where they lie if
        that is not where the set has them. `sampled` looks at some elements only, in a moment and without a golden."""
        bits = [
            int.from_bytes(poison[ITEMSIZE[p.spec.dtype]], "little", signed=True) if poison is not None else None for p in drawn.outputs
        ]
        request = {"do": "compare", "id": drawn.id, "arena": arena, "outputs": _described(places or drawn.outputs), "poison": bits}
        request["sampled"] = sampled
        answer, _ = self._ask(request, timeout=timeout)
        outputs = answer["outputs"]
        # One stray element with the poison's bits may be an honest value (a byte has 256 of them); unwritten output is never right too.
        for entry in outputs:
            if entry["error"] <= entry["gate"]:
                entry["unwritten"] = 0
        index = max(range(len(outputs)), key=lambda i: (outputs[i]["error"] > outputs[i]["gate"], _excess(outputs[i])))
        worst = outputs[index]
        stats = ErrorStats(
            candidate=worst["error"], reference=worst["reference"], gate=worst["gate"], worst_output=index,
            worst_index=tuple(worst["worst"]), expected=worst.get("expected"), got=worst.get("got"),
        )  # fmt: skip
        finite = all(entry["error"] != float("inf") for entry in outputs)
        return Comparison(stats, sum(e["unwritten"] for e in outputs), sum(e["numel"] for e in outputs), finite)

    def same(self, drawn: InputSet, first: int, second: int, timeout: float = 120.0) -> bool:
        """Whether two arenas hold the same outputs, bit by bit."""
        return self._ask({"do": "same", "arenas": [first, second], "outputs": _described(drawn.outputs)}, timeout=timeout)[0]["same"]

    def compile(self, drawn: InputSet, baseline: str = "torch.compile", timeout: float = 300.0) -> str:
        """Compile the reference for a set's case; returns why that was impossible, or an empty text."""
        answer, _ = self._ask({"do": "compile", "id": drawn.id, "baseline": baseline}, timeout=timeout)
        return "" if answer["compiled"] else answer["why"]

    def operators(self, drawn: InputSet, timeout: float = 120.0) -> dict[str, int]:
        """How often each of PyTorch's operators runs in one call of the reference on a set."""
        return self._ask({"do": "operators", "id": drawn.id}, timeout=timeout)[0]["counts"]

    def time(self, baseline: str, sets: Sequence[InputSet], timeout: float = 120.0) -> list[int]:
        """Nanoseconds of one call of the baseline (`eager`, `torch.compile`) on each set."""
        answer, _ = self._ask({"do": "time", "baseline": baseline, "ids": [drawn.id for drawn in sets]}, timeout=timeout)
        return answer["nanoseconds"]

    @property
    def pid(self) -> int:
        """The worker's process."""
        return self._channel.peer_pid

    def close(self) -> None:
        """End the worker."""
        self._channel.close()
        self._process.close()

    def _ask(self, request: dict[str, Any], fds: Sequence[int] = (), timeout: float = 60.0) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            with contextlib.suppress(channel.ChannelClosed):  # what receiving finds says why
                self._channel.send(request, fds)
            answer, received = self._receive(timeout, request["do"])
        if answer.get("ok") is True:
            return answer, received
        for fd in received:
            os.close(fd)
        if answer.get("kind") == "user":
            raise BadInput(str(answer.get("error")))
        raise ReferenceFailed(f"the reference failed: {answer.get('error')}")

    def _receive(self, timeout: float, doing: str = "start") -> tuple[dict[str, Any], list[int]]:
        try:
            return self._channel.receive(timeout)
        except channel.ChannelTimeout:
            self._process.kill()
            if doing == "open":
                raise ReferenceFailed(f"it did not come to the end of loading within {timeout:g} s") from None
            raise ReferenceFailed(f"the reference worker did not answer within {timeout:g} s ({doing})") from None
        except (channel.ChannelClosed, channel.ProtocolError) as error:
            status = self._process.ended(5.0)
            tail = self._process.log_tail().strip().splitlines()
            raise ReferenceFailed(f"the reference worker ended ({doing}, status {status}): {tail[-1][:300] if tail else error}") from None


def _excess(entry: dict[str, Any]) -> float:
    return entry["error"] / entry["gate"] if entry["gate"] else entry["error"]


def _described(outputs: Sequence[memory.Placed]) -> list[dict[str, Any]]:
    return [{"spec": place.spec.model_dump(), "offset": place.offset} for place in outputs]
