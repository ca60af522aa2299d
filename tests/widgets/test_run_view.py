"""The Python side of a view: what it tells, when, from which thread, and what it leaves behind."""

import gc
import json
import logging
import threading
import time
import weakref

import pytest
from fake_handle import FakeHandle

from kernelevolve_lab.widgets import run_view
from kernelevolve_lab.widgets.run_view import RunView, view_of


@pytest.fixture
def handle():
    made = FakeHandle(40)
    made.play(30)
    return made


@pytest.fixture
def view(handle):
    """A view whose pump is ticked by hand."""
    made = RunView(handle)
    made._pump.start = lambda: None
    yield made
    made.close()


def say(view, **message):
    view.comm.say(message)


def updates(view):
    return [m for m in view.comm.take() if m["t"] == "update"]


def answers(view):
    return {m["ticket"]: m for m in view.comm.take() if m["t"] == "answer"}


def test_nothing_is_sent_before_a_view_says_hello(view, handle):
    view._tick()
    handle.play(5)
    view._tick()
    assert updates(view) == []


def test_a_displayed_view_speaks_until_it_is_heard(view, handle, monkeypatch):
    """A cell that blocks the kernel holds back the hello of the page."""
    now = [100.0]
    monkeypatch.setattr(run_view.time, "monotonic", lambda: now[0])
    view._unheard_until = now[0] + view._unheard_every
    told = []
    for _ in range(200):
        now[0] += 0.25
        view._tick()
        told += [m["whole"] for m in updates(view)]
    assert 4 <= sum(told) <= 8, "often at first, rarely later"
    say(view, t="hello")
    view._tick()
    assert [m["whole"] for m in updates(view)] == [True]
    now[0] += 60
    view._tick()
    assert updates(view) == []


def test_hello_is_answered_with_the_whole_state_and_then_with_deltas(view, handle):
    say(view, t="hello")
    view._tick()
    (whole,) = updates(view)
    assert whole["whole"] and len(whole["rows"]) == len(handle.state.entries)
    view._view_count = 1
    handle.play(6)
    view._tick()
    (delta,) = updates(view)
    assert not delta["whole"]
    assert delta["n"] == whole["n"] + 1
    assert 0 < len(delta["rows"]) <= 3


def test_a_tick_sends_at_most_one_update_and_none_when_nothing_changed(view, handle):
    say(view, t="hello")
    view._view_count = 1
    view._tick()
    view.comm.take()
    for events in (0, 1, 12, 0, 0):
        handle.play(events)
        view._tick()
        assert len(updates(view)) == (1 if events else 0)


def test_a_hidden_view_is_told_nothing_and_comes_back_whole(view, handle):
    say(view, t="hello")
    view._view_count = 1
    view._tick()
    view.comm.take()
    view._view_count = 0
    handle.play(9)
    view._tick()
    assert updates(view) == []
    say(view, t="hello")
    view._tick()
    (told,) = updates(view)
    assert told["whole"] and len(told["rows"]) == len(handle.state.entries)


def test_callbacks_only_put_things_on_the_queue(view, handle):
    before = handle.state.seq
    say(view, t="command", verb="pause", ticket="a")
    assert handle.state.seq == before and handle.calls == []
    view._tick()
    assert handle.calls[0][0] == "pause"
    assert answers(view)["a"]["ok"]


def test_every_command_reaches_the_run(view, handle):
    key = next(iter(handle.state.entries))
    asked = [
        {"verb": "reject", "id": key, "reason": "numerically fragile"},
        {"verb": "pin", "id": key, "pinned": False},
        {"verb": "branch", "id": key},
        {"verb": "appeal", "id": key, "reason": "I doubt it"},
        {"verb": "overrule", "id": key, "flag": "suspicious", "reason": "the clock only tunes"},
        {"verb": "hint", "text": "keep the row in registers"},
        {"verb": "enqueue", "source": "int x;", "language": "cpp", "title": "mine", "parents": [key]},
        {"verb": "extend", "candidates": 25, "seconds": 60},
        {"verb": "pause"},
        {"verb": "resume"},
        {"verb": "stop"},
    ]
    for number, one in enumerate(asked):
        say(view, t="command", ticket=str(number), **one)
    view._tick()
    assert [verb for verb, _ in handle.calls] == [one["verb"] for one in asked]
    assert all(m["ok"] for m in answers(view).values())
    state = handle.state
    assert state.entries[key].rejected == "numerically fragile"
    assert state.requests[3].command.reason == "I doubt it"
    assert state.entries[key].overrulings[0].reason == "the clock only tunes"
    assert state.requests[6].command.parents == (key,)
    assert state.budget.candidates == 65


def test_what_cannot_be_done_is_answered_in_one_sentence(view):
    say(view, t="command", verb="reject", id="nobody", reason="x", ticket="1")
    say(view, t="inspect", id="nobody", tab="source", ticket="2")
    say(view, t="inspect", id="nobody", tab=7, ticket="3")
    say(view, t="dance", ticket="4")
    view._tick()
    told = answers(view)
    assert told["1"]["text"] == "There is no candidate nobody in this run."
    assert not any(m["ok"] for m in told.values())


def test_a_defect_is_answered_and_logged_and_does_not_end_the_view(view, caplog):
    with caplog.at_level(logging.ERROR):
        say(view, t="command", verb="explode", ticket="1")
        assert view._tick()
    assert not answers(view)["1"]["ok"]
    assert "no such command" in caplog.text


