"""Messages: small, complete, and the same whether told whole or in pieces."""

import json

import pytest
import synthetic_stream as synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelevolve_lab.records.events import SteeringAccepted
from kernelevolve_lab.records.fold import RunFold
from kernelevolve_lab.records.run import Pin, Reject
from kernelevolve_lab.rendering.figures import roofline_frame
from kernelevolve_lab.widgets.feed import Feed, row

EVENTS = list(synthetic.logged(synthetic.script(25, seed=3)))


class Page:
    """What the front end keeps, as `store.js` does."""

    def __init__(self) -> None:
        self.rows, self.log, self.frame, self.status = {}, [], None, None

    def take(self, message: dict | None) -> None:
        if message is None:
            return
        message = json.loads(json.dumps(message, allow_nan=False))
        if message["whole"]:
            self.rows, self.log = {}, []
        self.status = message["status"]
        self.frame = message.get("frame", self.frame)
        self.rows.update({r["id"]: r for r in message["rows"]})
        self.log += message["log"]


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.integers(1, 12), min_size=1, max_size=30))
def test_deltas_end_where_a_whole_message_does(steps):
    fold, feed, page, at = RunFold(), Feed(), Page(), 0
    for step in steps:
        for event in EVENTS[at : at + step]:
            fold.apply(event)
        at += step
        page.take(feed.message(fold.state))
    fresh = Page()
    fresh.take(Feed().message(fold.state, whole=True))
    assert page.rows == fresh.rows
    assert page.log == fresh.log
    assert page.frame == fresh.frame
    assert page.status == fresh.status


def test_nothing_changed_is_nothing_told():
    fold, feed = synthetic.folded(10), Feed()
    assert feed.message(fold.state)["whole"]
    assert feed.message(fold.state) is None
    assert feed.message(fold.state, "interrupted")["status"]["status"] == "interrupted"


def test_another_run_is_told_whole():
    feed = Feed()
    feed.message(synthetic.folded(10).state)
    fold = RunFold(synthetic.logged(synthetic.script(4, seed=9), run="another"))
    assert feed.message(fold.state)["whole"]


def test_one_evaluation_tells_one_row():
    fold, feed = RunFold(), Feed()
    for event in EVENTS:
        fold.apply(event)
        message = feed.message(fold.state)
        if event.event.kind == "evaluation_started":
            assert [r["id"] for r in message["rows"]] == [event.event.candidate]


def test_rejecting_tells_every_row_it_bans():
    fold, feed = synthetic.folded(40), Feed()
    feed.message(fold.state)
    parent = max(fold.state.entries, key=lambda key: len(fold.state.children(key)))
    fold.apply(
        synthetic.Logged(
            run=synthetic.RUN, seq=fold.state.seq + 1, time=0.0, event=SteeringAccepted(command=Reject(candidate=parent, reason="no"))
        )
    )
    told = {r["id"]: r for r in feed.message(fold.state)["rows"]}
    banned = {key for key, entry in fold.state.entries.items() if entry.banned}
    assert told.keys() == banned and len(banned) > 1
    assert told[parent]["rejected"] == "no"
    assert all(r["banned"] for r in told.values())


def test_an_empty_reason_still_marks_a_rejection():
    fold = synthetic.folded(3)
    key = next(iter(fold.state.entries))
    fold.apply(
        synthetic.Logged(
            run=synthetic.RUN, seq=fold.state.seq + 1, time=0.0, event=SteeringAccepted(command=Reject(candidate=key, reason=""))
        )
    )
    assert row(fold.state.entries[key], roofline_frame(fold.state))["rejected"] == ""


def test_unpinning_is_told():
    fold, feed, page = synthetic.folded(3), Feed(), Page()
    key = next(iter(fold.state.entries))
    for pinned in (True, False):
        event = SteeringAccepted(command=Pin(candidate=key, pinned=pinned))
        fold.apply(synthetic.Logged(run=synthetic.RUN, seq=fold.state.seq + 1, time=0.0, event=event))
        page.take(feed.message(fold.state))
        assert page.rows[key].get("pinned", False) is pinned


def test_every_number_of_a_row_carries_interval_and_evidence():
    state = synthetic.folded(20).state
    made = row(state.best, roofline_frame(state))
    assert made["evidence"] == "measured"
    assert set(made["speedups"]) == {"eager", "torch.compile"}
    for value, low, high in made["speedups"].values():
        assert low < value < high


def test_the_head_says_where_the_best_stands_on_the_main_case():
    state = synthetic.folded(40).state
    told = Feed().message(state)
    place = told["status"]["best_roof"]
    name = told["frame"]["cases"][told["frame"]["main"]]["name"]
    result = next(c for c in state.best.evaluation.cases if c.case.name == name)
    assert name == "4096x1024"
    assert place["share"] == pytest.approx(result.roofline.fraction, rel=1e-4)
    assert "DRAM bandwidth" in place["text"]


@pytest.mark.parametrize("candidates", [100, 1000])
def test_messages_stay_small_however_long_the_run(candidates):
    """The budget: under 1.5 kB for a row, under 12 kB for a tick of a run that finishes two candidates a tick."""
    fold, feed = RunFold(), Feed()
    sizes = []
    for number, event in enumerate(synthetic.logged(synthetic.script(candidates))):
        fold.apply(event)
        if number % 6 == 5:
            sizes.append(len(json.dumps(feed.message(fold.state))))
    steady = sorted(sizes[20:])
    assert steady[int(len(steady) * 0.95)] < 12_000
    whole = Feed().message(fold.state, whole=True)
    assert len(json.dumps(whole["rows"])) / candidates < 1500
