"""How a forked process cuts itself off before it loads a candidate: namespaces, scratch, limits, capabilities, system-call filter.

It runs inside the sandbox, in the child that a warm host forks, so that candidates of one host share nothing: neither files nor processes
nor signals. Numbers: Linux `include/uapi/linux/{sched,mount,prctl,seccomp,capability}.h`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys

from kernelevolve_lab.harness import seccomp

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWIPC = 0x00020000, 0x10000000, 0x20000000, 0x08000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 4, 38, 1, 36
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1
_CAPABILITY_VERSION_3 = 0x20080522
_SYS = {"x86_64": {"seccomp": 317, "capset": 126}, "aarch64": {"seccomp": 277, "capset": 91}}


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _system(name: str, *arguments: object) -> int:
    return _libc.syscall(_SYS[os.uname().machine][name], *arguments)


def own_namespaces(scratch_mb: int, processes: bool = True) -> None:
    """Leave the host's process, mount and IPC namespaces for the next child, with an empty /tmp of that size; without `processes` the one
    of processes is kept. Raises `OSError` where namespaces cannot be nested."""
    user, group = os.getuid(), os.getgid()
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # /proc/self/uid_map is root's otherwise
    _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWIPC | (_CLONE_NEWPID if processes else 0)), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "mount /")
    options = f"size={scratch_mb}m,mode=0700".encode()
    kept = {path: os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in _packages_below("/tmp")}
    _check(_libc.mount(b"tmpfs", b"/tmp", b"tmpfs", _MS_NOSUID | _MS_NODEV, options), "mount /tmp")
    for path, folder in kept.items():  # as read-only as they were
        os.makedirs(path)
        _check(_libc.mount(f"/proc/self/fd/{folder}".encode(), path.encode(), None, _MS_BIND | _MS_REC, None), f"bind {path}")
        os.close(folder)


def _packages_below(root: str) -> list[str]:
    """The topmost folders there from which this process imports, so that it still can."""
    found: list[str] = []
    for path in sorted(os.path.realpath(path) for path in {*sys.path, sys.prefix, sys.base_prefix} if path):
        inside = any(f"{path}/".startswith(f"{other}/") for other in found)
        if path.startswith(f"{root}/") and os.path.isdir(path) and not inside:
            found.append(path)
    return found


def die_with_parent() -> None:
    """Be killed when the process that forked this one ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of whatever processes the children of this one leave behind."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """Kill all children, and theirs as they are adopted, and wait for them."""
    while True:
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
                if parent == os.getpid():
                    os.kill(int(name), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def hide() -> None:
    """Let no other process of this user read or write this one's memory."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def reveal() -> None:
    """Let this process read its own /proc, as a device's driver does when it starts; until `hide`."""
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def limit(heap_bytes: int, shared_bytes: int | None, file_bytes: int) -> None:
    """Bound memory on top of what is in use now (`shared_bytes` of mappings; None where the device's runtime reserves address space at
    will), files, and descriptors; and be the first to go when the machine runs out of memory."""
    with open("/proc/self/statm") as file:
        pages = [int(number) for number in file.read().split()]
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    bounds = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: 1024,
        resource.RLIMIT_DATA: pages[5] * resource.getpagesize() + heap_bytes,
    }
    if shared_bytes is not None:
        bounds[resource.RLIMIT_AS] = pages[0] * resource.getpagesize() + heap_bytes + shared_bytes
    for what, bound in bounds.items():
        hard = resource.getrlimit(what)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(what, (bound, bound))


def drop_capabilities() -> None:
    """Give up what the new user namespace granted."""
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _check(_system("capset", header, bytes(24)), "capset")


def filter_calls(program: bytes) -> None:
    """Install a system-call filter on all threads of this process, for good."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    steps = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(steps))
    _check(_system("seccomp", _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, described), "seccomp")


def confine() -> None:
    """What the sandbox does for other workers, and a host that forks must do in each child."""
    drop_capabilities()
    if seccomp.available():
        filter_calls(seccomp.python_filter())


def forbid_processes() -> None:
    """From now on this process starts threads and nothing else."""
    if seccomp.available():
        filter_calls(seccomp.threads_only_filter())


def adopt_descriptor(fd: int, number: int) -> None:
    """Make `fd` the descriptor `number`."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(fd, number)
    os.close(fd)
