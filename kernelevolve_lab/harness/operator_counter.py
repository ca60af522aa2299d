"""How often a process has called each of PyTorch's operators, counted in the process and read from outside.

A callback in PyTorch's dispatcher counts (`operator_counter.cpp`), in timed calls as in any other, so that a candidate cannot behave while
it is looked at: it always is. It is installed in the zygote, before any candidate is there.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import struct
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from kernelevolve_lab.errors import MissingTool
from kernelevolve_lab.harness import peeking
from kernelevolve_lab.languages.toolchain import find_compiler

_SOURCE = Path(__file__).with_name("operator_counter.cpp")
_HEAD, _ENTRY, _ENTRIES = 64, struct.Struct("<Q56s"), 4096
_BUILD_SECONDS = 300.0


def library(cache: Path) -> Path | None:
    """The compiled callback, built once for each compiler and version of PyTorch; None where there is no compiler, or no headers."""
    found = importlib.util.find_spec("torch")
    try:
        compiler = find_compiler()
    except MissingTool:
        return None
    if found is None or not found.submodule_search_locations:
        return None
    torch = Path(found.submodule_search_locations[0])
    told = [_SOURCE.read_bytes(), compiler.version.encode(), importlib.metadata.version("torch").encode(), str(torch).encode()]
    path = cache / "hosts" / f"operator_counter-{hashlib.sha256(b'|'.join(told)).hexdigest()[:16]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            made = Path(scratch, path.name)
            line = [compiler.path, "-std=c++20", "-O2", "-shared", "-fPIC", f"-I{torch / 'include'}", str(_SOURCE), "-o", str(made)]
            line += [f"-L{torch / 'lib'}", "-ltorch_cpu", "-lc10"]
            if subprocess.run(line, capture_output=True, timeout=_BUILD_SECONDS).returncode != 0:
                return None
            os.replace(made, path)
    return path


def install(path: str) -> int:
    """Count from now on, in this process and those that are forked from it; returns where the counts lie."""
    count = ctypes.CDLL(path).kel_count_operators
    count.restype = ctypes.c_void_p
    return int(count())


def composite() -> list[str]:
    """The names of operators that only call others, which are counted themselves."""
    import torch

    leaves, names = set(), set()
    for name in torch._C._dispatch_get_all_op_names():
        base = name.partition(".")[0]
        names.add(base)
        if not torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"):
            leaves.add(base)
    return sorted(names - leaves)


def read(pid: int, address: int) -> Counter[str] | None:
    """How often each operator has been called so far in a process whose counts lie there; None where they cannot be read."""
    head = peeking.read(pid, address, _HEAD)
    if head is None:
        return None
    used = int.from_bytes(head[:8], "little")
    if used > _ENTRIES:
        return None
    entries = peeking.read(pid, address + _HEAD, used * _ENTRY.size) if used else b""
    if entries is None:
        return None
    return Counter({name.partition(b"\0")[0].decode(errors="replace"): count for count, name in _ENTRY.iter_unpack(entries)})
