"""Candidates that are Python modules: what becomes of each, and that nothing is left behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_operator import FAST, SMALL

from kernelevolve_lab.harness.forking import Zygote
from kernelevolve_lab.harness.judge import Judge
from kernelevolve_lab.harness.python_worker import PythonWorker
from kernelevolve_lab.harness.workers import CandidateCrashed
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.records import Candidate, Evaluation, Verdict
from kernelevolve_lab.targets import resolve

TORCH = "import torch\ndef kernel(x, y):\n    return x.abs().sqrt() + 2 * y, (x > y).long()\n"


@pytest.fixture(scope="module")
def python_judge(cache: Path) -> Iterator[Judge]:
    with Judge(ref_of(SMALL), resolve("cpu"), cache=cache, settings=replace(FAST, torch_mode="allow"), seed=0) as judge:
        yield judge


def judged(judge: Judge, source: str) -> Evaluation:
    return judge.evaluate(Candidate(language="python", source=source))


def test_a_module_is_judged_on_all_cases(python_judge: Judge):
    found = judged(python_judge, TORCH)
    assert found.verdict is Verdict.CORRECT, found.reasons
    assert found.speedup is not None and found.speedup.baseline == "eager"
    assert all(result.times["candidate"].median > 0 and result.times["eager"].median > 0 for result in found.cases)


@pytest.mark.parametrize(
    ("body", "verdict", "reason"),
    [
        ("return x.abs().sqrt() + 2.01 * y, (x > y).long()", Verdict.INCORRECT, "passes the gate"),
        ("return x.abs().sqrt() + 2 * y", Verdict.INCORRECT, "it returned 1 outputs, not 2"),
        ("return x.abs().sqrt() + 2 * y, x > y", Verdict.INCORRECT, "output 1 is bool[256, 512], not int64[256, 512]"),
        ("return 7, (x > y).long()", Verdict.INCORRECT, "output 0 is a int, not a torch.Tensor"),
        ("return y, (x > y).long()", Verdict.INCORRECT, "output 0 is memory of an input"),
        ("return x.nothing", Verdict.CRASHED, "it raised AttributeError at line 3"),
        ("x.zero_()", Verdict.CRASHED, "inputs are read-only memory"),
    ],
)
def test_what_a_call_does_wrong_is_said_in_a_sentence(python_judge: Judge, body: str, verdict: Verdict, reason: str):
    found = judged(python_judge, f"import torch\ndef kernel(x, y):\n    {body}\n")
    assert found.verdict is verdict and reason in found.reasons[0], found.reasons


@pytest.mark.parametrize(
    ("source", "reason"),
    [("def kernel(x, y)\n", "SyntaxError"), ("x = 1\n", "neither a function kernel"), ("def kernel(x, y:\n    pass", "SyntaxError")],
)
def test_what_is_no_candidate_is_a_failed_build(python_judge: Judge, source: str, reason: str):
    found = judged(python_judge, source)
    assert found.verdict is Verdict.BUILD_FAILED and reason in found.reasons[0]


def test_a_module_that_cannot_be_imported_says_why(python_judge: Judge):
    found = judged(python_judge, "import no_such_library\ndef kernel(x, y):\n    pass\n")
    assert found.verdict is Verdict.CRASHED and "No module named 'no_such_library'" in found.reasons[0]


def test_a_class_without_a_module_as_reference_is_refused(python_judge: Judge):
    found = judged(python_judge, "import torch\nclass ModelNew(torch.nn.Module):\n    pass\n")
    assert found.verdict is Verdict.CRASHED and "define kernel(*inputs)" in found.reasons[0]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    host = Zygote("cpu", threads=1, confined=True)
    yield host
    host.close()


def load(zygote: Zygote, source: str) -> PythonWorker:
    return PythonWorker(zygote, source.encode(), threads=1, heap_bytes=1 << 30, load_seconds=20.0)


def test_candidates_of_one_zygote_share_neither_files_nor_processes(zygote: Zygote):
    first = load(zygote, "open('/tmp/left_behind', 'w').write('x')\ndef kernel(): pass\n")
    body = "import os\nassert not os.path.exists('/tmp/left_behind')\n"
    kept = {part for path in (*sys.path, sys.prefix) for part in Path(path).parts[2:3]}  # where this project lies under /tmp itself
    body += f"assert set(os.listdir('/tmp')) <= {kept | {'candidate.py', '__pycache__'}!r}, os.listdir('/tmp')\n"
    second = load(zygote, body + "def kernel(): pass\n")
    try:
        first.ping(), second.ping()
        ends = "import os, signal\ntry:\n    os.kill(-1, signal.SIGKILL)\nexcept ProcessLookupError:\n    pass\ndef kernel(): pass\n"
        load(zygote, ends).close()
        first.ping(), second.ping()
        assert zygote.alive
    finally:
        first.close()
        second.close()


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.create_connection(('1.1.1.1', 53), timeout=1)",
        "open('/etc/passwd')",
        "open('/proc/1/mem', 'rb').read(1)",
        "open(__import__('torch').__file__, 'a')",
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
        "import ctypes; assert ctypes.CDLL(None).mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None) == 0",
        "assert any('KEY' in name or 'TOKEN' in name for name in __import__('os').environ)",
        "open('big', 'wb').write(bytes(600 << 20))",
    ],
)
def test_a_candidate_reaches_nothing_outside(zygote: Zygote, attempt: str):
    with pytest.raises(CandidateCrashed, match="cannot be loaded"):
        load(zygote, f"{attempt}\ndef kernel(): pass\n").close()


def test_a_candidate_ends_with_all_that_it_started(zygote: Zygote):
    import os

    before = set(os.listdir("/proc"))
    worker = load(zygote, "import subprocess\nsubprocess.Popen(['sleep', '12345'])\ndef kernel(): pass\n")
    worker.close()
    for _ in range(200):
        sleeping = [p for p in set(os.listdir("/proc")) - before if p.isdigit() and b"12345" in _command(p)]
        if not sleeping:
            break
        __import__("time").sleep(0.01)
    assert not sleeping


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
