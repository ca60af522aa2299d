"""Which CUDA compiler is there, and what it is."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from kernelevolve_lab.errors import MissingTool

HOW = (
    "Install the CUDA toolkit 12.8 or newer (https://developer.nvidia.com/cuda-downloads; conda: cuda-nvcc and cuda-cudart-dev; pip: "
    "nvidia-cuda-nvcc, nvidia-cuda-cccl and nvidia-cuda-runtime) and have nvcc on PATH, or name the toolkit's folder in CUDA_HOME."
)


@dataclass(frozen=True)
class Nvcc:
    """An nvcc: absolute `path` and the `version` that it prints, as `13.0 (V13.0.88)`."""

    path: str
    version: str


def find_nvcc() -> Nvcc:
    """The nvcc of `$CUDA_HOME` or `$CUDA_PATH`, else of PATH, of /usr/local/cuda, or of pip; raises `MissingTool` without one."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or ""
    return _probe(named, os.environ.get("PATH", ""))


@cache
def _probe(named: str, path: str) -> Nvcc:
    candidates = [Path(named) / "bin" / "nvcc"] if named else []
    on_path = shutil.which("nvcc", path=path)
    if not named:
        candidates += [Path(on_path)] if on_path else []
        candidates.append(Path("/usr/local/cuda/bin/nvcc"))
        spec = find_spec("nvidia")
        for root in spec.submodule_search_locations or () if spec else ():
            candidates += sorted(Path(root).glob("*/bin/nvcc"))
    for candidate in candidates:
        if not candidate.is_file():
            continue
        try:
            ran = subprocess.run([str(candidate), "--version"], capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise MissingTool(f"The CUDA compiler {candidate} does not run ({type(error).__name__}). {HOW}") from error
        release = re.search(r"release (\S+), (V\S+)", ran.stdout)
        return Nvcc(str(candidate.absolute()), f"{release[1]} ({release[2]})" if release else "unknown version")
    where = f" in {named} (named in CUDA_HOME)" if named else ""
    raise MissingTool(f"There is no CUDA compiler (nvcc){where}. {HOW}")


def available() -> bool:
    """Whether there is one."""
    try:
        find_nvcc()
    except MissingTool:
        return False
    return True
