"""What the judge says about kernels, each in a real sandbox."""

from __future__ import annotations

import threading

import pytest
from small_operator import FAST, GOOD, GOOD_BODY, HEAD, KERNEL, SMALL

from kernelevolve_lab.errors import BadInput, LabError, MissingTool
from kernelevolve_lab.harness import sandbox
from kernelevolve_lab.harness.judge import EvaluationCancelled, Judge
from kernelevolve_lab.harness.reference import ReferenceFailed
from kernelevolve_lab.harness.timing import Limits
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.records import Candidate, Flag, Verdict
from kernelevolve_lab.targets import resolve


def test_a_right_kernel_is_correct_and_timed(evaluate):
    found = evaluate(GOOD)
    assert found.verdict is Verdict.CORRECT, found.reasons
    assert found.speedup is not None and found.speedup.low <= found.speedup.value <= found.speedup.high
    assert [result.case.held_out for result in found.cases] == [False, False, True]
    for result in found.cases:
        assert result.times["candidate"].median > 0 and result.times["eager"].samples >= 5
        assert result.error is not None and result.error.candidate <= result.error.gate
        assert [spec.dtype for spec in result.inputs] == ["float32", "float32"]
    assert set(found.stage_seconds) == {"build", "correctness", "timing", "overhead"}
    assert found.environment["sandbox"] == "bubblewrap" and found.environment["threads"] >= 1


