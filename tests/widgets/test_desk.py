"""The desk of a run that a person writes for: the prompt follows the run until somebody uses it, and nothing that was begun is lost."""

import threading
import time

import pytest
from fake_handle import FakeHandle

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.proposers.chat.by_hand import UnusableReply
from kernelevolve_lab.widgets import desk
from kernelevolve_lab.widgets.run_view import RunView

PATIENCE = 10


class Written(FakeHandle):
    """A run that a person writes for. A reply that says `no` is of no use."""

    def __init__(self, **options) -> None:
        super().__init__(20, run="written", proposer="manual", **options)
        self.prompts: list[str | None] = []
        self.replies: list[tuple] = []
        self.suggested: str | None = None

    def suggested_parent(self) -> str | None:
        return self.suggested

    def prompt(self, parent: str | None = None) -> str:
        self.prompts.append(parent)
        return f"prompt {len(self.prompts)} <b>for</b> {parent}"

    def reply(self, text: str, parent: str | None = None, prompt: str = "") -> str:
        self.replies.append((text, parent, prompt))
        if text == "no":
            raise UnusableReply("the reply holds no fenced code block")
        return next(iter(self.state.entries), "new")


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.setattr(desk, "_desks", {})


@pytest.fixture
def handle():
    made = Written()
    made.play(30)
    return made


def open_view(handle) -> RunView:
    view = RunView(handle)
    view._pump.start = lambda: None
    view._view_count = 1
    view.comm.say({"t": "hello"})
    return view


@pytest.fixture
def view(handle):
    made = open_view(handle)
    yield made
    made.close()


def until(view, found, kind: str = "desk") -> dict:
    """Tick until a message of that kind fulfils a condition."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        view._tick()
        for message in view.comm.take():
            if message["t"] == kind and found(message):
                return message
        time.sleep(0.005)
    raise AssertionError(f"no such message of kind {kind}")


def say(view, act: str, **details) -> None:
    view.comm.say({"t": "desk", "act": act, "ticket": act, **details})


def test_a_run_that_nobody_writes_for_has_no_desk():
    handle = FakeHandle(5)
    handle.play(10)
    view = open_view(handle)
    view._tick()
    assert not [m for m in view.comm.take() if m["t"] == "desk"]
    say(view, "begin")
    view._tick()
    assert not next(m for m in view.comm.take() if m["t"] == "answer")["ok"]
    view.close()


def test_the_prompt_follows_the_run_until_it_is_copied(view, handle):
    until(view, lambda m: m.get("prompt") == "prompt 1 <b>for</b> None")
    handle.suggested = next(iter(handle.state.entries))
    handle.hint("keep it in registers")
    told = until(view, lambda m: m.get("prompt", "").startswith("prompt 2"))
    assert told["parent"] == handle.suggested and not told["behind"]
    say(view, "begin")
    view._tick()
    handle.hint("and another")
    assert "prompt" not in until(view, lambda m: m["behind"]), "what is asked of a model just now stays"
    say(view, "compose", parent=None)
    assert not until(view, lambda m: m.get("prompt", "").startswith("prompt 3"))["behind"]


def test_a_person_chooses_what_is_asked_for(view, handle):
    until(view, lambda m: "prompt" in m)
    mine = list(handle.state.entries)[1]
    say(view, "compose", parent=mine)
    assert until(view, lambda m: m.get("prompt", "").endswith(mine))["parent"] == mine


def test_a_half_written_reply_is_there_when_the_run_is_shown_again(view, handle):
    until(view, lambda m: m.get("prompt"))
    say(view, "write", text="TITLE: half")
    view._tick()
    view.close()
    again = open_view(handle)
    told = until(again, lambda m: "draft" in m)
    assert told["draft"] == "TITLE: half" and told["prompt"].startswith("prompt 1")
    handle.hint("something new")
    assert "prompt" not in until(again, lambda m: m["behind"]), "the prompt that it answers stays, too"
    again.close()


def test_what_a_reply_came_to_is_told(view, handle):
    until(view, lambda m: m.get("prompt"))
    say(view, "submit", text="no")
    refused = until(view, lambda m: m["said"])
    assert refused["said"] == "That reply cannot be used: the reply holds no fenced code block."
    assert refused["repair"].startswith("Your reply could not be used: the reply holds no fenced code block.")
    again = open_view(handle)
    assert until(again, lambda m: "draft" in m)["draft"] == "no", "a reply that was sent back is not lost"
    again.close()
    say(view, "submit", text="yes")
    taken = until(view, lambda m: m["turns"] == 1)
    assert (taken["taken"], taken["said"]) == (next(iter(handle.state.entries)), "")
    assert handle.replies[-1] == ("yes", None, "prompt 1 <b>for</b> None")


def test_a_prompt_that_cannot_be_made_says_why_and_is_tried_again(handle, monkeypatch):
    def early(parent=None):
        raise BadInput("The run has not looked at its target yet.")

    with monkeypatch.context() as patch:
        patch.setattr(handle, "prompt", early)
        view = open_view(handle)
        assert until(view, lambda m: m["trouble"])["trouble"] == "The run has not looked at its target yet."
    handle.hint("go on")
    assert not until(view, lambda m: m.get("prompt"))["trouble"]
    view.close()


def test_a_tick_does_not_wait_for_a_prompt_or_a_reply(handle, monkeypatch):
    hold, asked = threading.Event(), threading.Event()

    def slow(parent=None):
        asked.set()
        assert hold.wait(PATIENCE)
        return "late"

    monkeypatch.setattr(handle, "prompt", slow)
    view = open_view(handle)
    view._tick()
    assert asked.wait(PATIENCE)
    view.comm.take()
    view.comm.say({"t": "command", "verb": "pause", "ticket": "1"})
    assert until(view, lambda m: m["ticket"] == "1", "answer")["ok"], "the view lives while the prompt is composed"
    hold.set()
    assert until(view, lambda m: m.get("prompt"))["prompt"] == "late"
    view.close()
