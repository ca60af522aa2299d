"""The reference worker: the only process that knows the operator, the inputs' seeds while it draws, and the expected outputs.

Started by `reference.py` in a sandbox, with a socket. It draws inputs into sealed shared memory, runs the reference in float64 (the
golden), eagerly and through torch.compile, compares what candidates wrote, and times the baselines. It never loads a candidate.

One request, one answer, as frames of `channel.py`: `{"do": name, ...}` gives `{"ok": true, ...}` or `{"ok": false, "error": sentence,
"kind": "user" | "internal"}`.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import random
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from kernelevolve_lab.errors import LabError
from kernelevolve_lab.harness import memory, module_spec, numerics
from kernelevolve_lab.harness.channel import Channel, ChannelClosed
from kernelevolve_lab.harness.trace import traced
from kernelevolve_lab.operators import loading
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import Case, OperatorRef, TensorSpec

SPARE_BYTES = 32 << 20
READ_ONLY = 0x08  # cudaHostRegisterReadOnly
MODES = {"torch.compile": None, "max-autotune": "max-autotune-no-cudagraphs"}
"""By baseline the mode of torch.compile. Without CUDA graphs, which would return the same memory from every call."""


@dataclass
class InputSet:
    """One draw of inputs, on the device, with the golden where it was asked for; `map` is the sealed memory that candidates read."""

    case: Case
    seed: int
    inputs: tuple[torch.Tensor, ...]
    map: mmap.mmap
    samples: list[numerics.Sample]
    golden: list[numerics.Golden] | None = None


@dataclass
class Worker:
    """The state between requests."""

    threads: int
    device: torch.device
    clock: Any = None
    flushed: torch.Tensor | None = None
    operator: Operator | None = None
    sets: dict[int, InputSet] = field(default_factory=dict)
    arenas: dict[int, mmap.mmap] = field(default_factory=dict)
    compiled: dict[tuple[str, str], Any] = field(default_factory=dict)  # by baseline and case
    gates: dict[str, list[float]] = field(default_factory=dict)  # by case, the widest of the newest golden of each output

    def open(self, request: dict, fds: list[int]) -> tuple[dict, list[int]]:
        """Load the operator and describe it."""
        self.operator = operator = loading.load(OperatorRef(**request["ref"]))
        profile = request["profile"]
        cases = operator.cases.get(profile, ())
        if not cases:
            raise LabError(f"The operator '{operator.name}' has no cases for the profile '{profile}'.")
        described = [{"case": case.model_dump(), "flops": operator.work(case).flops, "bytes": operator.work(case).bytes} for case in cases]
        versions = {"torch": torch.__version__, "python": sys.version.split()[0], "threads": torch.get_num_threads()}
        told = {key: getattr(operator, key) for key in ("name", "title", "family", "semantics", "work_formula")}
        listed = {key: list(getattr(operator, key)) for key in ("input_names", "distributions")}
        tolerance = {"factor": operator.tolerance.factor, "floors": dict(operator.tolerance.floors)}
        modules = _modules(operator, cases)
        return {**told, **listed, "tolerance": tolerance, "cases": described, "versions": versions, "modules": modules}, []

    def draw(self, request: dict, fds: list[int]) -> tuple[dict, list[int]]:
        """Draw inputs from a seed into shared memory, seal it, and keep it as set `id`; `golden` also computes what outputs must be."""
        case, seed = Case(**request["case"]), request["seed"]
        inputs = self._drawn(case, seed, request["constructed"])
        specs = [_spec(tensor) for tensor in inputs]
        placed, size = memory.layout(specs)
        fd = memory.create("inputs", size)
        with mmap.mmap(fd, size) as writable:
            for place, tensor in zip(placed, inputs, strict=True):
                if place.bytes:
                    _view(writable, place, tensor.dtype).copy_(tensor)
        memory.seal(fd, memory.SEAL_ALL)
        shared = mmap.mmap(fd, size, prot=mmap.PROT_READ)
        with self._apart():
            views = tuple(_view(shared, p, t.dtype).to(self.device) for p, t in zip(placed, inputs, strict=True))
        outputs = _outputs(self._operator.reference(*(tensor.clone() for tensor in views)))
        drawn = InputSet(case, seed, views, shared, [numerics.Sample.of(tensor.contiguous()).on_host() for tensor in outputs])
        self.sets[request["id"]] = drawn
        answer: dict[str, Any] = {
            "size": size,
            "inputs": [spec.model_dump() for spec in specs],
            "outputs": [_spec(tensor).model_dump() for tensor in outputs],
        }
        if request.get("golden"):
            answer |= self._expect(drawn, outputs)
        if request.get("trivial"):
            others = _outputs(self._operator.reference(*(tensor.to(self.device) for tensor in self._drawn(case, seed ^ 1))))
            answer["trivial"] = numerics.trivial_errors(drawn.golden or [], drawn.inputs, others)
        return answer, [fd]

    def expect(self, request: dict, fds: list[int]) -> tuple[dict, list[int]]:
        """Compute the golden of a set that was drawn without."""
        drawn = self.sets[request["id"]]
        if drawn.golden is None:
            self._expect(drawn, _outputs(self._operator.reference(*(tensor.clone() for tensor in drawn.inputs))))
        return {}, []

    def drop(self, request: dict, fds: list[int]) -> tuple[dict, list[int]]:
        """Forget sets and output arenas."""
        for identifier in request.get("sets", []):
            self.sets.pop(identifier, None)
        for identifier in request.get("arenas", []):
            gone = self.arenas.pop(identifier, None)
            if gone is not None and self.clock is not None:
                torch.cuda.cudart().cudaHostUnregister(_start(gone))
        return {}, []

    def arena(self, request: dict, fds: list[int]) -> tuple[dict, list[int]]:
        """Look at a candidate's output memory, read-only."""
        self.arenas[request["id"]] = shared = mmap.mmap(fds[0], request["size"], prot=mmap.PROT_READ)
        if self.clock is not None:  # pinned, copies run at the bus's speed; where it is refused they are only slower
            torch.cuda.cudart().cudaHostRegister(_start(shared), request["size"], READ_ONLY)
        return {}, []

    def compare(self, request: dict, fds: list[int]) -> tuple[dict, list[int]]:
        """Compare an arena with a set's golden, or with samples of what the reference gives for it; per output the error, the worst place
        and the count of poisoned elements."""
        drawn, shared = self.sets[request["id"]], self.arenas[request["arena"]]
        found = []
        for index, place in enumerate(_placed(request["outputs"])):
            got = _view(shared, place, getattr(torch, place.spec.dtype))
            if not request["sampled"]:
                got = got.to(self.device)
            if request["sampled"]:
                result = drawn.samples[index].compare(got, self.gates[drawn.case.name][index])
            else:
                assert drawn.golden is not None
                result = numerics.compare(got, drawn.golden[index], request["poison"][index])
            entry = {"error": result.error, "gate": result.gate, "reference": result.reference, "unwritten": result.unwritten}
            entry |= {"numel": got.numel(), "worst": list(_unravel(result.worst, got.shape))}
            if got.numel() and not request["sampled"]:
                expected = drawn.golden[index].values.reshape(-1)[result.worst]
                entry |= {"expected": float(expected), "got": float(got.reshape(-1)[result.worst])}
            found.append(entry)
        return {"outputs": found}, []

    def same(self, request: dict, fds: list[int]) -> tuple[dict, list[int]]:
        """Whether two arenas hold the same bits."""
        first, second = (self.arenas[identifier] for identifier in request["arenas"])

        def whole(shared: mmap.mmap, place: memory.Placed) -> torch.Tensor:
            return _view(shared, place, torch.uint8, place.bytes).to(self.device)

        equal = all(numerics.same_bits(whole(first, place), whole(second, place)) for place in _placed(request["outputs"]))
        return {"same": equal}, []

    def compile(self, request: dict, fds: list[int]) -> tuple[dict, list[int]]:
        """Compile the reference for the shapes of a set and run it twice; says why where that is impossible."""
        drawn, baseline = self.sets[request["id"]], request["baseline"]
        started = time.perf_counter()
        from torch._inductor import config as inductor

        torch._dynamo.config.recompile_limit = 256
        function = torch.compile(self._operator.reference, dynamic=False, fullgraph=False, mode=MODES[baseline])
        # Inductor tries what its C++ compiler can build for, longer than compiling takes; that is worth it only where compiling fails.
        for trusted in (True, None):
            inductor.cpp.vec_isa_ok = trusted
            try:
                with torch.inference_mode():  # as it is timed: what is compiled serves one mode alone
                    for _ in range(2):
                        outputs = _outputs(function(*drawn.inputs))
                break
            except Exception as error:
                torch._dynamo.reset()
                failed = _first_line(error)
        else:
            return {"compiled": False, "why": failed}, []
        wanted = drawn.golden or []
        for want, output in zip(wanted, outputs, strict=True):
            if not numerics.compare(output.contiguous(), want).ok:
                return {"compiled": False, "why": "the compiled reference is not within the gate of its own operator"}, []
        self.compiled[baseline, drawn.case.name] = function
        return {"compiled": True, "seconds": time.perf_counter() - started}, []

    def time(self, request: dict, fds: list[int]) -> tuple[dict, list[int]]:
        """Nanoseconds of one call of a baseline on each of the sets, in order."""
        sets = [self.sets[identifier] for identifier in request["ids"]]
        baseline = request["baseline"]
        functions = [self._operator.reference if baseline == "eager" else self.compiled[baseline, drawn.case.name] for drawn in sets]
        spent = []
        with torch.inference_mode():
            if self.clock is not None:
                calls = [functools.partial(function, *drawn.inputs) for function, drawn in zip(functions, sets, strict=True)]
                return {"nanoseconds": self.clock.time(calls, lambda outputs: None)}, []
            for function, drawn in zip(functions, sets, strict=True):
                inputs = drawn.inputs
                started = time.perf_counter_ns()
                outputs = function(*inputs)
                spent.append(time.perf_counter_ns() - started)
                del outputs
        return {"nanoseconds": spent}, []

    def operators(self, request: dict, fds: list[int]) -> tuple[dict, list[int]]:
        """Trace one call of the reference."""
        _, trace = traced(self._operator.reference, self.sets[request["id"]].inputs)
        return {"counts": dict(trace.counts)}, []

    def _apart(self) -> contextlib.AbstractContextManager[None]:
        """Allocate what is kept from memory of its own, so that it takes none of what the baselines' calls use again and again."""
        return contextlib.nullcontext() if self.clock is None else self.clock.apart()

    def flush(self, request: dict, fds: list[int]) -> tuple[dict, list[int]]:
        """Read and write a buffer of more than twice the device's L2 cache, whole."""
        if self.flushed is None:
            size = 2 * torch.cuda.get_device_properties(self.device).L2_cache_size + SPARE_BYTES
            self.flushed = torch.zeros(size // 8, dtype=torch.int64, device=self.device)
        self.flushed.add_(1)
        torch.cuda.synchronize(self.device)
        return {}, []

    def ping(self, request: dict, fds: list[int]) -> tuple[dict, list[int]]:
        return {}, []

    @property
    def _operator(self) -> Operator:
        assert self.operator is not None, "no operator is open"
        return self.operator

    def _drawn(self, case: Case, seed: int, constructed: Sequence[str] = ()) -> tuple[torch.Tensor, ...]:
        random.seed(seed)
        torch.manual_seed(seed)
        operator = self._operator
        inputs = operator.make_inputs(case, torch.Generator().manual_seed(seed))
        for index, tensor in enumerate(inputs):
            if not isinstance(tensor, torch.Tensor):
                raise LabError(f"Input {index} of the operator '{operator.name}' is a {type(tensor).__name__}; all must be tensors.")
        if constructed and operator.constructed is not None and operator.module is not None:
            made, spec = operator.constructed(case), operator.module(case)
            first = spec.arguments
            inputs = (*inputs[:first], *(made[n] if n in constructed else t for n, t in zip(spec.state, inputs[first:], strict=True)))
        return tuple(tensor.detach().contiguous() for tensor in inputs)

    def _expect(self, drawn: InputSet, outputs: tuple[torch.Tensor, ...]) -> dict[str, Any]:
        wide = tuple(tensor.double() if tensor.is_floating_point() else tensor.clone() for tensor in drawn.inputs)
        tolerance = self._operator.tolerance
        double = _outputs(self._operator.reference(*wide))
        drawn.golden = numerics.golden(outputs, double, tolerance.factor, dict(tolerance.floors))
        self.gates[drawn.case.name] = gates = [want.widest_gate for want in drawn.golden]
        return {"gates": gates}


def _start(region: mmap.mmap) -> int:
    return torch.frombuffer(region, dtype=torch.uint8).data_ptr()


def _outputs(result: Any) -> tuple[torch.Tensor, ...]:
    outputs = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    for index, tensor in enumerate(outputs):
        if not isinstance(tensor, torch.Tensor):
            raise LabError(f"Output {index} of the reference is a {type(tensor).__name__}; all must be tensors.")
    return tuple(tensor.detach() for tensor in outputs)


def _modules(operator: Operator, cases: Sequence[Case]) -> dict[str, str]:
    """How a `ModelNew` is built for each case; none where the reference is no module, or was built from more than plain data."""
    if operator.module is None:
        return {}
    with contextlib.suppress(TypeError):
        return {case.name: module_spec.to_text(operator.module(case)) for case in cases}
    return {}


def _spec(tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))


