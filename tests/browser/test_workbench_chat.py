"""A model behind an endpoint, in a real JupyterLab: choosers, a key that goes nowhere, the reply as it arrives, its cost, what was said."""

import json
import os
import threading
from pathlib import Path

import pytest
from lab_driver import LabPage
from scripted_endpoint import Say, serving

pytestmark = pytest.mark.slow

KEY = "sk-typed-into-the-box-4711"
PATIENCE = 180_000  # ms; the first search of a machine measures its ceilings
SHOTS = os.environ.get("KERNELEVOLVE_SCREENSHOTS")
REPLY = """TITLE: nothing <b>yet</b>

A plan that is long enough to be seen while it arrives, and then some more words so that several pieces of it are needed.

```cpp
#include "kel.h"
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) { this does not build }
```
"""


class Held(Say):
    """A reply whose end waits until it is let go."""

    def __init__(self, text: str) -> None:
        self.go, self.sent = threading.Event(), 0
        super().__init__(text)

    @property
    def pause(self) -> float:
        self.sent += 1
        if self.sent > 4:
            self.go.wait(PATIENCE / 1000)
        return 0.0

    @pause.setter
    def pause(self, value: float) -> None:
        pass


@pytest.fixture(scope="module")
def page(browser, lab):
    lab.set("@jupyter-widgets/jupyterlab-manager", "plugin", {"saveState": True})
    lab.write("chat.ipynb", "import kernelevolve_lab as kel\nwork = kel.Workbench(chosen={'operator': 'softmax'})\nwork")
    found = LabPage(browser, lab)
    found.open("chat.ipynb")
    found.run_all()
    yield found
    found.close()


def shot(page: LabPage, name: str) -> None:
    if SHOTS:
        page.page.locator(".kl-view").scroll_into_view_if_needed()
        page.page.screenshot(path=Path(SHOTS) / f"{name}.png")


def test_a_model_is_chosen_asked_watched_and_paid(page):
    view = page.page
    first, second, third = Held(REPLY), Say(REPLY.replace("this does not build", "return 1 + 1;")), Held(REPLY)
    with serving(first, second, third) as endpoint:
        view.wait_for_selector(".kl-launcher option[value=chat]", state="attached")
        view.wait_for_function("() => document.querySelector('select[name=language]').options.length")
        view.locator("select[name=proposer]").select_option("chat")
        view.locator("input[name=option-model]").wait_for()
        start = view.locator(".kl-launcher button[type=submit]")
        assert start.get_attribute("title") == "Name the model to ask."
        view.locator("input[name=option-model]").fill("some-model")
        view.locator("input[name=option-base_url]").fill(endpoint.url)
        view.locator("input[name=option-concurrency]").fill("1")
        view.locator("input[name=cost]").fill("0.5")
        view.locator(".kl-more summary").click()
        view.locator("input[name=option-price_input]").fill("1")
        view.locator("input[name=option-price_output]").fill("10")
        view.locator("input[name=candidates]").fill("50")
        view.get_by_label("Key of the endpoint").fill(KEY)
        shot(page, "chat-choosers")
        view.wait_for_function("() => !document.querySelector('.kl-launcher button[type=submit]').disabled")
        start.click()
        view.locator(".kl-writing pre").wait_for(timeout=PATIENCE)
        shot(page, "chat-streaming")
        first.go.set()
        view.wait_for_function("() => document.querySelectorAll('tr[data-id]').length === 2", timeout=PATIENCE)
        view.get_by_role("button", name="Stop", exact=True).click()
        view.wait_for_selector(".kl-pill[data-status=stopped]", timeout=PATIENCE)
        third.go.set()
        assert set(endpoint.keys) == {f"Bearer {KEY}"}
    spent = view.locator(".kl-metric", has_text="Cost")
    assert spent.locator(".kl-metric-value").inner_text() == "$0.006 / $0.50"
    assert spent.locator(".kl-metric-note").inner_text() == "2.0k tokens in · 400 out"


def test_the_exact_prompt_and_reply_of_a_candidate_can_be_read(page):
    view = page.page
    view.locator("tr[data-id]").first.click()
    view.get_by_role("tab", name="Prompt").click()
    view.wait_for_function("() => document.querySelectorAll('.kl-inspect-body pre').length >= 2")
    chosen = view.locator("tr[aria-selected=true]").get_attribute("data-id")
    kept = page.python(f"[work.state.entries['{chosen}'].reply, work.state.entries['{chosen}'].prompt]")
    texts = view.locator(".kl-inspect-body pre").all_text_contents()
    assert texts[-2:] == kept and "nothing <b>yet</b>" in kept[0]
    shot(page, "chat-prompt")


def test_the_key_is_nowhere(page):
    """Not in the saved notebook with its widgets' state, the page, the store, the server's log or the options of the run."""
    assert page.page.get_by_label("Key of the endpoint").input_value() == ""
    page.save()  # JupyterLab adds the state of widgets a moment after a save, so that the next one has it
    page.page.wait_for_function("() => window.jupyterapp.shell.currentWidget.content.model.getMetadata('widgets')")
    path = page.save()
    saved = json.loads(path.read_text())
    assert saved["metadata"]["widgets"], "the state of widgets was saved, so that there is something to search"
    places = [path.read_text(), page.page.content(), json.dumps(page.python("dict(work.run.state.config.options)"))]
    assert not [place[:80] for place in places if KEY in place]
    kept = [file for file in page.lab.home.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]
    assert kept == []
    assert page.requests == [] and page.errors == []
