"""Numbers as text."""

from dataclasses import replace

import pytest
import synthetic_stream as synthetic

from kernelevolve_lab.records import Evidence, Verdict
from kernelevolve_lab.rendering import words


@pytest.mark.parametrize(("value", "text"), [(1.824, "1.82×"), (0.4, "0.40×"), (23.46, "23.5×"), (140.2, "140×"), (None, "–")])
def test_ratios(value, text):
    assert words.times(value) == text


@pytest.mark.parametrize(("value", "text"), [(2.5, "2.5 s"), (1.2345e-3, "1.23 ms"), (61e-6, "61 µs"), (4.2e-8, "42 ns"), (None, "–")])
def test_durations_of_a_call(value, text):
    assert words.seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(45.4, "45 s"), (200, "3 min 20 s"), (3900, "1 h 05 min"), (-3, "0 s")])
def test_spans_of_a_search(value, text):
    assert words.duration(value) == text


def test_rates_keep_three_digits():
    assert words.scaled(2.3145e10, "B/s") == "23.1 GB/s"
    assert words.scaled(390e9, "FLOP/s") == "390 GFLOP/s"
    assert words.scaled(12.0, "B/s") == "12 B/s"


def test_small_costs_are_not_shown_as_nothing():
    assert [words.money(v) for v in (0.0, 0.004, 1.5)] == ["$0.00", "<$0.01", "$1.50"]


def test_every_verdict_and_evidence_has_words():
    assert set(words.VERDICTS) == set(Verdict)
    assert set(words.EVIDENCE) == set(Evidence)
    assert len({look.symbol for look in words.VERDICTS.values()}) == len(Verdict), "a symbol alone must tell verdicts apart"


def test_roof_text_names_bound_share_and_rate():
    point = synthetic.roofline(synthetic.CASES[2], 2e-3)
    assert words.roof_text(point, synthetic.TARGET) == "memory-bound, 41 % of DRAM bandwidth (16.8 GB/s)"
    compute = point.model_copy(update={"bound_by": "float32", "fraction": 0.5, "flops_per_second": 195e9})
    assert words.roof_text(compute, synthetic.TARGET) == "compute-bound, 50 % of float32 peak (195 GFLOP/s)"


def test_headline_carries_intervals_and_evidence():
    state = synthetic.folded(30).state
    line = words.headline(state.best.evaluation)
    ratio = state.best.evaluation.speedup
    assert f"[{ratio.low:.2f}, {ratio.high:.2f}]" in line
    assert line.endswith("(measured)")
    failed = next(e for e in state.entries.values() if not e.correct)
    assert failed.evaluation.reasons[0] in words.headline(failed.evaluation)


def test_what_waits_says_whether_it_will_be_judged():
    entry = next(iter(synthetic.folded(upto=7).state.entries.values()))
    assert words.look(entry).word == "queued"
    assert words.look(replace(entry, judging=True)).word == "judging"
    assert words.look(replace(entry, banned=True)).word == "dropped"
