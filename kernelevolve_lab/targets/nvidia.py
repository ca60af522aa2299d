"""NVIDIA GPUs: published specifications, and the cards of this machine as `nvidia-smi` and the CUDA driver describe them.

A card without a published specification here becomes a target of its own, named after the product (`nvidia:rtx-a2000`), with no ceilings
until they are measured. This process never loads torch or CUDA: whatever needs them runs in a process of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kernelevolve_lab.errors import UnknownName
from kernelevolve_lab.records import CacheLevel, TargetSpec
from kernelevolve_lab.targets import published
from kernelevolve_lab.targets.base import Progress

QUERY = {
    "index": int,
    "name": str,
    "uuid": str,
    "memory.total": int,
    "compute_cap": str,
    "driver_version": str,
    "clocks.max.sm": int,
    "power.limit": float,
}
"""What `nvidia-smi --query-gpu` is asked once; without units megabytes are MiB, clocks MHz, power watts."""
STATE = {"clocks.sm": int, "clocks.mem": int, "power.draw": float, "temperature.gpu": int, "clocks_event_reasons.active": str}
"""What it is asked around a measurement."""

# CUdevice_attribute of cuda.h: multiprocessors, bytes of L2, memory clock in kHz, bus width in bits.
_ATTRIBUTES = {"units": 16, "l2_bytes": 38, "memory_khz": 36, "memory_bits": 37}
_ASK_DRIVER = """
import ctypes, json, sys
cuda, found = ctypes.CDLL("libcuda.so.1"), []
count, device, value = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
if status: sys.exit(f"the CUDA driver answers with error {status}")
for index in range(count.value):
    cuda.cuDeviceGet(ctypes.byref(device), index)
    card = {}
    for name, number in json.loads(sys.argv[1]).items():
        if cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device) == 0: card[name] = value.value
    found.append(card)
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Device:
    """One card: what `nvidia-smi` says, and what the driver adds (`units`, `l2_bytes`; 0 where it could not be asked)."""

    index: int
    name: str
    uuid: str
    memory_bytes: int
    capability: str
    driver: str
    max_mhz: int
    power_watts: float
    units: int = 0
    l2_bytes: int = 0

    @property
    def slug(self) -> str:
        """The product's name as part of a target's: `NVIDIA GeForce RTX 4090` is `rtx-4090`."""
        bare = re.sub(r"\b(nvidia|geforce|quadro|tesla)\b", "", self.name.lower())
        return re.sub(r"[^a-z0-9]+", "-", bare).strip("-") or "gpu"

    @property
    def arch(self) -> str:
        """What compilers call it; Hopper and Blackwell with the suffix that gives their own instructions."""
        number = int(self.capability.replace(".", "") or 0)
        return f"sm_{number}a" if number >= 90 else f"sm_{number}"

    def is_a(self, name: str) -> bool:
        """Whether it is the card that a published target describes."""
        return all(word in self.name for word in published.match(name))


def names() -> tuple[str, ...]:
    """The published targets (`nvidia:a100`, `nvidia:h100` and so on) and the cards of this machine that are none of them."""
    known = published.names("nvidia")
    return (*known, *dict.fromkeys(_own_name(device) for device in devices() if not _published(device)))


def here() -> str:
    """The full name of the target that this machine's first card is; raises `UnknownName` saying why there is none."""
    found = devices()
    if not found:
        raise UnknownName(
            f"'nvidia' names the NVIDIA GPU of this machine, and there is none ({absence()}); name a target instead to compile for it, for "
            f"example '{published.names('nvidia')[0]}', or use 'cpu'."
        )
    return _published(found[0]) or _own_name(found[0])


def spec(name: str) -> TargetSpec:
    """The specification of one GPU; present when such a card is visible, and then with what the driver says about it."""
    if name in published.names("nvidia"):
        device = next((device for device in devices() if device.is_a(name)), None)
        found = published.spec(name, present=device is not None)
        return found if device is None else _seen(found, device)
    return _own(next(device for device in devices() if _own_name(device) == name))


