"""The diagnosis, and the examples of its rules."""

from __future__ import annotations

import pytest

from kernelevolve_lab.harness import diagnosis
from kernelevolve_lab.records import Case, CaseResult, Ratio, RooflinePoint, Timing, Verdict


@pytest.mark.parametrize("rule", diagnosis.rules(), ids=lambda rule: rule.name)
def test_every_rule_fires_and_keeps_silent_as_its_examples_say(rule):
    assert rule.holds(rule.fires) and not rule.holds(rule.silent)
    assert not rule.holds({})


def _result(fraction: float, bound_by: str, seconds: float = 1e-3, ratio: float = 2.0, name: str = "a") -> CaseResult:
    point = RooflinePoint(intensity=0.3, flops_per_second=3e9, bytes_per_second=1e10, fraction=fraction, bound_by=bound_by)
    timing = Timing(median=seconds, low=seconds * 0.99, high=seconds * 1.01, samples=9)
    speedup = Ratio(value=ratio, low=ratio, high=ratio, baseline="eager")
    case = Case(name=name, sizes={})
    return CaseResult(case=case, verdict=Verdict.CORRECT, times={"candidate": timing}, speedups=(speedup,), roofline=point)


@pytest.mark.parametrize(
    ("result", "bound", "words"),
    [
        (_result(0.71, "dram"), "memory", "memory-bound at 71% of DRAM bandwidth"),
        (_result(0.6, "float32"), "compute", "compute-bound at 60% of float32 peak"),
        (_result(0.1, "dram"), "unknown", "far below its roof"),
        (_result(0.1, "l2", seconds=1e-5), "latency", "latency-bound"),
    ],
)
def test_the_bound_follows_from_the_roofline(result, bound, words):
    found = diagnosis.diagnose([result], 2, {"a": 0.9}, "eager", {})
    assert found is not None and found.bound == bound and words in found.summary


def test_idle_threads_and_uneven_cases_are_noticed():
    results = [_result(0.4, "dram", ratio=3.0), _result(0.9, "dram", ratio=1.1, name="b")]
    found = diagnosis.diagnose(results, 2, {"a": 0.5, "b": 1.0}, "eager", {})
    text = " ".join(finding.what for finding in found.findings)
    assert "keeps 50% of 2 threads busy" in text and "'b' has the least" in text


def test_without_ceilings_there_is_no_diagnosis():
    assert diagnosis.diagnose([_result(0.4, "dram").model_copy(update={"roofline": None})], 2, {}, "eager", {}) is None


def test_advice_follows_from_what_the_build_shows():
    """A loop that calls is told of its calls, a clean one is not; the particular comes before the general."""
    calls = {"hot_loop_call": 1, "calls_in_loops": "expf 1", "hot_loop_vector_bits": 0, "hot_loop_scalar_fp": 3}
    found = diagnosis.diagnose([_result(0.2, "l3")], 2, {"a": 0.98}, "eager", calls)
    assert found.findings[0].rule == "calls in the hot loop" and "expf 1" in found.findings[0].what
    clean = {"hot_loop_call": 0, "calls_in_loops": "", "hot_loop_vector_bits": 512, "hot_loop_scalar_fp": 0, "hot_loop_spill_loads": 0}
    found = diagnosis.diagnose([_result(0.2, "l3")], 2, {"a": 0.98}, "eager", clean)
    assert [finding.rule for finding in found.findings] == ["its bytes take little of its time"]
    assert "bandwidth of L3, take 0.2 ms of its 1 ms" in found.findings[0].what
