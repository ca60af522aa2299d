"""A view in a real JupyterLab, over the scripted run: reload, restart, shortcuts, saving."""

import json
import time

import pytest
from lab_driver import LabPage

VIEW = """
from fake_handle import FakeHandle
from kernelevolve_lab.widgets.run_view import RunView
handle = FakeHandle(60, run="scripted")
view = RunView(handle)
display(view)
"""


@pytest.fixture
def notebook(browser, lab):
    """Open a notebook of the given cells; the page is checked for errors and for requests that left this machine."""
    pages: list[LabPage] = []

    def make(name: str, *cells: str, **options) -> LabPage:
        lab.write(name, *cells)
        pages.append(LabPage(browser, lab, **options))
        pages[-1].open(name)
        return pages[-1]

    yield make
    for page in pages:
        page.close()
        assert page.requests == []
        assert page.errors == []


def rows(page) -> int:
    return int(page.page.locator(".kl-board").get_attribute("aria-rowcount") or 1) - 1


def wait_rows(page, count: int) -> None:
    page.page.wait_for_function(
        "count => document.querySelector('.kl-board')?.getAttribute('aria-rowcount') === String(count + 1)", arg=count
    )


def test_a_reload_in_mid_run_keeps_every_row(notebook):
    lab = notebook("reload.ipynb", VIEW + "\nhandle.play(60); _ = handle.start(4)", "1 + 1")
    lab.run_all()
    lab.page.wait_for_selector(".kl-board tr[data-id]")
    lab.save()
    for _ in range(3):
        lab.open("reload.ipynb")
        lab.page.wait_for_selector(".kl-board tr[data-id]")
        known = lab.python("len(handle.state.entries)")
        lab.page.wait_for_function(
            "count => Number(document.querySelector('.kl-board').getAttribute('aria-rowcount')) > count", arg=known, timeout=15_000
        )
    assert lab.python("view._pump.alive")
    lab.python("handle.stop()")
    lab.page.wait_for_selector(".kl-pill[data-status=stopped]")


def test_buttons_work_and_keys_stay_in_the_view(notebook):
    lab = notebook("keys.ipynb", VIEW + "\n_ = handle.play(120)", "1 + 1")
    lab.run_all()
    lab.page.wait_for_selector(".kl-board tr[data-id]")
    cells = lab.page.locator(".jp-NotebookPanel .jp-Cell").count()
    lab.page.locator(".kl-board tr[data-id]").nth(1).click()
    identity = lab.page.locator(".kl-board tr[aria-selected=true]").get_attribute("data-id")
    lab.page.keyboard.press("x")
    lab.page.keyboard.type("dd reads past the row")
    lab.page.keyboard.press("Enter")
    lab.page.wait_for_selector(f"tr[data-id='{identity}'] .kl-mark-bad")
    assert lab.page.locator(".jp-NotebookPanel .jp-Cell").count() == cells, "no cell was cut or deleted"
    assert lab.python(f"handle.state.entries['{identity}'].rejected") == "dd reads past the row"
    lab.page.get_by_role("button", name="Pause").click()
    lab.page.wait_for_selector(".kl-pill[data-status=paused]")
    assert lab.python("sorted({thread for _, thread in handle.calls})") == ["kel-ui"]


def test_the_view_lives_while_a_cell_blocks_the_kernel(notebook):
    lab = notebook("busy.ipynb", VIEW + "\n_ = handle.start(20)", "import time; time.sleep(6)")
    lab.run_all(wait=False)
    lab.page.wait_for_selector(".kl-board tr[data-id]")
    counts = []
    for _ in range(4):
        counts.append(rows(lab))
        lab.page.wait_for_timeout(500)
    assert not lab.page.evaluate("window.ran"), "the cell still blocks"
    assert counts[-1] > counts[0]
    lab.page.wait_for_function("window.ran")


def test_a_saved_notebook_reads_without_a_kernel(notebook):
    lab = notebook("saved.ipynb", VIEW, "_ = handle.play(10**6)")
    lab.run_all()
    lab.page.wait_for_selector(".kl-pill[data-status=finished]")
    assert lab.page.locator(".kel-report").first.is_hidden(), "one picture at a time: the live one"
    path = lab.save()
    assert path.stat().st_size < 200_000
    saved = json.loads(path.read_text())
    assert "widgets" not in saved["metadata"]
    kinds = [set(output["data"]) for output in saved["cells"][0]["outputs"]]
    assert "text/html" in kinds[0] and kinds[1] == {"text/html", "text/plain"}
    text = "".join(saved["cells"][0]["outputs"][1]["data"]["text/plain"])
    assert "finished" in text and "(measured)" in text
    lab.command("kernelmenu:shutdown")
    lab.page.goto("about:blank")
    lab.errors.clear()
    lab.open("saved.ipynb")
    report = lab.page.locator(".kel-report")
    report.wait_for()
    assert "vs torch.compile" in report.inner_text()
    lab.errors.clear()  # JupyterLab itself complains of the widget whose kernel is gone


def test_prints_of_the_search_do_not_land_in_other_cells(notebook):
    lab = notebook("prints.ipynb", VIEW + "\n_ = handle.start(20)", "1 + 1", "2 + 2")
    lab.run_all()
    lab.page.wait_for_selector(".kl-pill[data-status=finished]", timeout=30_000)
    outputs = lab.page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output").all_inner_texts()
    assert outputs == ["2"]


def test_running_the_cell_again_makes_a_new_view_and_both_work(notebook):
    lab = notebook("again.ipynb", VIEW + "\n_ = handle.play(40)", "display(view)", "_ = handle.play(20)")
    lab.run_all()
    lab.page.wait_for_function("() => document.querySelectorAll('.kl-board tr[data-id]').length > 4")
    boards = lab.page.locator(".kl-board")
    deadline = time.monotonic() + 15
    while boards.count() != 2 or len({board.get_attribute("aria-rowcount") for board in boards.all()}) != 1:
        assert time.monotonic() < deadline
        lab.page.wait_for_timeout(100)
    assert lab.python("view._view_count") == 2


def test_the_kernel_stays_quick_while_a_run_is_shown(notebook):
    lab = notebook("quick.ipynb", VIEW + "\n_ = handle.start(40)")
    lab.run_all()
    lab.page.wait_for_selector(".kl-board tr[data-id]")
    for _ in range(20):
        assert lab.python("1 + 1") == 2
    sent = lab.python("(view._sent, view._pump.period)")
    assert sent[1] <= 0.5, "ticks are cheap enough to keep the pace"
