"""What models are writing reaches the page in small messages, at most twice a second, and goes away."""

import pytest
from fake_handle import FakeHandle

from kernelevolve_lab.engine.live import Writing
from kernelevolve_lab.widgets import run_view
from kernelevolve_lab.widgets.run_view import WRITING_CHARACTERS, WRITING_REQUESTS, RunView


class Writer(FakeHandle):
    writing: tuple[Writing, ...] = ()


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(run_view.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def view(clock):
    handle = Writer(10)
    handle.play(5)
    made = RunView(handle)
    made._pump.start = lambda: None
    made.comm.say({"t": "hello"})
    made._tick()
    made._view_count = 1
    made.comm.take()
    yield made
    made.close()


def written(view):
    view._tick()
    return [m for m in view.comm.take() if m["t"] == "writing"]


def test_a_reply_is_shown_by_its_end_and_taken_away(view, clock):
    view._handle.writing = (Writing(7, ("abc",), 50.0, 9000, "x" * 2000),)
    (message,) = written(view)
    (item,) = message["items"]
    assert (item["index"], item["parents"], item["characters"], len(item["text"])) == (7, ("abc",), 9000, WRITING_CHARACTERS)
    clock[0] += 1
    assert written(view) == [], "nothing changed"
    view._handle.writing = ()
    assert written(view)[0]["items"] == []


def test_many_replies_make_a_few_small_messages(view, clock):
    sizes = []
    for step in range(100):
        clock[0] += 0.05
        view._handle.writing = tuple(Writing(n, (), 50.0, 10 * step, "é" * 2000) for n in range(64))
        view._tick()
        sizes += [size for size, m in zip(view.comm.sizes(), view.comm.custom(), strict=True) if m["t"] == "writing"]
        view.comm.take()
    assert 8 <= len(sizes) <= 11, "twice a second for five seconds"
    assert max(sizes) < 20_000


def test_what_is_not_shown_is_counted(view):
    view._handle.writing = tuple(Writing(n, (), 50.0, 1, "x") for n in range(WRITING_REQUESTS + 3))
    (message,) = written(view)
    assert len(message["items"]) == WRITING_REQUESTS and message["more"] == 3


def test_a_view_that_appears_is_told_at_once(view):
    view._handle.writing = (Writing(1, (), 50.0, 1, "x"),)
    assert written(view)
    view.comm.say({"t": "hello"})
    assert written(view), "the page may have been reloaded"
