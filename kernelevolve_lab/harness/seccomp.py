"""System-call filters for the sandbox, as classic BPF programs that bubblewrap installs right before it starts a worker.

Profiles. `native_filter` is a list of what a numeric kernel with threads may call; everything else fails with EPERM, and no new
process can be made. `python_filter` is a list of what nobody may call (a reference in PyTorch needs compilers and so most other calls);
`threads_only_filter` can be added to either.
Numbers: Linux `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`; the program form: seccomp(2).
"""

import errno
import platform
import struct

_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: (x86_64, aarch64); None where the architecture has no such call.
_NUMBERS: dict[str, tuple[int, int | None]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "poll": (7, 73), "lseek": (8, 62), "mmap": (9, 222),
    "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "pread64": (17, 67), "readv": (19, 65), "writev": (20, 66), "access": (21, 48), "sched_yield": (24, 124),
    "mremap": (25, 216), "mincore": (27, 232), "madvise": (28, 233), "nanosleep": (35, 101), "getpid": (39, 172), "sendto": (44, 206),
    "recvfrom": (45, 207), "sendmsg": (46, 211), "recvmsg": (47, 212), "clone": (56, 220), "execve": (59, 221), "exit": (60, 93),
    "uname": (63, 160), "getcwd": (79, 17), "readlink": (89, 78), "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179),
    "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173),
    "sigaltstack": (131, 132), "arch_prctl": (158, 4096), "gettid": (186, 178), "futex": (202, 98), "sched_setaffinity": (203, 122),
    "sched_getaffinity": (204, 123), "set_tid_address": (218, 96), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "tgkill": (234, 131), "openat": (257, 56), "newfstatat": (262, 79),
    "readlinkat": (267, 78), "faccessat": (269, 48), "ppoll": (271, 73), "set_robust_list": (273, 99), "getcpu": (309, 168),
    "getrandom": (318, 278), "membarrier": (324, 283), "rseq": (334, 293), "prlimit64": (302, 261), "clone3": (435, 435),
    "set_mempolicy": (238, 237), "get_mempolicy": (239, 236), "mbind": (237, 235),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "bpf": (321, 280), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "userfaultfd": (323, 282), "perf_event_open": (298, 241), "mount": (165, 40),
    "umount2": (166, 39), "unshare": (272, 97), "setns": (308, 268), "pivot_root": (155, 41), "chroot": (161, 51),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430), "fsmount": (432, 432),
    "fsconfig": (431, 431), "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "kcmp": (312, 272), "acct": (163, 89),
    "wait4": (61, 260), "waitid": (247, 95), "pause": (34, None), "select": (23, None), "pselect6": (270, 72), "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137), "fcntl": (72, 25), "quotactl": (179, 60), "lookup_dcookie": (212, 18), "vhangup": (153, 58),
    "socket": (41, 198), "fork": (57, None), "vfork": (58, None), "execveat": (322, 281),
    "seccomp": (317, 277), "mseal": (462, 462),
}  # fmt: skip

_NATIVE = (
    "read", "write", "close", "fstat", "poll", "lseek", "munmap", "brk", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "pread64", "readv", "writev", "access", "sched_yield", "mremap", "mincore", "madvise", "nanosleep", "getpid", "sendto",
    "recvfrom", "sendmsg", "recvmsg", "execve", "exit", "uname", "getcwd", "readlink", "getrlimit", "getrusage", "sysinfo", "times",
    "getuid", "getgid", "geteuid", "getegid", "getppid", "sigaltstack", "arch_prctl", "gettid", "futex", "sched_setaffinity",
    "sched_getaffinity", "set_tid_address", "clock_gettime", "clock_getres", "clock_nanosleep", "exit_group", "tgkill", "openat",
    "newfstatat", "readlinkat", "faccessat", "ppoll", "set_robust_list", "getcpu", "getrandom", "membarrier", "rseq", "prlimit64",
    "set_mempolicy", "get_mempolicy", "mbind", "wait4", "waitid", "pause", "select",
    "pselect6", "rt_sigsuspend", "rt_sigtimedwait", "fcntl", "seccomp", "mseal",
)  # fmt: skip

