"""Do the GPU's times hold? Ten kernels from 2 µs to 1.4 ms: Nsight Compute's duration, `triton.testing.do_bench` and the judge's clock.

The judge's clock is taken as the judge takes it, one call a visit, the median of `--visits`. Nsight Compute counts the kernel alone, with
the caches as the calls before left them; `do_bench` flushes the L2 cache before each call, so small kernels take longer there. The same
kernel by turns twice (A/A) says how far two medians of one thing lie apart.

usage: python -m tests.benchmarks.gpu_timing_trust [--visits 30] [--json FILE]
It needs an NVIDIA card; without `ncu` its column stays empty.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

COPIES = (10, 14, 17, 19, 21, 23, 25, 27)
NAMES = (*(f"copy of 2^{power} floats" for power in COPIES), "product 4096 bfloat16", "softmax 32768 x 4096")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profiled", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.profiled:
        run_profiled()
        return
    counted = by_ncu()
    rows = [{"kernel": name, "ncu": counted.get(name), **timed(call, options.visits)} for name, call in kernels().items()]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    print("| kernel | ncu, µs | do_bench, µs | judge, µs | judge again, µs | A/A |\n|---|---|---|---|---|---|")
    for row in rows:
        ncu = "" if row["ncu"] is None else f"{row['ncu']:.2f}"
        print(f"| {row['kernel']} | {ncu} | {row['do_bench']:.2f} | {row['judge']:.2f} | {row['again']:.2f} | {row['a_a']:.4f} |")


def kernels() -> dict[str, Callable[[], object]]:
    """Calls by name, each of one kernel."""
    import torch

    from kernelevolve_lab.targets.ceilings.cuda_program import copy_kernel

    x = torch.randn(1 << max(COPIES), device="cuda")
    y = torch.empty_like(x)
    a, b = (torch.randn(4096, 4096, device="cuda").to(torch.bfloat16) for _ in range(2))
    c = torch.empty_like(a)

    def copy(count: int) -> Callable[[], object]:
        return lambda: copy_kernel[(max(1, count // 1024),)](x, y, count, 1, 1024, num_warps=4)

    calls = [copy(1 << power) for power in COPIES]
    calls += [lambda: torch.mm(a, b, out=c), lambda: torch.softmax(x.view(-1, 4096), -1)]
    return dict(zip(NAMES, calls, strict=True))


def timed(call: Callable[[], object], visits: int) -> dict[str, float]:
    """Microseconds by `do_bench` and by the judge's clock, the latter in two series by turns."""
    import torch
    from triton.testing import do_bench

    from kernelevolve_lab.harness.cuda_clock import CudaClock

    clock = CudaClock()
    clock.prepare(torch.device("cuda:0"))
    call()
    series: tuple[list[float], list[float]] = ([], [])
    for number in range(2 * visits):
        series[number % 2].append(clock.time([call], lambda result: None)[0] / 1e3)
    first, second = (statistics.median(values) for values in series)
    return {"do_bench": 1e3 * do_bench(call, return_mode="median"), "judge": first, "again": second, "a_a": first / second}


def run_profiled() -> None:
    """What Nsight Compute profiles, between the marks of the profiler: each kernel twice, the second time counts."""
    import torch

    calls = list(kernels().values())
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaProfilerStart()
    for call in calls:
        call()
        call()
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaProfilerStop()


def by_ncu() -> dict[str, float]:
    """Microseconds by kernel; empty without `ncu`, or where it may not read the counters."""
    program = shutil.which("ncu")
    if program is None:
        return {}
    line = [program, "--clock-control", "none", "--cache-control", "none", "--profile-from-start", "off", "--csv"]
    line += ["--page", "raw", "--print-units", "base", "--metrics", "gpu__time_duration.sum"]
    line += [sys.executable, "-m", "tests.benchmarks.gpu_timing_trust", "--profiled"]
    ran = subprocess.run(line, capture_output=True, text=True)
    found = durations(ran.stdout)
    if not found:
        print(f"ncu told nothing: {(ran.stderr.strip().splitlines() or ['no message'])[-1]}", file=sys.stderr)
    return {name: spent / 1e3 for name, (_, spent) in zip(NAMES, found[1::2], strict=False)}


def durations(text: str) -> list[tuple[str, float]]:
    """Kernel and nanoseconds of each launch, from what `ncu --csv --page raw --print-units base` writes: messages, a line of names, a line
    of units, a line a launch, numbers with separators of thousands."""
    rows = list(csv.reader(io.StringIO(text)))
    head = next((number for number, row in enumerate(rows) if row and row[0] == "ID"), None)
    if head is None:
        return []
    names = rows[head]
    kernel, spent = names.index("Kernel Name"), names.index("gpu__time_duration.sum")
    return [(row[kernel], float(row[spent].replace(",", ""))) for row in rows[head + 2 :] if len(row) == len(names)]


if __name__ == "__main__":
    main()