def _placed(described: list[dict]) -> list[memory.Placed]:
    return [memory.Placed(TensorSpec(**entry["spec"]), entry["offset"]) for entry in described]


def _view(region: mmap.mmap, place: memory.Placed, dtype: torch.dtype, count: int | None = None) -> torch.Tensor:
    shape = (count,) if count is not None else place.spec.shape
    if place.bytes == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(region, dtype=dtype, count=count or place.bytes // dtype.itemsize, offset=place.offset).reshape(shape)


def _unravel(flat: int, shape: torch.Size) -> tuple[int, ...]:
    index = []
    for size in reversed(shape):
        index.append(flat % max(size, 1))
        flat //= max(size, 1)
    return tuple(reversed(index))


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def main() -> None:
    """Serve requests until the judge closes the socket. usage: reference_worker SOCKET_FD THREADS DEVICE"""
    warnings.filterwarnings("ignore", message="The given buffer is not writable")
    channel, threads = Channel(socket.socket(fileno=int(sys.argv[1]))), int(sys.argv[2])
    torch.set_num_threads(threads)
    numerics.set_vector_library_up()
    worker = Worker(threads, torch.device(sys.argv[3]))
    if worker.device.type == "cuda":
        from kernelevolve_lab.harness.cuda_clock import CudaClock

        worker.clock = CudaClock()
        worker.clock.prepare(worker.device)
    channel.send({"ok": True})
    while True:
        try:
            request, fds = channel.receive()
        except ChannelClosed:
            os._exit(0)
        made: list[int] = []
        try:
            answer, made = getattr(worker, request["do"])(request, fds)
            answer = {"ok": True, **answer}
        except LabError as error:
            answer = {"ok": False, "kind": "user", "error": str(error)}
        except Exception as error:
            traceback.print_exc()
            answer = {"ok": False, "kind": "internal", "error": f"{request.get('do')}: {_first_line(error)}"}
        for fd in fds:
            os.close(fd)
        channel.send(answer, made)
        for fd in made:
            os.close(fd)


if __name__ == "__main__":
    main()
