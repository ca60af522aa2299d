"""AMD Instinct GPUs: published specifications, and whether the kernel's KFD driver shows one of them here."""

from functools import cache
from pathlib import Path

from kernelevolve_lab.records import TargetSpec
from kernelevolve_lab.targets import published
from kernelevolve_lab.targets.base import Progress

NODES = Path("/sys/class/kfd/kfd/topology/nodes")


def names() -> tuple[str, ...]:
    """`amd:mi300x`, `amd:mi350x` and so on."""
    return published.names("amd")


def spec(name: str) -> TargetSpec:
    """The specification of one GPU; present when a device with its architecture, compute units and memory is there."""
    return published.spec(name, present=any(_is(device, published.match(name)) for device in devices(NODES)))


def measure(spec: TargetSpec, cache: Path, refresh: bool = False, progress: Progress | None = None) -> TargetSpec:
    """The target as it is: its ceilings are the published ones."""
    return spec


@cache
def devices(nodes: Path) -> tuple[dict[str, int], ...]:
    """What KFD says of each GPU: `gfx_target_version` (90402 is gfx942), `units` and `memory_bytes`."""
    found = []
    for node in sorted(nodes.glob("[0-9]*")):
        try:
            properties = _numbers(node / "properties")
            memory = sum(_numbers(bank).get("size_in_bytes", 0) for bank in node.glob("mem_banks/*/properties"))
        except OSError:
            continue
        if properties.get("gfx_target_version", 0) > 0:
            units = properties.get("simd_count", 0) // max(1, properties.get("simd_per_cu", 4))
            found.append({"gfx_target_version": properties["gfx_target_version"], "units": units, "memory_bytes": memory})
    return tuple(found)


def _is(device: dict[str, int], wanted: dict[str, int]) -> bool:
    memory = device["memory_bytes"] / 1e9
    return (
        device["gfx_target_version"] == wanted["gfx_target_version"]
        and device["units"] == wanted["units"]
        and wanted["least_memory_gb"] <= memory <= wanted["most_memory_gb"]
    )


def _numbers(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in file.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