def test_a_broken_state_makes_the_view_stale_once_and_not_dead(view, handle, monkeypatch, caplog):
    say(view, t="hello")
    view._view_count = 1
    view._tick()
    view.comm.take()
    with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
        broken.setattr(FakeHandle, "state", property(lambda self: 1 / 0))
        assert view._tick() and view._tick()
    assert [m["t"] for m in view.comm.take()] == ["stale"]
    handle.play(3)
    view._tick()
    assert len(updates(view)) == 1


@pytest.mark.parametrize("tab", ["source", "diff", "cases", "diagnosis", "evidence", "conversation"])
def test_every_tab_of_every_kind_of_candidate_is_escaped(view, handle, tab):
    handle.play(10**6)
    for number, key in enumerate(handle.state.entries):
        say(view, t="inspect", id=key, tab=tab, ticket=str(number))
    view._tick()
    told = answers(view)
    assert len(told) == len(handle.state.entries)
    for message in told.values():
        assert message["ok"], message
        assert "<script" not in message["html"] and "<b>tiles" not in message["html"] and "<acos>" not in message["html"]


def test_a_difference_is_against_what_was_asked_for(view, handle):
    first, second, *_ = handle.state.entries
    say(view, t="inspect", id=second, tab="diff", against=first, ticket="1")
    say(view, t="source", id=second, ticket="2")
    view._tick()
    told = answers(view)
    assert first in told["1"]["html"] and second in told["1"]["html"]
    assert told["2"]["source"] == handle.state.entries[second].candidate.source


def test_exporting_happens_beside_the_pump(view, handle, tmp_path):
    handle.play(40)
    best = handle.state.best_id
    handle.may_export.clear()
    say(view, t="export", id=best, format="module", folder=str(tmp_path / "out"), ticket="1")
    view._tick()
    assert "1" not in answers(view), "the answer comes when the files are there"
    handle.may_export.set()
    deadline = time.monotonic() + 5
    while not (told := answers(view)):
        assert time.monotonic() < deadline
        view._tick()
    assert told["1"]["ok"] and str(tmp_path) in told["1"]["text"]
    assert next((tmp_path / "out").iterdir()).read_text() == handle.state.best.candidate.source


def test_ten_messages_a_second_at_most_and_few_bytes(handle):
    """The budget of the front end: a search of 20 events a second costs at most 5 messages and 25 kB a second."""
    view = RunView(handle, period=0.25)
    view._pump.start = lambda: None
    say(view, t="hello")
    view._view_count = 1
    view._tick()
    view.comm.take()
    for _ in range(20):
        handle.play(5)
        view._tick()
    sizes = view.comm.sizes()
    assert len(sizes) <= 20
    assert sum(sizes) < 20 * 0.25 * 25_000
    view.close()


def test_a_thousand_candidates_leave_nothing_behind():
    """The view and its feed keep one state, the last; all earlier ones are freed, so that memory does not grow with the number of ticks."""
    handle = FakeHandle(1000)
    view = RunView(handle)
    view._pump.start = lambda: None
    say(view, t="hello")
    view._view_count = 1
    earlier = []
    while handle.play(100):
        earlier.append(weakref.ref(handle.state))
        view._tick()
        view.comm.messages.clear()
    gc.collect()
    assert len(handle.state.entries) == 1000
    alive = [state() for state in earlier if state() is not None]
    assert alive == [handle.state]
    view.close()


def test_a_closed_view_is_freed_and_its_thread_ends(handle, comms):
    view = RunView(handle, period=0.01)
    say(view, t="hello")
    deadline = time.monotonic() + 5
    while not view.comm.custom():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    thread, gone = view._pump._thread, weakref.ref(view)
    view.close()
    assert not thread.is_alive()
    del view
    gc.collect()
    assert gone() is None
    assert comms.open_comms == []


def test_commands_run_on_the_pump_thread(handle):
    view = RunView(handle, period=0.01)
    say(view, t="command", verb="pause", ticket="1")
    deadline = time.monotonic() + 5
    while not handle.calls:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    view.close()
    assert handle.calls == [("pause", "kel-ui")]
    assert threading.current_thread().name != "kel-ui"


def test_the_scripts_travel_once_per_view(comms):
    view = RunView(FakeHandle(5))
    opened = next(data for kind, data in view.comm.messages if kind == "comm_open")
    assert len(json.dumps(opened)) < 155_000
    view.close()


def test_one_view_per_run(handle):
    first = view_of(handle)
    assert view_of(handle) is first
    first.close()
    second = view_of(handle)
    assert second is not first
    second.close()


def test_a_bundle_for_every_reader(view):
    data, _ = view._repr_mimebundle_()
    assert set(data) >= {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}
    assert "vs torch.compile" in data["text/plain"] and "(measured)" in data["text/plain"]
    assert "<script" not in data["text/html"]


class Display:
    def __init__(self):
        self.shown = []

    def update(self, thing):
        self.shown.append(thing._repr_html_())


def test_the_static_report_follows_pause_end_and_close(view, handle):
    report = Display()
    view._reports.append(report)
    view._tick()
    assert report.shown == [], "a running run is shown live"
    handle.pause()
    view._tick()
    view._tick()
    assert len(report.shown) == 1 and "paused" in report.shown[0]
    handle.resume()
    view._tick()
    handle.stop()
    view._tick()
    assert len(report.shown) == 2 and "stopped by a person" in report.shown[1]
    assert f'data-of="{view.name}"' in report.shown[1]
    assert len(report.shown[1]) < 150_000


def test_the_whole_protocol_is_known_to_the_page():
    """Every kind of message that Python sends has a reader in the page."""
    page = run_view.assets.bundle("view.js")
    for kind in ("answer", "stale", "update", "choices", "notice"):
        assert f'"{kind}"' in page
