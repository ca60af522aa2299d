"""Measures what an NVIDIA GPU can do at most, in a process of its own (`cuda_program.py`), and keeps the result per card and driver."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kernelevolve_lab.errors import LabError, MissingTool
from kernelevolve_lab.records import Ceiling, Evidence, TargetSpec
from kernelevolve_lab.targets.base import Progress
from kernelevolve_lab.targets.ceilings import kept

if TYPE_CHECKING:
    from kernelevolve_lab.targets.nvidia import Device

PROGRAM = Path(__file__).with_name("cuda_program.py")
ROUNDS = 2
PROGRESS_SECONDS = 1.0
START_SECONDS = 180.0
TF32_PRODUCTS = 3
"""Three TF32 products make one of nearly float32's precision (`tf32x3` in Triton and CUTLASS; the method: Henry, Tang, Heinecke 2019,
arXiv:1904.06376): so a float32 product may run at a third of the TF32 rate where that is more than the multiply-adds reach."""


def measure(spec: TargetSpec, device: Device, cache: Path, refresh: bool = False, progress: Progress | None = None) -> TargetSpec:
    """The target with its measured ceilings put first; takes about half a minute, and nothing when this card was measured before.

    Clocks and power, read right after the arithmetic, go into the facts. Raises `MissingTool` where torch or Triton is missing or built
    without CUDA, `LabError` when the measurement fails.
    """
    progress = progress or (lambda text: None)
    file = cache / "ceilings" / f"{_key(device)}.json"
    with kept.alone(file.parent):
        found = None if refresh else kept.read(file)
        if found is None:
            found = list(_measured(device, progress))
            kept.write(file, found)
    return apply(spec, found)


def apply(spec: TargetSpec, found: list[dict]) -> TargetSpec:
    """The target with ceilings from the program's results; each is the fastest pattern of the fastest round, a bound for all others."""
    rates: dict[tuple[str, str], dict[str, list[float]]] = {}
    for result in found:
        if "rate" in result:
            rates.setdefault((result["kind"], result["name"]), {}).setdefault(result["pattern"], []).append(result["rate"])
    memory = next((c.name for c in spec.ceilings if c.kind == "bandwidth"), "dram")
    ceilings = []
    for (kind, name), patterns in rates.items():
        best, values = max(patterns.items(), key=lambda item: max(item[1]))
        unit, scale = ("GB/s", 1e9) if kind == "bandwidth" else ("TFLOP/s", 1e12)
        others = ", ".join(f"{pattern} {max(rate) / scale:.4g}" for pattern, rate in patterns.items())
        lead = f"cuBLAS, {best}" if name.endswith("-tensor") else best
        source = f"{lead}; {unit} by pattern: {others}; best of {len(values)} runs, which differ by {_spread(values):.0%}"
        ceilings.append(_ceiling(kind, memory if name == "memory" else name, max(values), source))
    tf32 = next((c for c in ceilings if c.name == "tf32-tensor"), None)
    if tf32 is not None:
        third = f"a third of the measured TF32 rate: {TF32_PRODUCTS} products carry float32's precision"
        ceilings.append(_ceiling("compute", "float32-tf32x3", tf32.value / TF32_PRODUCTS, third))
    facts = [fact for result in found if (fact := _fact(result))]
    return spec.model_copy(update={"ceilings": (*ceilings, *spec.ceilings), "facts": (*spec.facts, *facts)})


def copy_bandwidth(spec: TargetSpec) -> float | None:
    """Bytes per second of the measured device-to-device copy, None where it was not measured."""
    for ceiling in spec.ceilings:
        if ceiling.kind == "bandwidth" and ceiling.name != "l2" and ceiling.evidence is Evidence.MEASURED:
            listed = ceiling.source.partition("GB/s by pattern: ")[2].partition(";")[0]
            rates = dict(part.rsplit(" ", 1) for part in listed.split(", "))
            return float(rates["copy"]) * 1e9 if "copy" in rates else None
    return None


def _spread(values: list[float]) -> float:
    return (max(values) - min(values)) / max(values)


def _fact(result: dict) -> str:
    if "skipped" in result:
        return f"{result['name']} was not measured: {result['skipped']}."
    if result["name"] == "versions":
        return f"Measured with torch {result['torch']}, Triton {result['triton']}, CUDA {result['cuda']}."
    if result["name"] == "state":
        return (
            f"While its ceilings were measured: SM clock {result['clocks.sm']} of {result['max_mhz']} MHz, memory clock "
            f"{result['clocks.mem']} MHz, {result['power.draw']} of {result['power_watts']} W, {result['temperature.gpu']} °C, "
            f"held back by {result['clocks_event_reasons.active']} (bits of clocks_event_reasons), driver {result['driver']}."
        )
    return ""


def _ceiling(kind: str, name: str, value: float, source: str) -> Ceiling:
    return Ceiling(kind=kind, name=name, value=value, evidence=Evidence.MEASURED, source=source)


def _measured(device: Device, progress: Progress) -> Iterator[dict]:
    from kernelevolve_lab.targets import nvidia

    progress(f"measuring what {device.name} can do at most: starting torch")
    told, state = time.monotonic(), {}
    for line in _lines([sys.executable, "-I", str(PROGRAM), str(device.index), str(ROUNDS)]):
        result = json.loads(line)
        if result["name"] == "bfloat16-tensor":
            state = nvidia.state(device.index) or state
        yield result
        if time.monotonic() > told + PROGRESS_SECONDS:
            told = time.monotonic()
            progress(f"measuring what {device.name} can do at most: {result['name']}")
    if state:
        yield {"name": "state", **state, "max_mhz": device.max_mhz, "power_watts": device.power_watts, "driver": device.driver}


def _lines(command: list[str]) -> Iterator[str]:
    """The program's output line by line; the program ends when the reader stops."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stderr is not None
        yield from process.stdout
        if process.wait(START_SECONDS) != 0:
            said = (process.stderr.read().strip().splitlines() or [f"status {process.returncode}"])[-1]
            if "No module named" in said or "not compiled with CUDA" in said:
                raise MissingTool(
                    f"Measuring this GPU needs torch and Triton built for CUDA ({said}): pip install torch, from its CUDA index."
                )
            raise LabError(f"Measuring this GPU's ceilings failed: {said}.")
    finally:
        process.kill()
        with contextlib.suppress(ValueError):  # its output was read to the end
            process.communicate()


def _key(device: Device) -> str:
    versions = [_version(name) for name in ("torch", "triton")]
    told = (device.uuid, device.name, device.driver, *versions, str(ROUNDS), PROGRAM.read_text())
    return "cuda-" + hashlib.sha256("\0".join(told).encode()).hexdigest()[:24]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
