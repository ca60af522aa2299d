"""Measures what this CPU can do at most, with a C++ program of its own (`cpu_ceilings.cpp`), and keeps the result per host."""

import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernelevolve_lab import registry
from kernelevolve_lab.errors import LabError
from kernelevolve_lab.records import CacheLevel, Ceiling, Evidence, TargetSpec
from kernelevolve_lab.targets.base import Progress
from kernelevolve_lab.targets.ceilings import kept

SOURCE = Path(__file__).with_name("cpu_ceilings.cpp")

MIB = 1 << 20
PROGRESS_SECONDS = 1.0

# dtype and unit -> the feature of /proc/cpuinfo without which there is nothing to measure ("" where every CPU has it).
COMPUTE = {
    "float32": "",
    "float64": "",
    "float16": "avx512_fp16",
    "bfloat16": "avx512_bf16",
    "int8": "avx512_vnni",
    "bfloat16-amx": "amx_bf16",
    "int8-amx": "amx_int8",
}


@dataclass(frozen=True)
class Plan:
    """How long to measure: `rounds` over all tests, `milliseconds` a test and round, `dram_bytes` the working set that stands for DRAM."""

    rounds: int = 2
    milliseconds: int = 12
    dram_bytes: int = 512 * MIB


@dataclass(frozen=True, order=True)
class Test:
    """One test of the program: `bytes` is the working set of all threads together (0 for arithmetic)."""

    pattern: str
    name: str
    threads: int
    bytes: int

    def argument(self) -> str:
        return f"{self.pattern}:{self.name}:{self.threads}:{self.bytes // self.threads}"


def measure(spec: TargetSpec, cache: Path, refresh: bool = False, progress: Progress | None = None, plan: Plan | None = None) -> TargetSpec:
    """The target with its measured ceilings, best first; takes about five seconds, and nothing when this host was measured before.

    Bandwidths count the bytes that a loop reads and writes (as STREAM does); the value of a level is its fastest pattern, so that it is
    a bound for every mix of reads and writes. The last cache level is given the size that was found to be usable where this machine has
    only a share of it. Raises `MissingTool` without a C++ compiler.
    """
    plan = plan or Plan()
    progress = progress or (lambda text: None)
    tools = registry.load("languages", "cpp").toolchain()
    file = cache / "ceilings" / f"{_key(spec, tools['compiler'], plan)}.json"
    with kept.alone(file.parent):
        found = None if refresh else kept.read(file)
        if found is None:
            found = _measure(spec, tools["compiler_path"], plan, progress)
            kept.write(file, found)
    return _apply(spec, found, plan)


def plan_tests(spec: TargetSpec, plan: Plan) -> list[Test]:
    """The tests for a machine: every cache level and DRAM by one and by all threads, the arithmetic it has, and the search for the usable
    size of the last cache level."""
    tests = []
    for threads in sorted({1, spec.units}):
        for name, total in working_sets(spec, threads, plan).items():
            patterns = ("read", "copy", "triad", "copy-streaming") if name == "dram" else ("read", "copy", "triad")
            tests += [Test(pattern, name, threads, total) for pattern in patterns]
        tests += [Test("fma", name, threads, 0) for name, feature in COMPUTE.items() if not feature or feature in spec.features]
    tests += [Test("read", "knee", spec.units, total) for total in _knee_sizes(spec, plan)]
    return tests


