"""A search with everything real: templates, compiler, sandbox, judge."""

import pytest

from kernelevolve_lab.engine.start import start
from kernelevolve_lab.errors import LabError
from kernelevolve_lab.harness import sandbox
from kernelevolve_lab.languages.cpp import CPP
from kernelevolve_lab.records import Verdict
from kernelevolve_lab.store import Store


def _missing() -> str:
    try:
        CPP.toolchain()
        sandbox.bubblewrap()
    except LabError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.skipif(bool(_missing()), reason=_missing())
def test_a_search_finds_a_correct_kernel(store: Store) -> None:
    run = start("rms_norm", proposer="schedule", policy="evolutionary", max_candidates=3, seed=1, store=store)
    assert run.wait(240), run.state.phase
    state = run.state
    assert (run.status, state.judged) == ("finished", 3), state.reason
    assert state.best is not None, [entry.evaluation.reasons for entry in state.entries.values()]
    best = state.best.evaluation
    assert best.verdict is Verdict.CORRECT and best.final
    assert best.speedup.low <= best.speedup.value <= best.speedup.high
    assert {baseline.name for baseline in state.baselines} >= {"eager"}
    assert state.target.ceilings
    reread = Store.open(store.url)
    assert reread.state(run.id) == state
    assert reread.runs()[0].speedup == best.speedup.value
