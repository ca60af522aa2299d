"""What a prompt says of the judge, the run and the machine is true for this very request."""

import re
from dataclasses import replace
from importlib import resources

import pytest
import torch
from run_states import TARGET, broken, candidate, correct, request, state_of

from kernelevolve_lab import registry
from kernelevolve_lab.harness import timing, trial
from kernelevolve_lab.knowledge.diagnosis import diagnose
from kernelevolve_lab.proposers.chat.advice import Adviser
from kernelevolve_lab.proposers.chat.context import compose
from kernelevolve_lab.proposers.chat.proposer import language_notes
from kernelevolve_lab.proposers.chat.settings import read
from kernelevolve_lab.records import Ceiling, Evidence, Flag, Timing, Verdict
from kernelevolve_lab.records.events import BaselineCase, BaselinesMeasured

COMPUTE = Ceiling(kind="compute", name="float32", value=4.97e11, evidence=Evidence.MEASURED, source="a test")
MACHINE = TARGET.model_copy(update={"ceilings": (*TARGET.ceilings, COMPUTE)})


@pytest.fixture(scope="module")
def conv1d():
    return registry.load("operators", "conv1d")


def prompt(operator, state=None, parents=(), diagnosis="rules", **changes):
    """The prompt on a machine whose bandwidth and peak are known."""
    notes = language_notes("cpp", MACHINE)
    asked = request(operator, state or state_of(), parents=parents, target=MACHINE, **changes)
    settings = read({"model": "m", "base_url": "http://127.0.0.1:1/v1", "diagnosis": diagnosis})
    analysis = diagnose(operator, MACHINE, asked.state, parents) if diagnosis != "off" else None
    return compose(asked, notes, Adviser(settings, notes).advise(asked, analysis), 48_000)


def test_fewer_operations_are_no_offence(conv1d, operator):
    text = prompt(conv1d).text
    assert "least time 1.42 ms (this arithmetic at 497 GFLOP/s)" in text
    assert "an algorithm with fewer operations may go below them" in text and "its arithmetic as written at the 497 GFLOP/s" in text
    assert f"Beyond {trial.ABOVE_ROOF} times the roof" in text and "changes neither verdict nor rank" in text
    assert "may go below them" not in prompt(operator).text, "bytes that must be moved are a bound for every algorithm"


def test_a_mark_above_the_roof_moves_nobody(operator):
    """What the rules say of it: neither the verdict nor the rank changes."""
    plain, marked = candidate(1), candidate(2)
    above = correct(marked, 1.5, operator).model_copy(update={"flags": (Flag.SUSPICIOUS,), "reasons": ("above its roof",)})
    state = state_of(plain, correct(plain, 1.2, operator), marked, above)
    assert [entry.id for entry in state.ranked()] == [marked.id, plain.id] and state.best.id == marked.id and state.best.correct


def test_dtypes_are_told(conv1d):
    """Their names as the header has them, and whether cases that are not shown have others."""
    header = (resources.files("kernelevolve_lab.languages") / "kel.h").read_text("utf-8")
    names = re.findall(r"(\w+) = \d+", header.partition("enum class DType")[2].partition("}")[0])
    assert (
        "is a `kel::DType`, named as in PyTorch (`kel::DType::float32`, `int64`, `float8_e5m2`, …) but for `boolean`" in prompt(conv1d).user
    )
    assert [name for name in names if not hasattr(torch, name)] == ["boolean"] and {"float32", "int64", "float8_e5m2"} < set(names)
    emulated = {case.dtype for case in conv1d.held_out("emulated")} - {case.dtype for case in conv1d.visible("emulated")}
    assert "of no other dtypes; write" in prompt(conv1d).user and emulated
    state = state_of()
    narrow = replace(state, config=state.config.model_copy(update={"profile": "emulated"}))
    assert "of other dtypes, too; write" in prompt(conv1d, narrow).user


def test_it_is_told_where_timed_calls_find_their_data(conv1d):
    """As the head of the timing says of its cache policy."""
    assert "inputs were just read by another process" in " ".join(timing.__doc__.split())
    assert "Timed calls are warm: another process has just read the inputs." in prompt(conv1d).user


