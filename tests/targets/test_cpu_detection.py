import os
from pathlib import Path

import pytest

from kernelevolve_lab.targets import cpu

CPUINFO = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu sse2 avx avx2 fma avx512f avx512vbmi amx_tile

processor\t: 1
model name\t: Intel(R) Xeon(R) Platinum 8480+
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with four cores described by files."""
    write(tmp_path, {"proc/cpuinfo": CPUINFO, "proc/self/cgroup": "0::/user/job"})
    caches = {
        0: ("1", "Data", "48K", "2"),
        1: ("1", "Instruction", "32K", "2"),
        2: ("2", "Unified", "2048K", "2"),
        3: ("3", "Unified", "105M", "0-55"),
    }
    for index, (level, kind, size, sharers) in caches.items():
        for core in range(4):
            folder = f"sys/devices/system/cpu/cpu{core}/cache/index{index}"
            write(
                tmp_path, {f"{folder}/{n}": v for n, v in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", sharers))}
            )
    monkeypatch.setattr(cpu, "SYS", tmp_path / "sys")
    monkeypatch.setattr(cpu, "PROC", tmp_path / "proc")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    return tmp_path


def test_the_real_machine_is_present_and_plausible() -> None:
    spec = cpu.spec()
    assert spec.present and spec.name == "cpu" and spec.vendor == "cpu" and spec.ceilings == ()
    assert 1 <= spec.units <= (os.cpu_count() or 1)
    assert spec.simd_bits in {0, 128, 256, 512} and spec.memory_bytes > 1 << 28
    assert [level.level for level in spec.caches] == sorted(level.level for level in spec.caches)


def test_model_features_and_caches_are_read(machine: Path) -> None:
    spec = cpu.spec()
    assert spec.title == "Intel Xeon Platinum 8480+, 4 cores"
    assert spec.simd_bits == 512 and {"avx512vbmi", "amx_tile", "fma"} <= set(spec.features) and "fpu" not in spec.features
    assert [(c.level, c.bytes, c.shared_by) for c in spec.caches] == [(1, 48 << 10, 1), (2, 2 << 20, 1), (3, 105 << 20, 4)]


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("20000 100000", 1), ("900000 100000", 4)]
)
def test_a_cpu_quota_of_any_group_above_counts(quota: str, cores: int, machine: Path) -> None:
    write(machine, {"sys/fs/cgroup/user/job/cpu.max": "max 100000", "sys/fs/cgroup/user/cpu.max": quota})
    assert cpu.cores_available() == cores


def test_a_version_1_quota_counts(machine: Path) -> None:
    write(machine, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"})
    assert cpu.cores_available() == 3


def test_affinity_counts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3})
    assert cpu.cores_available() == 2
    assert cpu.spec().caches[-1].shared_by == 2


def test_a_memory_limit_counts(machine: Path) -> None:
    write(machine, {"sys/fs/cgroup/user/job/memory.max": "max", "sys/fs/cgroup/user/memory.max": str(1 << 28)})
    assert cpu.memory_bytes() == 1 << 28


def test_a_machine_that_hides_its_files_is_still_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "SYS", tmp_path / "nothing")
    monkeypatch.setattr(cpu, "PROC", tmp_path / "nothing")
    spec = cpu.spec()
    assert spec.units >= 1 and spec.simd_bits == 0 and spec.features == () and spec.title
