"""The workbench: choosing, starting, opening, and saying what stands in the way."""

import threading
import time

import pytest
from fake_handle import FakeHandle

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput, MissingTool, StoreError
from kernelevolve_lab.store import RunSummary
from kernelevolve_lab.widgets.workbench import Workbench

START = {
    "t": "start",
    "operator": "rms_norm",
    "target": "cpu",
    "language": "cpp",
    "proposer": "schedule",
    "policy": "greedy",
    "candidates": 7,
}


def summary(run: str, updated: float) -> RunSummary:
    return RunSummary(
        id=run,
        title="Softmax",
        target="cpu",
        language="cpp",
        proposer="schedule",
        policy="greedy",
        status="finished",
        created=1.0,
        updated=updated,
        speedup=2.5,
    )


class Bench:
    """A workbench ticked by hand, over a fake lab."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []
        self.fail: Exception | None = None
        self.handle = FakeHandle(10)
        self.handle.play(20)
        self.view = Workbench({"mine": object}, search=self.search, open_run=self.open, runs=self.runs)
        self.view._pump.start = lambda: None

    def search(self, operator, **settings):
        self.asked.append((operator, settings, threading.current_thread().name))
        if self.fail:
            raise self.fail
        return self.handle

    def open(self, run):
        self.asked.append((run,))
        return self.handle

    def runs(self):
        if isinstance(self.fail, StoreError):
            raise self.fail
        return [summary("old", 1.0), summary("new", 2.0)]

    def take(self, kind: str, seconds: float = 10) -> dict:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.view._tick()
            found = [m for m in self.view.comm.custom() if m["t"] == kind]
            if found:
                self.view.comm.take()
                return found[-1]
            time.sleep(0.01)
        raise AssertionError(f"no message of kind {kind}")


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.view.close()


def test_it_offers_what_is_registered_and_what_the_user_brought(bench):
    bench.view.comm.say({"t": "hello"})
    offered = bench.take("choices")
    assert offered["operators"][0] == "mine"
    assert set(registry.names("operators")) <= set(offered["operators"])
    assert offered["policies"] == list(registry.names("policies"))
    assert "manual" in offered["proposers"] and "replay" not in offered["proposers"]
    assert [run["run"] for run in offered["runs"]] == ["new", "old"]


def test_starting_happens_beside_the_pump_and_shows_the_run(bench):
    bench.view.comm.say({**START, "ticket": "1", "seconds": None})
    told = bench.take("update")
    assert told["whole"] and told["status"]["run"] == bench.handle.run_id
    ((operator, settings, thread),) = bench.asked
    assert operator == "rms_norm" and thread == "kel-work"
    assert settings == {
        "target": "cpu",
        "language": "cpp",
        "proposer": "schedule",
        "policy": "greedy",
        "max_candidates": 7,
        "max_seconds": None,
        "max_cost": None,
    }
    assert bench.view.run is bench.handle


def test_an_operator_of_ones_own_is_passed_as_it_is(bench):
    bench.view.comm.say({**START, "operator": "mine", "ticket": "1", "seconds": 30})
    bench.take("update")
    assert bench.asked[0][0] is object
    assert bench.asked[0][1]["max_seconds"] == 30.0


def test_what_keeps_a_search_from_starting_is_said_in_its_own_words(bench):
    bench.fail = BadInput("There is no sandbox here: install bubblewrap.")
    bench.view.comm.say({**START, "ticket": "1"})
    told = bench.take("answer")
    assert (told["ticket"], told["ok"], told["text"]) == ("1", False, "There is no sandbox here: install bubblewrap.")
    assert bench.view.run is None


def test_a_defect_on_starting_is_answered_too(bench, caplog):
    bench.fail = RuntimeError("oh")
    bench.view.comm.say({**START, "ticket": "1"})
    assert bench.take("answer")["text"] == "RuntimeError: oh"
    assert "Traceback" in caplog.text


def test_an_earlier_run_opens(bench):
    bench.view.comm.say({"t": "open", "run": "old", "ticket": "1"})
    assert bench.take("update")["status"]["run"] == bench.handle.run_id
    assert bench.asked == [("old",)]


def test_a_store_that_cannot_be_read_is_told_and_does_not_end_the_view(bench):
    bench.fail = StoreError("The store is of a newer version.")
    bench.view.comm.say({"t": "hello"})
    assert bench.take("notice")["text"] == "The store is of a newer version."
    bench.fail = None
    bench.view.comm.say({"t": "hello"})
    assert len(bench.take("choices")["runs"]) == 2


class Tool:
    """A language as far as the workbench asks."""

    emulated = False

    def __init__(self, supported: bool, trouble: Exception | None = None) -> None:
        self.supported, self.trouble = supported, trouble

    def supports(self, target) -> bool:
        return self.supported

    def toolchain(self) -> dict:
        if self.trouble:
            raise self.trouble
        return {}


def test_what_cannot_be_built_here_says_why(bench, monkeypatch):
    monkeypatch.setitem(registry._added["languages"], "fine", lambda: Tool(True))
    monkeypatch.setitem(registry._added["languages"], "foreign", lambda: Tool(False))
    monkeypatch.setitem(registry._added["languages"], "bare", lambda: Tool(True, MissingTool("No compiler: install g++.")))
    bench.view._probe()
    told = bench.take("choices")
    assert "foreign" not in told["serving"]["cpu"] and {"bare", "fine"} <= set(told["serving"]["cpu"])
    assert told["obstacles"]["cpu/bare"] == "No compiler: install g++."
    assert "cpu/fine" not in told["obstacles"]


def test_a_gpu_that_is_not_here_is_offered_with_what_can_be_emulated_first(bench):
    bench.view._probe()
    told = bench.take("choices")
    assert "cpu" not in told["absent"] and "mtia:2i" in told["absent"]
    if "nvidia:h100" in told["absent"]:
        assert told["serving"]["nvidia:h100"][0] == "triton"
