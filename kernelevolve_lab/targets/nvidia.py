"""NVIDIA GPUs: published specifications, and whether `nvidia-smi` sees one of them here."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

from kernelevolve_lab.records import TargetSpec
from kernelevolve_lab.targets import published
from kernelevolve_lab.targets.base import Progress


def names() -> tuple[str, ...]:
    """`nvidia:a100`, `nvidia:h100` and so on."""
    return published.names("nvidia")


def spec(name: str) -> TargetSpec:
    """The specification of one GPU; present when a device of that name is visible."""
    return published.spec(name, present=any(all(word in device for word in published.match(name)) for device in devices()))


def measure(spec: TargetSpec, cache: Path, refresh: bool = False, progress: Progress | None = None) -> TargetSpec:
    """The target as it is: its ceilings are the published ones."""
    return spec


@cache
def devices() -> tuple[str, ...]:
    """The product names of the GPUs of this machine, by `nvidia-smi`; empty without it or when it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        ran = subprocess.run([program, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in ran.stdout.splitlines() if line.strip())
