"""The diagnosis by rules: the phase, what limits, and evidence that only the run can give."""

from run_states import TARGET, broken, candidate, correct, state_of

from kernelevolve_lab.knowledge.diagnosis import STALLED_AFTER, diagnose
from kernelevolve_lab.records import CaseResult, Ceiling, ErrorStats, Evaluation, Evidence, Verdict


def said(analysis) -> str:
    return "\n".join((*analysis.evidence, *analysis.advice, *analysis.avoid))


def test_draft_is_placed_on_the_roofline(operator):
    compute = Ceiling(kind="compute", name="float32", value=2e11, evidence=Evidence.MEASURED, source="a test")
    target = TARGET.model_copy(update={"ceilings": (*TARGET.ceilings, compute)})
    analysis = diagnose(operator, target, state_of())
    assert (analysis.phase, analysis.bottleneck) == ("draft", "memory")
    assert "at least 3.36 ms" in said(analysis), "67.1 MB at 20 GB/s"
    assert "odd" not in said(analysis)


def test_draft_without_ceilings_says_nothing(operator):
    analysis = diagnose(operator, TARGET.model_copy(update={"ceilings": ()}), state_of())
    assert (analysis.bottleneck, analysis.evidence) == ("", ())


def test_broken_build_is_repaired(operator):
    good, bad = candidate(1), candidate(2, (candidate(1).id,))
    analysis = diagnose(operator, TARGET, state_of(good, correct(good, 1.1, operator), bad, broken(bad)), (bad.id,))
    assert (analysis.phase, analysis.bottleneck) == ("repair", "build")
    assert f"parent {good.id} is correct" in said(analysis)


def test_wrong_result_is_told_apart_by_its_size(operator):
    bad = candidate(1)
    case = operator.visible("laptop")[0]

    def wrong(error: float) -> str:
        evaluation = Evaluation(
            candidate=bad.id,
            target="cpu",
            language="cpp",
            verdict=Verdict.INCORRECT,
            evidence=Evidence.MEASURED,
            reasons=("wrong",),
            cases=(CaseResult(case=case, verdict=Verdict.INCORRECT, error=ErrorStats(candidate=error, reference=0, gate=1e-5)),),
        )
        return said(diagnose(operator, TARGET, state_of(bad, evaluation), (bad.id,)))

    assert "rounding" in wrong(5e-5)
    assert "logic" in wrong(1.0)


def test_improvement_tells_what_the_run_knows(operator):
    first, second = candidate(1), candidate(2, (candidate(1).id,))
    state = state_of(first, correct(first, 1.0, operator), second, correct(second, 1.5, operator))
    analysis = diagnose(operator, TARGET, state, (second.id,))
    assert (analysis.phase, analysis.bottleneck) == ("improve", "memory")
    assert "last change helped: from 1.000× to 1.500×" in said(analysis)
    assert "its bytes are in main memory; moved once, at 38.1 GB/s, they take 42% of its 0.667 ms" in said(analysis)
    back = diagnose(operator, TARGET, state, (first.id,))
    assert f"best kernel of the run is {second.id}" in said(back)


def test_parent_without_better_children_is_stalled(operator):
    mother = candidate(1)
    events = [mother, correct(mother, 1.5, operator)]
    for number in range(2, 2 + STALLED_AFTER):
        child = candidate(number, (mother.id,))
        events += [child, correct(child, 1.4, operator)]
    assert diagnose(operator, TARGET, state_of(*events[:-2]), (mother.id,)).phase == "improve"
    assert diagnose(operator, TARGET, state_of(*events), (mother.id,)).phase == "stalled"


def test_query_follows_from_the_analysis(operator):
    good = candidate(1)
    query = diagnose(operator, TARGET, state_of(good, correct(good, 1.0, operator)), (good.id,)).query(operator, TARGET, "cpp")
    assert (query.platform, query.language, query.bottleneck, query.phase, query.family) == ("cpu", "cpp", "memory", "improve", "row")
    assert "memory" in query.words
