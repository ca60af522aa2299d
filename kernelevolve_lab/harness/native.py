"""The judge's side of the native host: one disposable, confined process per candidate of a compiled language."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from kernelevolve_lab.errors import MissingTool
from kernelevolve_lab.harness import sandbox
from kernelevolve_lab.harness.packets import PacketWorker, packet_pair
from kernelevolve_lab.harness.worker import WorkerProcess, thread_environment
from kernelevolve_lab.languages import abi
from kernelevolve_lab.languages.toolchain import find_compiler

_SOURCE = Path(__file__).with_name("native_host.cpp")


def build_host(cache: Path) -> Path:
    """The native host program, compiled once per compiler and source."""
    compiler = find_compiler()
    header = Path(abi.__file__).with_name("kel.h")
    key = hashlib.sha256(b"\0".join([_SOURCE.read_bytes(), header.read_bytes(), compiler.version.encode()])).hexdigest()[:16]
    program = cache / "hosts" / f"native_host-{key}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
            made = Path(scratch) / "native_host"
            line = [
                compiler.path,
                "-std=c++20",
                "-O2",
                "-pthread",
                f"-I{header.parent}",
                str(_SOURCE),
                "-o",
                str(made),
                "-ldl",
                "-Wl,-z,now",
            ]
            built = subprocess.run(line, capture_output=True, text=True, timeout=120)
            if built.returncode != 0:
                raise MissingTool(f"The worker for compiled kernels cannot be built with {compiler.path}: {built.stderr.strip()[:500]}")
            os.replace(made, program)
    return program


class NativeWorker(PacketWorker):
    """One candidate's process, with the shared library loaded."""

    def __init__(self, host: Path, artifact: Path, *, threads: int, heap_bytes: int, load_seconds: float, confined: bool):
        super().__init__()
        self._socket, theirs = packet_pair()
        environment = thread_environment(threads)
        confinement = None
        if confined:
            libraries = find_compiler_libraries()
            confinement = sandbox.Confinement(
                readable=(host, artifact, *libraries), environment=environment, scratch_mb=0, filter="native", devices=False
            )
        argv = [str(host), str(theirs.fileno()), str(artifact), str(threads), str(heap_bytes)]
        if not confined:
            argv = ["/usr/bin/env", *(f"{name}={value}" for name, value in environment.items()), *argv]
        try:
            self._process = WorkerProcess(argv, confinement, (theirs.fileno(),))
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        try:
            self._greet(load_seconds)
        except BaseException:
            self.close()
            raise


def find_compiler_libraries() -> tuple[Path, ...]:
    """Folders of the run-time libraries of a compiler that does not live under /usr (conda's, for one)."""
    root = Path(find_compiler().path).resolve().parent.parent
    if root.is_relative_to("/usr"):
        return ()
    return tuple(path for path in (root / "lib", root / "lib64") if path.is_dir())
