"""The target `cpu`: what this machine's processor is, as this process may use it."""

import os
import platform
from pathlib import Path

from kernelevolve_lab.records import CacheLevel, TargetSpec
from kernelevolve_lab.targets.base import Progress
from kernelevolve_lab.targets.ceilings import cpu as ceilings

SYS = Path("/sys")
PROC = Path("/proc")

# Flags of /proc/cpuinfo that a kernel author chooses by, x86 and ARM.
FEATURES = frozenset(
    {
        *("sse2", "sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni", "avx_vnni_int8", "avx_ifma"),
        *("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
        *("amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
        *("asimd", "asimddp", "asimdhp", "fphp", "bf16", "i8mm", "sve", "sve2", "sme"),
    }
)


def names() -> tuple[str, ...]:
    """`cpu` alone: the processor of this machine."""
    return ("cpu",)


def spec(name: str = "cpu") -> TargetSpec:
    """The CPU of this machine, as detected, without measuring anything."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    features = tuple(sorted(flags & FEATURES))
    allowed = sorted(os.sched_getaffinity(0))
    cores = cores_available()
    model = " ".join((info.get("model name") or info.get("Hardware") or platform.machine()).replace("(R)", "").replace("(TM)", "").split())
    return TargetSpec(
        name=name,
        title=f"{model}, {cores} {'core' if cores == 1 else 'cores'}",
        vendor="cpu",
        arch=platform.machine(),
        units=cores,
        simd_bits=_simd_bits(flags),
        features=features,
        caches=_caches(allowed),
        memory_bytes=memory_bytes(),
        present=True,
    )


def measure(spec: TargetSpec, cache: Path, refresh: bool = False, progress: Progress | None = None) -> TargetSpec:
    """The target with measured ceilings; see `ceilings.cpu.measure`."""
    return ceilings.measure(spec, cache, refresh, progress)


def cores_available() -> int:
    """Hardware threads that this process can keep busy: its affinity mask, cut by the CPU quotas of its control groups."""
    cores = len(os.sched_getaffinity(0))
    quota = _cgroup_quota()
    return cores if quota is None else max(1, min(cores, int(quota + 0.5)))


def memory_bytes() -> int:
    """Main memory that this process can use: the machine's, cut by its control groups' limits."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [int(text) for text in _cgroup_values("memory.max", "memory/memory.limit_in_bytes") if text.isdigit()]
    return min([total, *limits])


def _cpuinfo() -> dict[str, str]:
    try:
        text = (PROC / "cpuinfo").read_text()
    except OSError:
        return {}
    block = text.split("\n\n", 1)[0]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())}


def _simd_bits(flags: set[str]) -> int:
    if "avx512f" in flags:
        return 512
    if "avx2" in flags or "avx" in flags:
        return 256
    if "sse2" in flags or "asimd" in flags:
        return 128
    return 0


def _caches(allowed: list[int]) -> tuple[CacheLevel, ...]:
    """Data and unified caches of the first core that this process may use; `shared_by` counts only threads it may use."""
    found = {}
    for folder in sorted((SYS / f"devices/system/cpu/cpu{allowed[0]}/cache").glob("index*")):
        try:
            if (folder / "type").read_text().strip() == "Instruction":
                continue
            level = int((folder / "level").read_text())
            size = _size((folder / "size").read_text())
            sharers = _cpu_list((folder / "shared_cpu_list").read_text())
        except (OSError, ValueError):
            continue
        found[level] = CacheLevel(level=level, bytes=size, shared_by=max(1, len(sharers & set(allowed))))
    if not found:
        found = _caches_from_sysconf()
    return tuple(found[level] for level in sorted(found))


def _caches_from_sysconf() -> dict[int, CacheLevel]:
    # Containers may hide sysfs; the C library then still knows the sizes from the processor itself.
    found = {}
    for level, name in ((1, "SC_LEVEL1_DCACHE_SIZE"), (2, "SC_LEVEL2_CACHE_SIZE"), (3, "SC_LEVEL3_CACHE_SIZE")):
        try:
            size = os.sysconf(name)
        except (ValueError, OSError):
            continue
        if size > 0:
            found[level] = CacheLevel(level=level, bytes=size)
    return found


def _size(text: str) -> int:
    text = text.strip()
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def _cpu_list(text: str) -> set[int]:
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _cgroup_quota() -> float | None:
    """The smallest CPU quota, in cores, of the control groups that hold this process; None without one."""
    quotas = []
    for text in _cgroup_values("cpu.max", ""):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    try:
        quota, period = (int((SYS / f"fs/cgroup/cpu/cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        if quota > 0:
            quotas.append(quota / period)
    except (OSError, ValueError):
        pass
    return min(quotas, default=None)


def _cgroup_values(v2_name: str, v1_path: str) -> list[str]:
    """The contents of a control file in every version-2 group from this process's own up to the root, and of one version-1 file."""
    root = SYS / "fs/cgroup"
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    folders = [root / own, *(root / own).parents] if own and ".." not in own else [root]
    files = [folder / v2_name for folder in folders if folder == root or root in folder.parents]
    if v1_path:
        files.append(root / v1_path)
    values = []
    for file in files:
        try:
            values.append(file.read_text().strip())
        except OSError:
            continue
    return values