@pytest.mark.parametrize("diagnosis", ["rules", "off"])
def test_advice_fits_what_bounds_the_cases(conv1d, operator, diagnosis):
    for which, bytes_bind in ((conv1d, False), (operator, True)):
        texts = [prompt(which, diagnosis=diagnosis, index=index).user for index in range(5)]
        assert (
            any("incline to this one (other attempts incline otherwise): the least memory traffic" in text for text in texts) is bytes_bind
        )
        assert "Where bytes bind" in texts[0] and "Most operators" not in texts[0], "the guide does not guess"


def test_nothing_is_promised_that_does_not_come(operator):
    """No diagnosis where it is switched off; nothing of other candidates where none are told."""
    on, off, alone = prompt(operator), prompt(operator, diagnosis="off"), prompt(operator, memory="none")
    assert "comes back in later prompts, with a diagnosis" in on.system and "that fit the diagnosis." in on.user
    assert "comes back in later prompts." in off.system and "that fit the task." in off.user and "diagnosis" not in off.system
    assert "later prompts" not in alone.system
    lines = [made.system.splitlines()[1:3] for made in (on, off, alone)]
    assert all(first.endswith(".") and not second for first, second in lines), "one paragraph whatever is promised"


def test_later_drafts_are_told_what_came_of_earlier_ones(operator):
    good, bad, open_one, special = (candidate(number, title=f"draft {number}") for number in range(4))
    elsewhere = correct(special, 1.6, operator)
    cases = [case.model_copy(update={"verdict": Verdict.INCORRECT} if case.case.held_out else {}) for case in elsewhere.cases]
    elsewhere = elsewhere.model_copy(update={"cases": tuple(cases)})
    state = state_of(good, correct(good, 1.25, operator), bad, broken(bad), open_one, special, elsewhere)
    (line,) = [line for line in prompt(operator, state, pending=(open_one.id,)).user.splitlines() if line.startswith("Designs already")]
    for told in ('"draft 0" (correct 1.25×)', '"draft 1" (build failed)', '"draft 2" (not judged yet)', '"draft 3" (wrong on a case that'):
        assert told in line
    afresh = prompt(operator, state, memory="clean_slate").user
    assert '"draft 0"; ' in afresh and "1.25×" not in afresh


def timed(operator, **seconds: float) -> BaselinesMeasured:
    """Baselines of each visible case: `eager` and `compiled` in seconds."""
    names = {"eager": "eager", "compiled": "torch.compile"}
    timings = {names[key]: Timing(median=median, low=median, high=median, samples=9) for key, median in seconds.items()}
    cases = [(case, name) for case in operator.visible("laptop") for name in timings]
    return BaselinesMeasured(baselines=tuple(BaselineCase(case=case, name=name, timing=timings[name]) for case, name in cases))


def test_what_fitness_is_against_is_told_as_it_is(operator):
    def fitness(*events) -> str:
        return next(line for line in prompt(operator, state_of(*events)).user.splitlines() if line.startswith("Fitness is"))

    eager = timed(operator, eager=1e-3)
    assert "`torch.compile` (its times are being measured; over `eager`, if it cannot be had) on the cases" in fitness(eager)
    assert "over `torch.compile` on the cases" in fitness(eager, timed(operator, compiled=0.9e-3))
    slower = (eager, timed(operator, compiled=1.2e-3))
    assert "over `torch.compile`, also where `eager` is faster, on the cases" in fitness(*slower)
    assert "eager took 1 ms, torch.compile took 1.2 ms as the run began" in prompt(operator, state_of(*slower)).user
    one = candidate(1)
    found = correct(one, 1.2, operator)
    alone = found.model_copy(update={"speedup": found.speedup.model_copy(update={"baseline": "eager"})})
    assert "over `eager` on the cases" in fitness(eager, one, alone)


def test_it_is_told_how_many_candidates_are_left(operator):
    judged, waiting = candidate(1), candidate(2)
    state = state_of(judged, correct(judged, 1.1, operator), waiting, candidates=10)
    assert prompt(operator, state, (judged.id,)).user.endswith("Of the run's 10 candidates 8 are left, with this one.")
    last = state_of(judged, correct(judged, 1.1, operator), candidates=2)
    assert "2 candidates 1 is left" in prompt(operator, last).user
    assert "are left" not in prompt(operator, state, memory="none").user
    endless = replace(state, budget=state.budget.model_copy(update={"candidates": None}))
    assert "are left" not in prompt(operator, endless).user
