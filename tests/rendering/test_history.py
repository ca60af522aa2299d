"""The history of a verdict and the flags that a person overruled, as they are shown."""

import synthetic_stream as synthetic

from kernelevolve_lab.records import Flag, Verdict
from kernelevolve_lab.records.events import EvaluationFinished, Logged, SteeringAccepted
from kernelevolve_lab.records.fold import RunFold
from kernelevolve_lab.records.run import Appeal, Overrule
from kernelevolve_lab.records.run_state import Entry
from kernelevolve_lab.rendering import fragments, words
from kernelevolve_lab.rendering.figures import EMPTY_FRAME
from kernelevolve_lab.widgets.feed import row
from kernelevolve_lab.widgets.inspector import tab_html


def flagged_and_appealed() -> tuple[RunFold, str]:
    """A run whose best is flagged, overruled by a person, and found incorrect on appeal by another."""
    fold = synthetic.folded(20)
    best = fold.state.best
    evaluation = best.evaluation.model_copy(update={"flags": (Flag.SUSPICIOUS, Flag.NOISY), "final": True})

    def say(event) -> int:
        fold.apply(Logged(run=fold.state.run, seq=fold.state.seq + 1, time=fold.state.updated_at + 60, event=event))
        return fold.state.seq

    say(EvaluationFinished(evaluation=evaluation))
    say(SteeringAccepted(command=Overrule(candidate=best.id, flag=Flag.SUSPICIOUS, reason="it <only> tunes")))
    appeal = say(SteeringAccepted(command=Appeal(candidate=best.id, reason="too <good>")))
    wrong = {"verdict": Verdict.INCORRECT, "reasons": ("error 1 of at most 0.1",), "speedup": None, "speedups": ()}
    say(EvaluationFinished(evaluation=evaluation.model_copy(update=wrong), appeal=appeal))
    return fold, best.id


def entry() -> Entry:
    fold, best = flagged_and_appealed()
    return fold.state.entries[best]


def test_an_overruled_flag_says_so_and_the_other_does_not():
    assert words.flags(entry()) == ["suspicious, overruled by a person: it <only> tunes", "noisy"]
    markup = fragments.diagnosis_html(entry())
    assert "overruled by a person: it &lt;only&gt; tunes" in markup and "<only>" not in markup
    assert row(entry(), EMPTY_FRAME)["overruled"] == {"suspicious": "it <only> tunes"}


def test_the_history_tells_when_what_and_why():
    markup = fragments.history_html(entry())
    assert markup.count("<tr>") == len(entry().history) + 1
    for said in ("proposed", "measured again as a finalist", "appealed by a person: too &lt;good&gt;", "incorrect: error 1", "UTC"):
        assert said in markup
    fold, best = flagged_and_appealed()
    assert "History of the verdict" in tab_html(fold.state, best, "diagnosis")


def test_one_verdict_alone_has_no_history_to_show():
    first = next(e for e in synthetic.folded(20).state.entries.values() if e.evaluation)
    assert fragments.history_html(first) == ""


def test_what_turned_out_wrong_leads_no_longer():
    fold, best = flagged_and_appealed()
    assert fold.state.best_id != best and fold.state.entries[best].overruling(Flag.SUSPICIOUS)
