"""The panel for people without an endpoint: the prompt goes to the clipboard as it is, a reply is judged or sent back, nothing is lost."""

import time

import pytest
from stage import Stage
from test_desk import Written

from kernelevolve_lab.widgets import desk
from kernelevolve_lab.widgets.run_view import RunView

PATIENCE = 20


@pytest.fixture
def hand(browser, comms, monkeypatch):
    """A run that a person writes for, on a stage."""
    monkeypatch.setattr(desk, "_desks", {})
    handle = Written()
    handle.play(60)
    view = RunView(handle)
    view._pump.start = lambda: None
    view._view_count = 1
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(10_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    stage = Stage(page, view)
    until(stage, ".kl-hand pre[data-empty=false]")
    yield stage, handle
    page.close()
    view.close()
    assert errors == []


def until(stage, selector: str) -> None:
    """Carry messages until something is on the page."""
    deadline = time.monotonic() + PATIENCE
    while not stage.page.locator(selector).count():
        assert time.monotonic() < deadline, f"{selector} does not come"
        stage.tick()


def test_the_prompt_is_shown_escaped_and_copied_as_it_is(hand):
    stage, _ = hand
    page = stage.page
    assert page.get_by_label("Prompt to copy").inner_text() == "prompt 1 <b>for</b> None"
    page.get_by_role("button", name="Copy prompt").click()
    page.get_by_role("button", name="Copied").wait_for()
    reply = page.get_by_label("Reply of the model")
    reply.focus()
    page.keyboard.press("Control+V")
    assert reply.input_value() == "prompt 1 <b>for</b> None"


def test_a_reply_is_sent_back_with_words_and_the_next_one_taken(hand):
    stage, handle = hand
    page = stage.page
    submit = page.get_by_role("button", name="Submit")
    assert submit.is_disabled() and submit.get_attribute("title") == "Paste a reply first"
    reply = page.get_by_label("Reply of the model")
    reply.fill("no")
    submit.click()
    until(stage, ".kl-hand-said[data-tone=bad]")
    assert page.locator(".kl-hand-said").inner_text() == "That reply cannot be used: the reply holds no fenced code block."
    assert page.get_by_role("button", name="Copy what to tell the model").is_visible()
    assert reply.input_value() == "no", "nothing that was pasted is lost"
    reply.fill("yes")
    reply.press("Control+Enter")
    until(stage, ".kl-hand-said:text('Your last reply is #1: ')")
    assert reply.input_value() == "" and handle.replies[-1][0] == "yes"


def test_a_half_written_reply_survives_a_new_view(hand):
    stage, _ = hand
    page = stage.page
    page.get_by_label("Reply of the model").fill("TITLE: half")
    page.evaluate("() => { window.unmount(); window.mountView(); }")
    until(stage, ".kl-hand pre[data-empty=false]")
    assert page.get_by_label("Reply of the model").input_value() == "TITLE: half"


def test_a_run_that_has_ended_offers_no_box(hand):
    stage, handle = hand
    handle.stop()
    until(stage, ".kl-hand-over:not([hidden])")
    assert stage.page.get_by_role("button", name="Submit").is_hidden()
    assert "has ended" in stage.page.locator(".kl-hand-over").inner_text()
