"""How many blocks of a kernel fit on one SM of an NVIDIA GPU at a time, and what keeps more from fitting."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REGISTERS = 65536
"""32-bit registers of an SM (compute capability 5.0 to 12.1)."""
_REGISTER_UNIT, _SHARED_UNIT, WARP = 256, 128, 32


@dataclass(frozen=True)
class Limits:
    """The limits of one SM: resident threads and blocks, bytes of shared memory in all and for one block, bytes reserved of it a block."""

    threads: int
    blocks: int
    shared: int
    shared_block: int
    reserved: int


@dataclass(frozen=True)
class Occupancy:
    """Resident blocks on an SM, their warps as a fraction of the most there can be, and the limit that comes first: `registers`, `shared
    memory`, `threads` or `blocks`."""

    blocks: int
    fraction: float
    limiter: str


def capability(arch: str) -> int:
    """The compute capability of an `arch` as compilers name it, times ten: 90 of `sm_90a`."""
    found = re.fullmatch(r"sm_(\d+)[af]?", arch)
    if found is None:
        raise ValueError(f"not an architecture of NVIDIA's: {arch}")
    return int(found[1])


@cache
def limits(arch: str) -> Limits:
    """The limits of that architecture; of the nearest older one that is known where it is not."""
    table = tomllib.loads(Path(__file__).with_name("occupancy.toml").read_text())
    known = sorted(int(key) for key in table)
    nearest = max((c for c in known if c <= capability(arch)), default=known[0])
    row = table[str(nearest)]
    return Limits(row["threads"], row["blocks"], row["shared_kib"] << 10, row["shared_block_kib"] << 10, row["reserved"])


def occupancy(arch: str, threads: int, registers: int, shared: int) -> Occupancy:
    """For blocks of `threads` threads of `registers` registers each with `shared` bytes of shared memory, static and dynamic together."""
    sm = limits(arch)
    warps = -(-threads // WARP)
    a_warp = -(-registers * WARP // _REGISTER_UNIT) * _REGISTER_UNIT
    # Registers are handed out by the SM's four quarters, each of which holds whole warps.
    by_registers = REGISTERS // 4 // a_warp * 4 // warps if a_warp else sm.blocks
    a_block = -(-(shared + sm.reserved) // _SHARED_UNIT) * _SHARED_UNIT
    by_limit = {
        "threads": sm.threads // (warps * WARP),
        "blocks": sm.blocks,
        "shared memory": sm.shared // a_block if a_block else sm.blocks,
        "registers": by_registers,
    }
    limiter = min(by_limit, key=lambda name: by_limit[name])
    blocks = by_limit[limiter]
    return Occupancy(blocks, round(blocks * warps * WARP / sm.threads, 4), limiter)
