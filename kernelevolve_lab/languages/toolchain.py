"""Which C++ compiler is there, and what it is."""

import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kernelevolve_lab.errors import MissingTool

HOW = "Install g++ (Debian or Ubuntu: apt install g++; conda: gxx_linux-64) or clang++, or name a C++ compiler in CXX."


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: absolute `path`, `kind` (`gcc` or `clang`) and the `version` line it prints."""

    path: str
    kind: str
    version: str


def find_compiler() -> Compiler:
    """The compiler of `$CXX`, else g++, else clang++; raises `MissingTool` when there is none that runs."""
    return _probe(os.environ.get("CXX", "").strip(), os.environ.get("PATH", ""))


@cache
def _probe(named: str, _path: str) -> Compiler:
    for name in [named] if named else ["g++", "clang++"]:
        found = shutil.which(name)
        if found is None:
            continue
        try:
            ran = subprocess.run(
                [found, "--version"], capture_output=True, text=True, timeout=20, check=True, env={"LC_ALL": "C", "PATH": _path}
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise MissingTool(f"The C++ compiler '{name}' does not run ({type(error).__name__}). {HOW}") from error
        version = ran.stdout.splitlines()[0].strip() if ran.stdout.strip() else "unknown version"
        return Compiler(path=found, kind="clang" if "clang" in version else "gcc", version=version)
    raise MissingTool(f"There is no C++ compiler '{named}' (named in CXX). {HOW}" if named else f"There is no C++ compiler. {HOW}")


@cache
def cpu_identity() -> str:
    """A short hash of what `-march=native` depends on: the CPU's model and instruction sets."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = platform.processor()
    kept = {
        line for line in text.splitlines() if line.startswith(("vendor_id", "model name", "cpu family", "model\t", "flags", "Features"))
    }
    return hashlib.sha256("\n".join([platform.machine(), *sorted(kept)]).encode()).hexdigest()[:16]
