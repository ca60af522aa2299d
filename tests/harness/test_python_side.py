"""What the judge sees of a Python module beside its outputs: what PyTorch does for it, whose code it runs, what it builds and starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_operator import FAST, SMALL

from kernelevolve_lab.harness import operator_counter, peeking, sampling, scratch
from kernelevolve_lab.harness.forking import Zygote
from kernelevolve_lab.harness.judge import Judge
from kernelevolve_lab.harness.kept import Kept
from kernelevolve_lab.harness.policy import Policy, Traced
from kernelevolve_lab.harness.python_worker import PythonWorker
from kernelevolve_lab.harness.sampling import Library, Samples
from kernelevolve_lab.harness.watch import OperatorWatch
from kernelevolve_lab.harness.workers import CandidateCheats
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.records import Candidate, Evaluation, Verdict
from kernelevolve_lab.targets import resolve

OWN = """
import ctypes, subprocess, torch
from pathlib import Path
Path("count").open("a").write("x")
if not Path("k.so").exists():
    Path("k.c").write_text('''
    #include <math.h>
    void run(const float* x, const float* y, float* z, long long* g, long n) {
      for (long i = 0; i < n; ++i) { z[i] = sqrtf(fabsf(x[i])) + 2 * y[i]; g[i] = x[i] > y[i]; }
    }''')
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", "k.so", "k.c", "-lm"], check=True)
    Path("compiled").open("a").write("x")
run = ctypes.CDLL("./k.so").run
run.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_long]
def own(x, y):
    z, g = torch.empty_like(x), torch.empty(x.shape, dtype=torch.int64)
    run(x.data_ptr(), y.data_ptr(), z.data_ptr(), g.data_ptr(), x.numel())
    return z, g
def theirs(x, y):
    return x.abs().sqrt() + 2 * y, (x > y).long()
def kernel(x, y):
    BODY
