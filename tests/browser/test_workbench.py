"""The whole of it, in a real JupyterLab with a real search: choose, start, watch, reject, compare, export."""

import json
import os
import time
from pathlib import Path

import pytest
from lab_driver import LabPage

pytestmark = pytest.mark.slow

CANDIDATES = 5
PATIENCE = 180_000  # ms; the first search of a machine measures its ceilings and compiles the baseline
SHOTS = os.environ.get("KERNELEVOLVE_SCREENSHOTS")


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    folder = Path(SHOTS) if SHOTS else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def page(browser, lab):
    lab.write("workbench.ipynb", "import kernelevolve_lab as kel\nwork = kel.Workbench()\nwork", "import json\n1 + 1")
    found = LabPage(browser, lab)
    found.open("workbench.ipynb")
    found.run_all()
    yield found
    found.close()


@pytest.fixture(scope="module")
def finished(page):
    """The workbench after a search that a person steered."""
    view = page.page
    view.wait_for_selector(".kl-launcher option[value=rms_norm]", state="attached")
    view.get_by_label("Operator").select_option("rms_norm")
    view.locator("input[name=candidates]").fill(str(CANDIDATES))
    view.locator(".kl-launcher button[type=submit]").click()
    view.wait_for_selector(".kl-pill[data-status=running]", timeout=30_000)
    view.wait_for_selector("tr[data-tone=good]", timeout=PATIENCE)
    row = view.locator("tr[data-tone=good]").first
    rejected = row.get_attribute("data-id")
    row.click()
    view.keyboard.press("x")
    view.keyboard.type("too clever to maintain")
    view.keyboard.press("Enter")
    view.wait_for_selector(f"tr[data-id='{rejected}'] .kl-mark-bad")
    known = page.python("list(work.state.entries)")
    view.wait_for_selector(".kl-pill[data-status=finished]", timeout=PATIENCE)
    return rejected, known


def test_nothing_is_offered_that_is_not_installed(page):
    view = page.page
    view.wait_for_selector(".kl-launcher option[value=rms_norm]", state="attached")
    assert view.locator("select[name=operator] option").count() >= 11
    assert view.locator(".kl-welcome").is_visible()
    view.locator("input[name=candidates]").fill("0")
    start = view.locator(".kl-launcher button[type=submit]")
    assert start.is_disabled()
    assert view.locator(".kl-why").inner_text() == "Candidates must be a whole number of at least 1."


def test_the_leaderboard_fills(page, finished):
    view = page.page
    assert view.locator(".kl-board").get_attribute("aria-rowcount") == str(page.python("len(work.state.entries)") + 1)
    best = page.python("(work.state.best.candidate.id, work.state.best.fitness)")
    assert view.locator("tr.kl-best").get_attribute("data-id") == best[0]
    assert view.locator("tr.kl-best .kl-ratio-value").first.inner_text() == f"{best[1]:.2f}×"
    assert view.locator(".kl-metric-main .kl-metric-note").inner_text().endswith("measured")


def test_nothing_descends_from_what_was_rejected(page, finished):
    rejected, known = finished
    entries = page.python(
        "[(e.candidate.id, e.candidate.parents, e.rejected, e.banned) for e in work.state.entries.values()]",
    )
    assert {e[0]: e[2] for e in entries}[rejected] == "too clever to maintain"
    later = [e for e in entries if e[0] not in known]
    assert [e[0] for e in later if rejected in e[1] or e[3]] == []
    assert page.python("work.state.best_id") != rejected


def test_a_difference_opens(page, finished):
    view = page.page
    view.locator("tr.kl-best").click()
    view.keyboard.press("d")
    view.wait_for_selector(".kl-diff")
    assert view.locator(".kl-diff .kl-code").count() >= 1


def test_the_winner_is_exported(page, finished):
    view = page.page
    view.get_by_role("button", name="Export", exact=True).click()
    view.get_by_role("textbox", name="Folder").fill(str(page.lab.root / "winner"))
    view.get_by_role("button", name="Write", exact=True).click()
    view.wait_for_selector(".kl-export-said[data-tone=good]", timeout=60_000)
    written = list((page.lab.root / "winner").rglob("*.py"))
    assert written and "def " in written[0].read_text()
    view.get_by_role("button", name="Close", exact=True).click()


def test_it_looks_right_in_both_themes(page, finished, shots):
    view = page.page
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        page.command("apputils:change-theme", theme=theme)
        view.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
        view.locator(".kl-view").scroll_into_view_if_needed()
        view.wait_for_timeout(1500)
        view.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        path = shots / f"workbench-{theme.split()[-1].lower()}.png"
        view.screenshot(path=path)
        assert path.stat().st_size > 30_000


def test_the_saved_notebook_is_small_and_reads_alone(page, finished):
    path = page.save()
    saved = json.loads(path.read_text())
    assert path.stat().st_size < 200_000
    assert "widgets" not in saved["metadata"]
    text = "".join(saved["cells"][0]["outputs"][1]["data"]["text/plain"])
    assert "vs torch.compile" in text and "(measured)" in text


def test_nothing_went_wrong_unseen(page, finished):
    assert page.errors == []
    assert page.requests == []
    assert "Traceback" not in (page.lab.home / "lab.log").read_text()


def test_an_earlier_run_opens_again(page, finished):
    view = page.page
    run = page.python("work.run.id")
    view.wait_for_selector(f"select[aria-label='Open an earlier run'] option[value='{run}']", state="attached")
    page.python("setattr(work, '_handle', None)")
    view.get_by_label("Open an earlier run").select_option(run)
    deadline = time.monotonic() + PATIENCE / 1000
    while page.python("work.run is None"):
        assert time.monotonic() < deadline, "the run does not open"
    assert page.python("work.run.id") == run
    view.wait_for_selector(".kl-pill[data-status=finished]")
