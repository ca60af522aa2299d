"""Nothing of a held-out case gets past."""

from run_states import candidate, correct

from kernelevolve_lab.knowledge.visible import HELD_OUT_FAILED, HELD_OUT_SLOW, visible
from kernelevolve_lab.records import CaseResult, Diagnosis, Diagnostic, Evaluation, Evidence, Finding, Flag, Verdict


def failing(operator, held_out: bool, **more) -> Evaluation:
    cases = [case for case in operator.cases["laptop"] if case.held_out is held_out]
    results = tuple(CaseResult(case=case, verdict=Verdict.INCORRECT, reason="error 3e-2 at row 1530") for case in cases)
    return Evaluation(
        candidate="x",
        target="cpu",
        language="cpp",
        verdict=Verdict.INCORRECT,
        evidence=Evidence.MEASURED,
        cases=results,
        **({"reasons": (f"case {cases[0].name}: error 3e-2 at row 1530",)} | more),
    )


def test_visible_failures_stay(operator):
    evaluation = failing(operator, held_out=False)
    assert visible(evaluation, operator).reasons == evaluation.reasons
    assert visible(evaluation, operator).cases == evaluation.cases


def test_held_out_failures_are_told_in_general(operator):
    secret = next(case for case in operator.cases["laptop"] if case.held_out)
    evaluation = failing(
        operator,
        held_out=True,
        diagnostics=(Diagnostic(severity="error", message=f"out of bounds in case {secret.name}"),),
        diagnosis=Diagnosis(bound="memory", summary="fine", findings=(Finding(what="a held-out case lags"), Finding(what="kept"))),
    )
    shown = visible(evaluation, operator)
    assert shown.reasons == (HELD_OUT_FAILED,)
    text = shown.model_dump_json()
    assert "1530" not in text and str(secret.sizes["rows"]) not in text and "error 3e-2" not in text
    assert [finding.what for finding in shown.diagnosis.findings] == ["kept"]
    assert shown.diagnostics == ()


def test_what_the_judge_wrote_about_a_held_out_case_is_secret_wherever_it_stands(operator):
    evaluation = failing(operator, held_out=True, reasons=("first failure: error 3e-2 at row 1530", "another reason"))
    assert visible(evaluation, operator).reasons == ("another reason", HELD_OUT_FAILED)


def test_specialised_kernels_are_told_in_general(operator):
    plain = correct(candidate(1), 1.5, operator)
    said = "at a shape that it was not told, it is incorrect: 9183 of 6280162 elements"
    wrong = tuple(
        result.model_copy(update={"verdict": Verdict.INCORRECT, "reason": "9183 of 6280162 elements"}) if result.case.held_out else result
        for result in plain.cases
    )
    flagged = {"flags": (Flag.SPECIALISED,), "reasons": (said,)}
    assert visible(plain.model_copy(update=flagged | {"cases": wrong}), operator).reasons == (HELD_OUT_FAILED,)
    slow = "slower than eager at a shape that it was not told (0.8x), though faster at those it was"
    assert visible(plain.model_copy(update=flagged | {"reasons": (slow,)}), operator).reasons == (HELD_OUT_SLOW,)


def test_correct_evaluations_lose_only_held_out_cases(operator):
    evaluation = correct(candidate(1), 1.5, operator)
    shown = visible(evaluation, operator)
    assert shown.reasons == () and shown.speedup == evaluation.speedup
    assert [result.case.held_out for result in shown.cases] == [False] * len(shown.cases)
    assert len(shown.cases) < len(evaluation.cases)
