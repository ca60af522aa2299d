"""What works on this machine, and how to get what does not."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from kernelevolve_lab import paths, registry
from kernelevolve_lab.errors import LabError, MissingTool


@dataclass(frozen=True)
class Check:
    """One thing looked at. `state` is `ok`, `missing` (needed) or `absent` (optional); `mend` says how to get it."""

    name: str
    state: str
    found: str
    mend: str = ""


def check_all() -> list[Check]:
    """Look at everything; no check raises, and none takes longer than a few seconds."""
    checks = [_python(), *_libraries(), *_languages(), *_targets(), *_gpu()]
    for name, look in (("sandbox", _sandbox), ("store", _store), ("model endpoint", _endpoint), ("JupyterLab", _lab)):
        checks.append(_guarded(name, look))
    return checks


def as_json(checks: list[Check]) -> list[dict[str, str]]:
    return [asdict(check) for check in checks]


def as_text(checks: list[Check]) -> str:
    """A line per check, its mend below it."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.state:<8}{check.name:<{width}}  {check.found}")
        if check.mend and check.state != "ok":
            lines.append(f"{'':<8}{'':<{width}}  → {check.mend}")
    return "\n".join(lines)


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except LabError as error:
        return Check(name, "missing", str(error))


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} processors")


def _libraries() -> list[Check]:
    found = []
    for name, needed in (("torch", True), ("triton", False), ("jupyterlab", False), ("anywidget", False), ("openai", False)):
        try:
            found.append(Check(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append(Check(name, "missing" if needed else "absent", "not installed", f"pip install {name}"))
    return found


def _languages() -> list[Check]:
    """The languages' compilers. Those that serve this machine's processor are needed, those of GPUs alone are not."""
    from kernelevolve_lab import targets

    processor = targets.resolve("cpu")

    def look(name: str) -> Check:
        language = registry.load("languages", name)
        try:
            tools = language.toolchain()
        except MissingTool as missing:
            return Check(f"language {name}", "missing" if language.supports(processor) else "absent", str(missing))
        return Check(f"language {name}", "ok", ", ".join(f"{tool} {version}" for tool, version in tools.items()))

    return [_guarded(f"language {name}", lambda name=name: look(name)) for name in registry.names("languages")]


def _targets() -> list[Check]:
    from kernelevolve_lab import targets

    found = []
    for name in targets.names():
        spec = targets.resolve(name)
        if spec.present:
            found.append(Check(f"target {name}", "ok", f"{spec.title}, {spec.units} units"))
    absent = [name for name in targets.names() if not targets.resolve(name).present]
    if absent:
        found.append(Check("other targets", "absent", f"not in this machine: {', '.join(absent)}"))
    return found


def _gpu() -> list[Check]:
    """The NVIDIA cards, and what measures and profiles on them; one line where there is none."""
    from kernelevolve_lab.targets import nvidia

    cards = nvidia.devices()
    if not cards:
        return [
            Check("NVIDIA GPU", "absent", nvidia.absence(), "kernels for one can be built and, in Triton, checked for correctness here")
        ]
    found = []
    for card in cards:
        clock = nvidia.state(card.index).get("clocks.sm")
        told = f"{card.name}, {card.memory_bytes / 2**30:.0f} GiB, {card.arch}, driver {card.driver}, {clock} of {card.max_mhz} MHz"
        found.append(Check(f"GPU {card.index}", "ok", told))
    built = _torch_cuda()
    if built:
        found.append(Check("torch for CUDA", "ok", f"CUDA {built}"))
    else:
        found.append(Check("torch for CUDA", "missing", "this torch is built for the CPU", "install torch from its CUDA index"))
    for name, serves in (("nvcc", "the language 'cuda'"), ("ncu", "hardware counters"), ("compute-sanitizer", "memory checks")):
        path = shutil.which(name)
        mend = f"part of the CUDA toolkit; needed for {serves} alone"
        found.append(Check(name, "ok", path) if path else Check(name, "absent", "not on the PATH", mend))
    return found


def _torch_cuda() -> str:
    """The CUDA version that torch was built for, read from its files: importing it takes seconds. Empty for a CPU build."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError):
        text = Path(str(importlib.metadata.distribution("torch").locate_file("torch/version.py"))).read_text()
        match = re.search(r"^cuda[^=]*= '([^']+)'", text, re.MULTILINE)
        return match[1] if match else ""
    return ""


def _sandbox() -> Check:
    from kernelevolve_lab.harness.sandbox import probe

    return Check("sandbox", "ok", probe())


def _store() -> Check:
    from kernelevolve_lab.store import Store

    url = paths.default_store_url()
    store = Store.open(url)
    runs = len(store.runs())
    store.close()
    return Check("store", "ok", f"{url}, {runs} runs")


def _endpoint() -> Check:
    base = os.environ.get("OPENAI_BASE_URL", "the library's default endpoint")
    if os.environ.get("OPENAI_API_KEY"):
        return Check("model endpoint", "ok", f"a key is set for {base}")
    return Check(
        "model endpoint", "absent", "no key", "set OPENAI_API_KEY (and OPENAI_BASE_URL for another endpoint) to use the proposer 'chat'"
    )


def _lab() -> Check:
    if Path(sys.executable).with_name("jupyter-lab").exists() or shutil.which("jupyter-lab"):
        return Check("JupyterLab", "ok", importlib.metadata.version("jupyterlab"))
    return Check("JupyterLab", "absent", "not installed", "pip install jupyterlab")