def working_sets(spec: TargetSpec, threads: int, plan: Plan) -> dict[str, int]:
    """Bytes, over all threads, that stay in each level: half of L1 and of L2, four times L2 for L3 (or half of L3, if that is less: the
    cache of a shared host is never all ours), and for DRAM four times L3, as far as `plan.dram_bytes` and memory allow."""
    sets: dict[str, int] = {}
    capacity = {level.level: _capacity(level, threads, spec.units) for level in spec.caches}
    for level in (1, 2):
        if level in capacity:
            sets[f"l{level}"] = capacity[level] // 2
    if 3 in capacity:
        below = capacity.get(2, capacity.get(1, 0))
        total = min(4 * below, capacity[3] // 2)
        if total > 1.2 * below:
            sets["l3"] = total
    last = max(capacity.values(), default=8 * MIB)
    sets["dram"] = min(max(4 * last, 256 * MIB), plan.dram_bytes, max(spec.memory_bytes // 8, 16 * MIB))
    return sets


def _capacity(level: CacheLevel, threads: int, units: int) -> int:
    return level.bytes * -(-min(threads, units) // level.shared_by)


def _knee_sizes(spec: TargetSpec, plan: Plan) -> list[int]:
    last = next((level for level in spec.caches if level.level == 3), None)
    if last is None:
        return []
    start = working_sets(spec, spec.units, plan).get("l3", 0)
    stop = min(_capacity(last, spec.units, spec.units), working_sets(spec, spec.units, plan)["dram"])
    sizes = []
    while start and (start := start * 2) <= stop:
        sizes.append(start)
    return sizes


def _measure(spec: TargetSpec, compiler: str, plan: Plan, progress: Progress) -> list[dict]:
    tests = plan_tests(spec, plan)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "cpu_ceilings"
        progress("measuring what this CPU can do at most: building the program")
        flags = ["-std=c++20", "-O3", "-march=native", "-fopenmp", f"-DVECTOR_BYTES={max(spec.simd_bits, 128) // 8}"]
        built = subprocess.run([compiler, *flags, str(SOURCE), "-o", str(program)], capture_output=True, text=True, timeout=120)
        if built.returncode != 0:
            last = (built.stderr.strip().splitlines() or ["no message"])[-1]
            raise LabError(
                f"The program that measures this CPU's ceilings does not build with {compiler}: {last}. Try another compiler in CXX."
            )
        found, told = [], 0.0
        for line in _lines([str(program), str(plan.rounds), str(plan.milliseconds), *(test.argument() for test in tests)]):
            result = json.loads(line)
            found.append(result)
            if time.monotonic() < told + PROGRESS_SECONDS:
                continue
            told = time.monotonic()
            threads = "1 thread" if result["threads"] == 1 else f"{result['threads']} threads"
            name = f"{result['name']} {result['pattern']}"
            progress(f"measuring what this CPU can do at most: {name}, {threads} ({len(found)} of {plan.rounds * len(tests)})")
    return found


def _lines(command: list[str]) -> Iterator[str]:
    """The program's output line by line; the program ends when the reader stops."""
    # Bound threads: on a busy machine, two unbound ones may share one core for a whole measurement.
    environment = {**os.environ, "OMP_PROC_BIND": "true"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None and process.stderr is not None
        yield from process.stdout
        if process.wait() != 0:
            raise LabError(f"Measuring this CPU's ceilings failed: {process.stderr.read().strip() or f'status {process.returncode}'}.")
    finally:
        process.kill()
        process.communicate()


def _apply(spec: TargetSpec, found: list[dict], plan: Plan) -> TargetSpec:
    best: dict[tuple[str, str, int], list[float]] = {}
    bytes_of: dict[tuple[str, int], int] = {}
    for result in found:
        best.setdefault((result["name"], result["pattern"], result["threads"]), []).append(result["rate"])
        bytes_of[result["name"], result["threads"]] = result["bytes"] * result["threads"]
    ceilings = []
    for threads in sorted({1, spec.units}):
        label = 0 if threads == spec.units else threads
        for name in ("l1", "l2", "l3", "dram"):
            patterns = {p: rates for (n, p, t), rates in best.items() if (n, t) == (name, threads)}
            if patterns:
                pattern, rates = max(patterns.items(), key=lambda item: max(item[1]))
                others = ", ".join(f"{p} {max(r) / 1e9:.4g}" for p, r in patterns.items())
                source = f"{pattern} over {_size(bytes_of[name, threads])}, {_count(threads)}; GB/s by pattern: {others}; {_spread(rates)}"
                ceilings.append(_ceiling("bandwidth", name, max(rates), label, source))
        for name in COMPUTE:
            rates = best.get((name, "fma", threads), [])
            if rates and max(rates) > 0:
                source = f"independent chains of multiply-adds, {spec.simd_bits} bit vectors, {_count(threads)}; {_spread(rates)}"
                if name.endswith("-amx"):
                    source = f"four independent AMX tile products, {_count(threads)}; {_spread(rates)}"
                ceilings.append(_ceiling("compute", name, max(rates), label, source))
    if spec.units == 1:
        ceilings += [ceiling.model_copy(update={"threads": 1}) for ceiling in ceilings]
    caches, facts = _usable_caches(spec, best, found)
    return spec.model_copy(update={"ceilings": (*ceilings, *spec.ceilings), "caches": caches, "facts": (*spec.facts, *facts)})


def _usable_caches(spec: TargetSpec, best: dict, found: list[dict]) -> tuple[tuple[CacheLevel, ...], tuple[str, ...]]:
    """The caches, the last one cut to the smallest working set that was no longer read at cache speed: a bound from above, as a roof needs.

    Cache speed ends halfway (by time a byte) between the L3 and the DRAM rate: there, half of the bytes come from DRAM.
    """
    rate_at: dict[int, float] = {}
    for result in found:
        if result["name"] == "knee":
            total = result["bytes"] * result["threads"]
            rate_at[total] = max(rate_at.get(total, 0.0), result["rate"])
    inside, outside = best.get(("l3", "read", spec.units)), best.get(("dram", "read", spec.units))
    if not rate_at or not inside or not outside:
        return spec.caches, ()
    limit = 2 / (1 / max(inside) + 1 / max(outside))
    largest = max((size for size, rate in rate_at.items() if rate >= limit), default=0)
    usable = min((size for size in rate_at if size > largest), default=0)
    last = next(level for level in spec.caches if level.level == 3)
    if not usable or usable >= last.bytes or max(inside) < 1.2 * max(outside):
        return spec.caches, ()
    fact = f"Of {_size(last.bytes)} of L3, less than {_size(usable)} were usable: so large a working set was read more slowly (measured)."
    cut = last.model_copy(update={"bytes": usable})
    return tuple(cut if level.level == 3 else level for level in spec.caches), (fact,)


def _ceiling(kind: str, name: str, value: float, threads: int, source: str) -> Ceiling:
    return Ceiling(kind=kind, name=name, value=value, threads=threads, evidence=Evidence.MEASURED, source=source)


def _spread(rates: list[float]) -> str:
    low, high = min(rates), max(rates)
    return f"best of {len(rates)} rounds, which differ by {100 * (high - low) / high:.0f} %" if high > 0 else "not measured"


def _count(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _size(count: int) -> str:
    return f"{count / MIB:.4g} MiB" if count >= MIB else f"{count / 1024:.4g} KiB"


def _key(spec: TargetSpec, compiler: str, plan: Plan) -> str:
    hardware = spec.model_dump_json(exclude={"ceilings", "facts"})
    return hashlib.sha256("\0".join((hardware, compiler, repr(plan), SOURCE.read_text())).encode()).hexdigest()[:24]
