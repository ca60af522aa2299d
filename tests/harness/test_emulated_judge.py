"""A GPU that is not here: Triton candidates are judged for correctness by its interpreter, and nothing is timed."""

import pytest

from kernelevolve_lab.harness.judge import COMPILED, EAGER, Judge
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.records import Candidate, Evidence, Verdict
from kernelevolve_lab.targets import profile, resolve

pytest.importorskip("triton")
pytestmark = pytest.mark.slow

SOURCE = """
import torch
import triton
import triton.language as tl


@triton.jit
def softly(x, bias, y, columns, WIDE: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, WIDE)
    there = at < columns
    value = tl.load(x + row * columns + at, mask=there).to(tl.float32) + tl.load(bias + at, mask=there).to(tl.float32)
    found = {formula}
    tl.store(y + row * columns + at, found.to(y.dtype.element_ty), mask=there)


def kernel(x, bias):
    y = torch.empty_like(x)
    softly[(x.shape[0],)](x, bias, y, x.shape[1], WIDE=triton.next_power_of_2(x.shape[1]))
    return y
"""
GELU = "value * (1 - 1 / (tl.exp(1.5957691216057308 * (value + 0.044715 * value * value * value)) + 1))"


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    target = resolve("nvidia:h100")
    if target.present:
        pytest.skip("an H100 is here, so nothing is emulated")
    with Judge(ref_of("bias_gelu"), target, profile=profile(target), cache=tmp_path_factory.mktemp("cache")) as found:
        yield found


def test_a_right_kernel_is_correct_by_emulation_and_has_no_time(judge):
    found = judge.evaluate(Candidate(language="triton", source=SOURCE.replace("{formula}", GELU)))
    assert (found.verdict, found.evidence) == (Verdict.CORRECT, Evidence.EMULATED), found.reasons
    assert found.speedup is None and found.speedups == () and found.diagnosis is None
    assert len(found.cases) == 3
    assert all(not case.times and not case.speedups and case.roofline is None for case in found.cases)
    assert found.metrics["registers"] > 0, "static metrics come from the binary for the target"


def test_a_wrong_kernel_is_incorrect(judge):
    found = judge.evaluate(Candidate(language="triton", source=SOURCE.replace("{formula}", GELU.replace("0.0447", "0.0457"))))
    assert (found.verdict, found.evidence) == (Verdict.INCORRECT, Evidence.EMULATED)


def test_what_does_not_compile_says_where(judge):
    found = judge.evaluate(Candidate(language="triton", source=SOURCE.replace("{formula}", "tl.no_such_thing(value)")))
    assert (found.verdict, found.evidence) == (Verdict.BUILD_FAILED, Evidence.COMPILED)
    assert any(diagnostic.line for diagnostic in found.diagnostics)


def test_there_is_no_baseline(judge):
    assert judge.baselines(EAGER) == judge.baselines(COMPILED) == ()
    assert "not here" in judge.baseline_note