WRONG = {
    "wrong values": ("2.0f * y[i]", "2.001f * y[i]", "passes the gate"),
    "wrong integers": ("x[i] > y[i]", "x[i] >= 0 && x[i] > y[i]", "must be exact"),
    "not all written": ("i < n", "i < n - 3", "never written"),
    "nan": ("std::fabs(x[i])", "x[i]", "is nan"),
    "adds to the output": ("sum[i] = std", "sum[i] += std", "computed from what was in them"),
    "first row only for another distribution": ("const long n = in[0].numel();", "const long n = x[0] > 9 ? 0 : 512;", "never written"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_results_are_incorrect_and_explained(evaluate, name):
    old, new, reason = WRONG[name]
    found = evaluate(GOOD.replace(old, new))
    assert found.verdict is Verdict.INCORRECT
    assert reason in found.reasons[0]
    assert found.speedup is None and found.fitness == 0.0


ENDS = {
    "a null pointer": ("*(volatile int*)0 = 1;", Verdict.CRASHED, "null pointer"),
    "out of bounds": ("*(volatile float*)(sum + (1l << 40)) = 1;", Verdict.CRASHED, "SIGSEGV"),
    "writes an input": ("const_cast<float*>(x)[5] = 1;", Verdict.CRASHED, "inputs are read-only"),
    "divides by zero": ("volatile int zero = 0, seven = 7; zero = seven / zero;", Verdict.CRASHED, "SIGFPE"),
    "aborts": ("std::abort();", Verdict.CRASHED, "SIGABRT"),
    "exits": ("std::exit(0);", Verdict.CRASHED, "status 0"),
    "throws": ("throw 1;", Verdict.CRASHED, "SIGABRT"),
    "allocates too much": ("volatile char* p = (char*)std::malloc(6ull << 30); p[0] = 1;", Verdict.CRASHED, "null pointer"),
    "never returns": ("for (volatile int i = 0;; i = 1 - i) {}", Verdict.TIMED_OUT, "did not return"),
    "fills the log": ('for (;;) std::puts("' + "x" * 200 + '");', Verdict.CRASHED, "SIGXFSZ"),
}


@pytest.mark.parametrize("name", ENDS)
def test_kernels_that_end_badly(evaluate, name):
    body, verdict, reason = ENDS[name]
    found = evaluate(HEAD + "#include <cstdlib>\n#include <cstdio>\n#include <cstring>\n" + KERNEL + GOOD_BODY + body + "}\n")
    assert found.verdict is verdict
    assert reason in found.reasons[0], found.reasons


def test_a_source_that_does_not_compile(evaluate):
    found = evaluate(GOOD.replace("greater[i]", "lesser[i]"))
    assert found.verdict is Verdict.BUILD_FAILED
    assert "lesser" in found.reasons[0] and any(d.line > 0 for d in found.diagnostics)


def test_a_source_that_is_too_long_is_not_even_read(evaluate):
    found = evaluate(GOOD + "// " + "x" * (1 << 20))
    assert found.verdict is Verdict.BUILD_FAILED
    assert "at most 1,048,576 are taken" in found.reasons[0]


def test_wrong_at_a_held_out_shape_is_specialised(evaluate):
    found = evaluate(GOOD.replace("const long n = in[0].numel();", "const long n = in[0].size(0) == 123 ? 7 : in[0].numel();"))
    assert found.verdict is Verdict.CORRECT
    assert found.flags[:1] == (Flag.SPECIALISED,)
    assert "not told" in found.reasons[0]
    assert found.cases[2].verdict is Verdict.INCORRECT


def test_crashing_at_a_held_out_shape_is_specialised(evaluate):
    found = evaluate(GOOD.replace("const long n", "if (in[0].size(0) == 123) __builtin_trap();\n const long n"))
    assert found.verdict is Verdict.CORRECT and Flag.SPECIALISED in found.flags
    assert found.cases[2].verdict is Verdict.CRASHED


def test_a_final_round_measures_longer(evaluate):
    ordinary, final = Limits.of(FAST, final=False), Limits.of(FAST, final=True)
    assert final.min_rounds > ordinary.min_rounds and final.seconds > ordinary.seconds and final.cold_rounds
    found = evaluate(GOOD, final=True)
    assert found.verdict is Verdict.CORRECT and found.final
    # Of the rounds only those count that other work on the machine left alone, so their number has no floor but the ordinary one.
    assert found.cases[0].times["candidate"].samples >= ordinary.min_rounds
    cold = found.cases[0].times["candidate, cold"]
    assert (cold.cache, cold.samples) == ("cold", FAST.cold_rounds) and cold.median > found.cases[0].times["candidate"].median


def test_cancelled_evaluations_raise(evaluate):
    with pytest.raises(EvaluationCancelled):
        evaluate(GOOD, cancelled=lambda: True)


def test_the_reference_worker_is_restarted_when_it_dies(judge, evaluate):
    judge._works.reference._process.kill()
    with pytest.raises(ReferenceFailed):
        for _ in range(1000):  # the namespace goes down a moment after its keeper
            judge._works.reference.time("eager", [])
    assert evaluate(GOOD).verdict is Verdict.CORRECT


def test_builds_of_many_threads_and_evaluations_do_not_disturb_each_other(judge):
    sources = [f"// {i}\n" + (GOOD if i % 2 else GOOD.replace("2.0f", "2.1f")) for i in range(6)]
    verdicts = {}

    def judged(source: str) -> None:
        candidate = Candidate(language="cpp", source=source)
        verdicts[source] = judge.evaluate(candidate, judge.build(candidate)).verdict

    threads = [threading.Thread(target=judged, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [verdicts[source] for source in sources] == [Verdict.INCORRECT, Verdict.CORRECT] * 3


def test_closing_ends_an_evaluation_in_progress(cache):
    judge = Judge(ref_of(SMALL), resolve("cpu"), cache=cache, settings=FAST)
    judge.open()
    raised: list[BaseException] = []

    def judged() -> None:
        try:
            while True:
                judge.evaluate(Candidate(language="cpp", source=GOOD))
        except (EvaluationCancelled, LabError) as error:
            raised.append(error)

    thread = threading.Thread(target=judged)
    thread.start()
    judge.close()
    thread.join(20)
    assert not thread.is_alive() and raised


def test_without_a_sandbox_it_refuses_and_says_how(monkeypatch, cache):
    monkeypatch.setattr(sandbox, "_found", list)
    sandbox.bubblewrap.cache_clear()
    try:
        with pytest.raises(MissingTool, match="unsandboxed=True"):
            Judge(ref_of(SMALL), resolve("cpu"), cache=cache).open()
    finally:
        sandbox.bubblewrap.cache_clear()


def test_unsandboxed_works_and_says_so(cache):
    with Judge(ref_of(SMALL), resolve("cpu"), cache=cache, settings=FAST, unsandboxed=True) as judge:
        found = judge.evaluate(Candidate(language="cpp", source=GOOD))
    assert found.verdict is Verdict.CORRECT and found.environment["sandbox"] == "none"


def _altered(**changes) -> Operator:
    return Operator(**{**{name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}, **changes})


def test_a_reference_that_fails_is_bad_input(cache):
    broken = _altered(reference=lambda x, y: x @ y)
    with pytest.raises(BadInput, match="cannot be judged"):
        Judge(ref_of(broken), resolve("cpu"), cache=cache, settings=FAST).open()


def test_a_task_that_zeros_solve_is_flagged(cache):
    with Judge(ref_of(_altered(reference=lambda x, y: x * 0)), resolve("cpu"), cache=cache, settings=FAST) as judge:
        zeros = "#include <cstring>\n" + HEAD + KERNEL + "std::memset(out[0].data, 0, 4 * out[0].numel()); }"
        found = judge.evaluate(Candidate(language="cpp", source=zeros))
    assert Flag.DEGENERATE_TASK in found.flags and "zeros" in " ".join(found.reasons)


def test_torch_compile_is_the_main_baseline_where_it_works(cache):
    settings = FAST.__class__(**{**FAST.__dict__, "compiled": True})
    with Judge(ref_of(SMALL), resolve("cpu"), cache=cache, settings=settings) as judge:
        shown = judge.baselines("torch.compile")
        found = judge.evaluate(Candidate(language="cpp", source=GOOD))
    assert [baseline.case.name for baseline in shown] == ["256x512", "64x1024"]
    assert found.speedup is not None and found.speedup.baseline == "torch.compile"
    assert {ratio.baseline for ratio in found.speedups} == {"eager", "torch.compile"}