def measure(spec: TargetSpec, cache: Path, refresh: bool = False, progress: Progress | None = None) -> TargetSpec:
    """The target with measured ceilings; see `ceilings.cuda.measure`."""
    from kernelevolve_lab.targets.ceilings import cuda as ceilings

    return ceilings.measure(spec, device_of(spec), cache, refresh, progress)


def device_of(spec: TargetSpec) -> Device:
    """The card of this machine that a present target is."""
    return next(device for device in devices() if spec.name in (_published(device), _own_name(device)))


@cache
def devices() -> tuple[Device, ...]:
    """The cards of this machine; empty without `nvidia-smi` or when it fails."""
    rows = _smi(QUERY)
    more = _driver() if rows else []
    found = []
    for row in rows:
        extra = more[row["index"]] if row["index"] < len(more) else {}
        found.append(
            Device(
                index=row["index"],
                name=row["name"],
                uuid=row["uuid"],
                memory_bytes=(row["memory.total"] or 0) << 20,
                capability=row["compute_cap"] or "",
                driver=row["driver_version"] or "",
                max_mhz=row["clocks.max.sm"] or 0,
                power_watts=row["power.limit"] or 0.0,
                units=extra.get("units", 0),
                l2_bytes=extra.get("l2_bytes", 0),
            )
        )
    return tuple(found)


def state(index: int = 0) -> dict[str, Any]:
    """Clocks (MHz), power (W), temperature (°C) and the bits of what holds the clocks back, now; empty where it cannot be read."""
    rows = _smi({"index": int, **STATE})
    return next(({name: row[name] for name in STATE} for row in rows if row["index"] == index), {})


def absence() -> str:
    """Why no card is seen, in a few words."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "no nvidia-smi"
    try:
        ran = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi fails: {type(error).__name__}"
    said = (ran.stdout + ran.stderr).strip().splitlines()
    return f"nvidia-smi says: {said[-1][:120]}" if said else "nvidia-smi lists no device"


def _smi(fields: dict[str, type]) -> list[dict[str, Any]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    line = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        ran = subprocess.run(line, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = []
    for text in ran.stdout.splitlines():
        values = [value.strip() for value in text.split(",")]
        if len(values) == len(fields):
            rows.append({name: _value(value, kind) for (name, kind), value in zip(fields.items(), values, strict=True)})
    return [row for row in rows if row["index"] is not None]


def _value(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:  # "[N/A]" where the card does not say
        return None


def _driver() -> list[dict[str, int]]:
    line = [sys.executable, "-I", "-c", _ASK_DRIVER, json.dumps(_ATTRIBUTES)]
    try:
        ran = subprocess.run(line, capture_output=True, text=True, timeout=30, check=True)
        return json.loads(ran.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def _published(device: Device) -> str:
    return next((name for name in published.names("nvidia") if device.is_a(name)), "")


def _own_name(device: Device) -> str:
    return f"nvidia:{device.slug}"


def _own(device: Device) -> TargetSpec:
    bare = TargetSpec(
        name=_own_name(device),
        title=device.name,
        vendor="nvidia",
        arch=device.arch,
        units=max(1, device.units),
        features=tuple(_features(device.capability)),
        memory_bytes=device.memory_bytes,
        present=True,
    )
    return _seen(bare, device)


def _seen(spec: TargetSpec, device: Device) -> TargetSpec:
    """The specification with the driver's word put before the published one."""
    changes: dict[str, Any] = {"memory_bytes": device.memory_bytes or spec.memory_bytes, "units": device.units or spec.units}
    if device.l2_bytes:
        second = CacheLevel(level=2, bytes=device.l2_bytes, shared_by=changes["units"])
        changes["caches"] = (*(level for level in spec.caches if level.level < 2), second)
    return spec.model_copy(update=changes)


def _features(capability: str) -> list[str]:
    number = int(capability.replace(".", "") or 0)
    since = {
        70: ("tensor-cores",),
        80: ("cp.async", "bfloat16", "tf32"),
        89: ("float8",),
        90: ("tma", "clusters", "setmaxnreg"),
    }
    found = [feature for least, features in since.items() if number >= least for feature in features]
    return [*found, *(["wgmma"] if number == 90 else []), *(["tcgen05", "float4"] if 100 <= number < 120 else [])]
