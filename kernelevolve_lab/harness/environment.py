"""What the numbers were measured with: versions, processor, clocks, load, threads, sandbox."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path

import numpy

from kernelevolve_lab.records import Scalar

_FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq")


def snapshot(threads: int, confined: bool, versions: dict[str, Scalar]) -> dict[str, Scalar]:
    """The environment now; what cannot be read is left out."""
    found: dict[str, Scalar] = {
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "threads": threads,
        "processors": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "sandbox": "bubblewrap" if confined else "none",
        **versions,
    }
    governor, frequency = _read(_FREQUENCY / "scaling_governor"), _read(_FREQUENCY / "scaling_cur_freq")
    if governor:
        found["governor"] = governor
    if frequency.isdigit():
        found["mhz"] = int(frequency) // 1000
    return found


@cache
def _cpu_model() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or sys.platform


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