_NOBODY = (
    "ptrace", "process_vm_readv", "process_vm_writev", "bpf", "keyctl", "add_key", "request_key", "userfaultfd", "perf_event_open",
    "mount", "umount2", "unshare", "setns", "pivot_root", "chroot", "init_module", "finit_module", "delete_module", "kexec_load", "reboot",
    "swapon", "swapoff", "settimeofday", "clock_settime", "adjtimex", "open_by_handle_at", "name_to_handle_at", "io_uring_setup",
    "io_uring_enter", "io_uring_register", "move_mount", "open_tree", "fsopen", "fsmount", "fsconfig", "pidfd_getfd", "process_madvise",
    "kcmp", "acct", "quotactl", "lookup_dcookie", "vhangup",
)  # fmt: skip

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_FIRST_ARGUMENT = 0, 4, 16
_OFFSET_PROTECTION, _OFFSET_MAP_FLAGS = 32, 40  # third and fourth argument of mmap; the third of mprotect
_CLONE_THREAD, _PROT_EXEC, _MAP_ANONYMOUS = 0x00010000, 0x4, 0x20


def available() -> bool:
    """Whether this machine's architecture has a filter here."""
    return platform.machine() in _ARCH


def native_filter() -> bytes:
    """For compiled kernels: computing, memory and threads; anything else fails with EPERM, new processes too.

    Code comes from files alone, of which none is writable; once the kernel is loaded its host forbids new code altogether."""
    eperm = _ERRNO | errno.EPERM
    # glibc falls back from clone3, whose flags a filter cannot see, to clone, whose flags it can.
    special = [
        *_when("clone3", _ERRNO | errno.ENOSYS),
        (_JUMP_EQUAL, 0, 4, _number("clone")),
        (_LOAD, 0, 0, _OFFSET_FIRST_ARGUMENT),
        (_JUMP_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, eperm),
        (_JUMP_EQUAL, 0, 4, _number("mprotect")),
        (_LOAD, 0, 0, _OFFSET_PROTECTION),
        (_JUMP_ANY_BIT, 1, 0, _PROT_EXEC),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, eperm),
        (_JUMP_EQUAL, 0, 6, _number("mmap")),
        (_LOAD, 0, 0, _OFFSET_PROTECTION),
        (_JUMP_ANY_BIT, 0, 2, _PROT_EXEC),
        (_LOAD, 0, 0, _OFFSET_MAP_FLAGS),
        (_JUMP_ANY_BIT, 1, 0, _MAP_ANONYMOUS),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, eperm),
    ]
    allowed = [step for name in _NATIVE for step in _when(name, _ALLOW)]
    return _assemble([*special, *allowed, (_RETURN, 0, 0, eperm)])


def python_filter() -> bytes:
    """For PyTorch and its compilers: everything but what reaches into other processes, the kernel or the mounts."""
    denied = [step for name in _NOBODY for step in _when(name, _ERRNO | errno.EPERM)]
    return _assemble([*denied, (_RETURN, 0, 0, _ALLOW)])


def threads_only_filter() -> bytes:
    """On top of another filter: no new processes and no other programs."""
    eperm = _ERRNO | errno.EPERM
    steps = [
        *_when("clone3", _ERRNO | errno.ENOSYS),
        *(step for name in ("fork", "vfork", "execve", "execveat") for step in _when(name, eperm)),
        (_JUMP_EQUAL, 0, 3, _number("clone")),
        (_LOAD, 0, 0, _OFFSET_FIRST_ARGUMENT),
        (_JUMP_ANY_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, eperm),
    ]
    return _assemble([*steps, (_RETURN, 0, 0, _ALLOW)])


def _number(name: str) -> int | None:
    return _NUMBERS[name][list(_ARCH).index(platform.machine())]


def _when(name: str, action: int) -> list[tuple[int, int, int, int]]:
    number = _number(name)
    return [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, action)] if number is not None else []


def _assemble(steps: list[tuple[int, int, int, int]]) -> bytes:
    head = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_JUMP_EQUAL, 1, 0, _ARCH[platform.machine()]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
    ]
    if platform.machine() == "x86_64":
        head += [(_JUMP_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]  # the x32 numbers of the same calls
    return b"".join(struct.pack("<HBBI", *step) for step in [*head, *steps])
