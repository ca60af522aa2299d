"""After a hundred evaluations of every kind nothing is left behind."""

from __future__ import annotations

import gc
import os
from collections import Counter
from pathlib import Path

from small_operator import FAST, GOOD, SMALL

from kernelevolve_lab.harness.judge import Judge
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.records import Candidate
from kernelevolve_lab.targets import resolve

SETTINGS = FAST.__class__(
    **{**FAST.__dict__, "call_seconds": 0.8, "case_seconds": 0.03, "min_rounds": 5, "max_rounds": 5, "heap_bytes": 1 << 30}
)
MIX = {
    "correct": GOOD,
    "incorrect": GOOD.replace("2.0f", "2.1f"),
    "build_failed": GOOD.replace("sum[i]", "sun[i]"),
    "crashed": GOOD.replace("const long n", "__builtin_trap();\n const long n"),
    "timed_out": GOOD.replace("const long n", "for (volatile int i = 0;; i = 1 - i) {}\n const long n"),
}
LEAK = """
#include <cstdlib>
#include <fcntl.h>
#include <thread>
#include <unistd.h>
static int leak() {
    for (int i = 0; i < 8; ++i) {
        open("/", O_RDONLY);
        if (fork() == 0) for (;;) pause();
        std::thread([] { for (;;) pause(); }).detach();
    }
    return std::malloc(200 << 20) != nullptr;
}
"""
LEAKY = LEAK + GOOD.replace("const long n", "static int leaked = leak();\n const long n = leaked * 0 +")
LEAKY = LEAKY.replace("leaked * 0 + =", "leaked * 0 +")


def _children() -> set[int]:
    """All processes below this one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def _descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[os.readlink(f"/proc/self/fd/{fd}").split(":")[0]] += 1
        except OSError:
            continue
    return found


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_hundred_evaluations_leave_nothing_behind(tmp_path):
    processes = _children()
    before = _descriptors()
    with Judge(ref_of(SMALL), resolve("cpu"), cache=tmp_path, settings=SETTINGS) as judge:
        builds = {name: judge.build(Candidate(language="cpp", source=source)) for name, source in (MIX | {"leaky": LEAKY}).items()}

        def judged(name: str) -> str:
            source = (MIX | {"leaky": LEAKY})[name]
            return judge.evaluate(Candidate(language="cpp", source=source), builds[name]).verdict.value

        for name in MIX:
            assert judged(name) == name
        assert judged("leaky") == "correct"
        open_processes, open_descriptors, resident = len(_children()), _descriptors(), _resident_mb()
        for _ in range(16):
            for name in MIX:
                if name != "timed_out":
                    assert judged(name) == name
            assert judged("leaky") == "correct"
        for _ in range(8):
            assert judged("timed_out") == "timed_out"
        gc.collect()
        assert len(_children()) == open_processes
        assert not _descriptors() - open_descriptors
        assert _resident_mb() < resident + 30
    gc.collect()
    assert _children() == processes
    assert not _descriptors() - before
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(("build-", "ready-", "tmp"))]
