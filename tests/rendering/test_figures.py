"""What the figures show, as numbers."""

from dataclasses import replace

import pytest
import synthetic_stream as synthetic

from kernelevolve_lab.records import Evidence
from kernelevolve_lab.records.events import EvaluationFinished, SteeringAccepted
from kernelevolve_lab.records.run import Reject
from kernelevolve_lab.rendering import figures


@pytest.fixture(scope="module")
def state():
    return synthetic.folded(60).state


def test_the_ridge_is_where_the_main_roofs_meet(state):
    frame = figures.roofline_frame(state)
    memory, compute = (next(r for r in frame.roofs if r.primary and r.kind == kind) for kind in ("bandwidth", "compute"))
    assert (memory.name, compute.name) == ("dram", "float32")
    assert frame.ridge == pytest.approx(compute.value / memory.value)
    assert frame.ridge * memory.value == pytest.approx(compute.value)


def test_cases_and_baselines_of_the_frame(state):
    frame = figures.roofline_frame(state)
    assert [case.name for case in frame.cases] == ["256x512", "1024x1024", "4096x1024"], "held-out cases have no baselines to show"
    assert {(dot.who, dot.case) for dot in frame.baselines} == {(name, case) for name in ("eager", "torch.compile") for case in range(3)}
    assert frame.cases[frame.main].name == "4096x1024"


def test_a_frame_without_target_or_baselines_is_empty():
    frame = figures.roofline_frame(synthetic.folded(upto=1).state)
    assert (frame.cases, frame.roofs, frame.ridge) == ((), (), None)


def test_candidates_stand_where_the_judge_put_them(state):
    frame = figures.roofline_frame(state)
    dots = figures.candidate_dots(state.best, frame)
    for dot in dots:
        result = next(r for r in state.best.evaluation.cases if r.case.name == frame.cases[dot.case].name)
        assert (dot.flops, dot.seconds) == (result.roofline.flops_per_second, result.times["candidate"].median)
    failed = next(e for e in state.entries.values() if not e.correct)
    assert figures.candidate_dots(failed, frame) == ()


def test_the_best_so_far_never_falls_and_ends_at_the_best(state):
    info = figures.progress_info(state)
    bests = [p.best for p in info.points if p.best is not None]
    assert bests == sorted(bests)
    assert bests[-1] == state.best.fitness
    assert len(info.points) == state.judged
    assert info.baseline == "torch.compile"


def test_a_rejected_best_does_not_count():
    fold = synthetic.folded(40)
    best = fold.state.best
    fold.apply(
        synthetic.Logged(
            run=synthetic.RUN,
            seq=fold.state.seq + 1,
            time=synthetic.START + 999,
            event=SteeringAccepted(command=Reject(candidate=best.candidate.id, reason="it reads past the row")),
        )
    )
    assert figures.progress_info(fold.state).points[-1].best == fold.state.best.fitness < best.fitness


def test_what_was_modelled_is_not_mixed_with_what_was_measured():
    fold = synthetic.folded(20)
    entry = next(e for e in fold.state.entries.values() if e.correct)
    modelled = entry.evaluation.model_copy(
        update={"evidence": Evidence.MODELLED, "speedup": entry.evaluation.speedup.model_copy(update={"value": 99.0, "high": 120.0})}
    )
    event = EvaluationFinished(evaluation=modelled)
    fold.apply(synthetic.Logged(run=synthetic.RUN, seq=fold.state.seq + 1, time=synthetic.START + 999, event=event))
    info = figures.progress_info(fold.state)
    assert info.evidence == "measured"
    assert all(p.best != 99.0 for p in info.points)


def test_a_frame_asks_for_the_best_evidence_of_a_ceiling(state):
    published = state.target.ceilings[3].model_copy(update={"value": 9e99, "evidence": Evidence.MODELLED})
    target = state.target.model_copy(update={"ceilings": (published, *state.target.ceilings)})
    frame = figures.roofline_frame(replace(state, target=target))
    assert [r.value for r in frame.roofs if r.name == "dram" and r.threads == 0] == [4.1e10]