"""


@pytest.fixture(scope="module")
def strict(cache: Path) -> Iterator[Judge]:
    with Judge(ref_of(SMALL), resolve("cpu"), cache=cache, settings=replace(FAST, torch_mode="forbid"), seed=0) as judge:
        yield judge


def judged(judge: Judge, body: str) -> Evaluation:
    return judge.evaluate(Candidate(language="python", source=OWN.replace("BODY", body)))


def test_own_code_passes_and_says_that_operators_were_counted(strict: Judge):
    found = judged(strict, "return own(x, y)")
    assert found.verdict is Verdict.CORRECT, found.reasons
    assert found.metrics["operators_counted"] is peeking.permitted()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param("return own(x, y) if torch._C._len_torch_dispatch_stack() else theirs(x, y)", "not traced", id="own code when traced"),
        pytest.param(
            "from concurrent.futures import ThreadPoolExecutor as Pool\n    return Pool(1).submit(theirs, x, y).result()",
            "PyTorch computes",
            id="another thread",
        ),
        pytest.param(
            "from torch.utils._python_dispatch import _disable_current_modes as off\n    with off():\n        return theirs(x, y)",
            "PyTorch computes",
            id="modes switched off",
        ),
    ],
)
def test_pytorch_is_counted_where_no_trace_sees_it(strict: Judge, body: str, reason: str):
    found = judged(strict, body)
    assert found.verdict is Verdict.CHEATING and reason in found.reasons[0], found.reasons


def test_a_candidate_is_compiled_once_for_all_of_its_processes(cache: Path):
    zygote = Zygote("cpu", threads=1, confined=True)
    given = {"threads": 1, "heap_bytes": 1 << 30, "load_seconds": 60.0}
    kept = Kept()
    try:
        first = PythonWorker(zygote, OWN.replace("BODY", "pass").encode(), kept=kept, **given)
        kept.seal()
        first.close()
        assert kept.size > 0
        check = OWN.replace("BODY", "pass") + "assert open('compiled').read() == 'x' and open('count').read() == 'xx'\n"
        for _ in range(2):  # each from the same copy, so that none can tell which one it is
            PythonWorker(zygote, check.encode(), kept=kept, **given).close()
        with pytest.raises(OSError):
            os.write(kept.descriptors()["kept"], b"x")
    finally:
        kept.close()
        zygote.close()


def test_what_is_kept_is_regular_files_below_the_folder_alone(tmp_path: Path):
    there, back = tmp_path / "there", tmp_path / "back"
    (there / "deep").mkdir(parents=True), back.mkdir()
    (there / "deep/file").write_bytes(b"content")
    os.utime(there / "deep/file", (1e9, 1e9))
    (there / "link").symlink_to("/etc/passwd")
    (there / "candidate.py").write_text("pass")
    os.mkfifo(there / "pipe")
    archive = os.memfd_create("kept")
    scratch.keep(str(there), os.dup(archive))
    os.lseek(archive, 0, os.SEEK_SET)
    scratch.put_back(archive, str(back))
    assert [str(path.relative_to(back)) for path in back.rglob("*") if path.is_file()] == ["deep/file"]
    assert (back / "deep/file").read_bytes() == b"content" and (back / "deep/file").stat().st_mtime == 1e9


def test_too_much_is_not_kept(tmp_path: Path):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(scratch.KEPT_BYTES + 1)
    archive = os.memfd_create("kept")
    scratch.keep(str(tmp_path), os.dup(archive))
    assert os.fstat(archive).st_size == 0
    os.close(archive)


POLICY = Policy("forbid", frozenset({"empty", "copy_"}), frozenset({"aten"}))


def test_what_is_computed_in_three_visits_and_not_under_the_trace_is_cheating():
    watch = OperatorWatch(POLICY, frozenset({"aten::linear"}))
    watch.traced("a", Traced({}, False, {"aten::empty": 2}))
    for _ in range(5):
        watch.visited("a", {"aten::empty": 40, "aten::linear": 3}, 4)
        watch.visited("a", None, 4)
    for _ in range(2):
        watch.visited("a", {"aten::mm": 1}, 4)
    with pytest.raises(CandidateCheats, match="aten::mm"):
        watch.visited("a", {"aten::mm": 1}, 4)


def test_where_pytorch_may_do_a_part_the_trace_says_which():
    watch = OperatorWatch(replace(POLICY, mode="replace"), frozenset())
    for _ in range(5):
        watch.visited("a", {"aten::mm": 9}, 1)
    watch.traced("a", Traced({"aten::mm": 1}, True, {"aten::mm": 2}))
    for _ in range(5):
        watch.visited("a", {"aten::mm": 8}, 4)
    for _ in range(2):
        watch.visited("a", {"aten::mm": 9}, 4)
    with pytest.raises(CandidateCheats, match="aten::mm"):
        watch.visited("a", {"aten::mm": 9}, 4)


@pytest.mark.parametrize(
    ("mode", "own", "foreign", "operators", "offends"),
    [
        ("forbid", 0, 20, {}, True),
        ("forbid", 90, 10, {}, False),
        ("forbid", 0, 5, {}, False),
        ("replace", 10, 20, {}, False),
        ("replace", 1, 20, {}, True),
        ("replace", 0, 20, {"aten::mm": 1}, False),
        ("allow", 0, 20, {}, False),
    ],
)
def test_libraries_are_held_against_a_candidate_by_share(mode: str, own: int, foreign: int, operators: dict, offends: bool):
    from collections import Counter

    said = replace(POLICY, mode=mode).offence_in(Samples(own, Counter({"mkl_gemm": foreign})), operators)
    assert bool(said) is offends


def test_a_trace_that_counts_nothing_offends_nobody():
    assert POLICY.offence(Traced({"aten::empty": 1}, False), {}) == ""


def test_a_process_is_found_in_the_function_that_it_runs():
    if not peeking.permitted():
        pytest.skip("this machine lets nobody look into processes")
    busy = subprocess.Popen([sys.executable, "-c", "print(1, flush=True)\nwhile True: pow(7, 10**5)"], stdout=subprocess.PIPE)
    try:
        assert busy.stdout is not None and busy.stdout.readline()
        library = Library(re.compile("python"), re.compile(""), re.compile("^$"))
        found, until = 0, time.monotonic() + 60
        while not found and time.monotonic() < until:
            os.kill(busy.pid, 19)
            found = weighed(busy.pid, library)
            os.kill(busy.pid, 18)
        assert found
    finally:
        busy.kill()
        busy.wait()
        busy.stdout.close()


def weighed(pid: int, library: Library) -> int:
    return sampling.weigh(pid, sampling.program_counters(pid), [library]).foreign.total()


def test_operators_are_counted_and_read_from_outside(cache: Path):
    library = operator_counter.library(cache)
    if library is None or not peeking.permitted():
        pytest.skip("nothing counts here")
    code = (
        "import sys, torch; from kernelevolve_lab.harness import operator_counter as c; print(c.install(sys.argv[1]), flush=True);"
        "[torch.ones(3).exp() for _ in range(5)]; print('done', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(library)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = int(process.stdout.readline())
        assert process.stdout.readline() == "done\n"
        counted = operator_counter.read(process.pid, address)
        assert counted is not None and counted["aten::exp"] == 5 and counted["aten::ones"] == 5
