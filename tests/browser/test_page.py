"""The page of a view, without JupyterLab: the real scripts and styles, driven by the real Python view over a mock comm."""

import json
import re

import pytest


def test_the_leaderboard_ranks_as_the_state_does_and_keeps_few_rows_in_the_page(show):
    run = show(candidates=1000)
    ranked = [entry.candidate.id for entry in run.handle.state.ranked()]
    seen = run.ids()
    assert seen == ranked[: len(seen)]
    assert 10 < len(seen) < 40, "only the rows in sight exist"
    assert run.page.locator(".kl-board").get_attribute("aria-rowcount") == "1001"
    run.page.locator(".kl-scroll").evaluate("box => { box.scrollTop = 600 * 30 }")
    run.settle()
    seen = run.ids()
    assert ranked.index(seen[0]) <= 600 <= ranked.index(seen[-1])
    assert len(seen) < 40


def test_a_new_candidate_patches_rows_in_place(show):
    run = show(events=100)
    run.row(3).evaluate("row => { row.mark = 'kept' }")
    identity = run.ids()[3]
    run.handle.play(30)
    run.settle()
    kept = run.page.eval_on_selector_all(
        ".kl-board tr[data-id]", "rows => rows.filter(row => row.mark === 'kept').map(row => row.dataset.id)"
    )
    assert kept == [identity], "the row was moved, not made again"
    assert run.ids() == [entry.candidate.id for entry in run.handle.state.ranked()][: len(run.ids())]


def test_names_and_sources_of_candidates_are_text(show):
    run = show()
    page = run.page
    assert page.get_by_text("rows in parallel <b>tiles</b>").count() > 0
    for tab in ("Source", "Diff", "Cases", "Diagnosis", "Metrics", "Prompt"):
        page.get_by_role("tab", name=tab, exact=True).click()
        run.settle()
        assert page.locator(".kl-inspect-body").inner_text().strip()
    assert page.evaluate("document.querySelectorAll('.kel script, .kel b tiles').length") == 0
    page.get_by_role("tab", name="Source", exact=True).click()
    third = next(e for e in run.handle.state.entries.values() if "alert('never run')" in e.candidate.source)
    page.get_by_label("Find candidates").fill(third.candidate.id)
    run.row(0).click()
    run.settle()
    assert "<script>alert('never run')</script>" in page.locator(".kl-inspect-body").inner_text()


def test_sorting_filtering_and_finding(show):
    run = show()
    run.page.locator(".kl-col-gen button").click()
    run.settle()
    assert run.page.locator(".kl-col-gen").get_attribute("aria-sort") == "ascending"
    generations = [int(text) for text in run.page.locator(".kl-board tr[data-id] td:nth-child(7)").all_inner_texts()]
    assert generations == sorted(generations)
    run.page.get_by_role("button", name="failed", exact=True).click()
    run.settle()
    assert set(run.page.eval_on_selector_all(".kl-board tr[data-id]", "rows => rows.map(row => row.dataset.tone)")) <= {"bad", "warn"}
    run.page.get_by_role("button", name="all", exact=True).click()
    run.page.get_by_label("Find candidates").fill("no such thing")
    run.settle()
    assert run.ids() == []


def test_a_lost_message_brings_the_whole_state_again(show):
    run = show(events=60)
    run.handle.play(20)
    run.view._tick()
    lost = [m for m in run.view.comm.take() if m["t"] == "update"]
    assert len(lost) == 1
    run.handle.play(20)
    run.stage.tick()
    run.settle()
    assert run.page.locator(".kl-board").get_attribute("aria-rowcount") == str(len(run.handle.state.entries) + 1)


def test_a_view_keeps_asking_until_the_kernel_answers(show):
    run = show(events=60)
    run.page.evaluate(
        """() => { window.unmount(); window.kelSent = [];
        window.model.send = (content) => { window.kelSent.push(content.t); }; window.mountView(); }"""
    )
    run.page.wait_for_function("() => window.kelSent.filter((kind) => kind === 'hello').length >= 3", timeout=6000)
    run.page.wait_for_selector(".kl-notice:has-text('Waiting for the kernel')")


def test_unmounting_leaves_nothing(show):
    run = show()
    assert run.page.evaluate("window.listeners.size") == 1
    run.page.evaluate("window.unmount()")
    assert run.page.evaluate("window.listeners.size") == 0
    assert run.page.locator(".kel").count() == 0
    run.page.evaluate("window.mountView(); null")
    run.settle()
    assert run.page.locator(".kl-board tr[data-id]").count() > 10


def test_two_views_of_one_run_agree(show):
    run = show(events=60)
    run.page.evaluate("document.body.append(Object.assign(document.createElement('div'), { id: 'other' }))")
    run.page.evaluate(
        """async () => { const el = document.getElementById('cell'); const kept = [...el.children]; window.mountView();
        document.getElementById('other').append(...[...el.children].filter((child) => !kept.includes(child))); }"""
    )
    run.settle()
    run.handle.play(30)
    run.settle()
    counts = run.page.eval_on_selector_all(".kl-board", "boards => boards.map(board => board.getAttribute('aria-rowcount'))")
    assert counts == [str(len(run.handle.state.entries) + 1)] * 2


def test_one_panel_can_stand_alone(show):
    run = show(panels=("charts",))
    assert run.page.locator(".kl-panel").count() == 1
    assert run.page.locator("canvas").count() == 2


def test_the_roofline_answers_the_pointer(show):
    run = show()
    canvas = run.page.get_by_role("img", name="Roofline")
    box = canvas.bounding_box()
    found = None
    for step in range(0, int(box["height"]), 3):
        run.page.mouse.move(box["x"] + 60 + (box["width"] - 74) * 0.236, box["y"] + step)
        if run.page.locator(".kl-roof .kl-tip").is_visible():
            found = run.page.locator(".kl-roof .kl-tip").inner_text()
            if "torch.compile" in found.split("\n")[0]:
                break
    assert found, "no dot was found in the column of the operator's intensity"
    assert re.search(r"\d (%|µs|ms)", found) and "B/s" in found


def test_the_lineage_has_a_tree_for_the_keyboard(show):
    run = show(events=150)
    run.page.get_by_role("tab", name="Lineage").click()
    run.settle()
    nodes = run.page.locator(".kl-node").count()
    assert nodes == len(run.handle.state.entries)
    run.page.get_by_text("As a list").click()
    run.settle()
    tree = run.page.get_by_role("tree", name="Lineage")
    assert tree.get_by_role("treeitem").count() == nodes
    run.page.locator(".kl-node").nth(5).locator(".kl-node-hit").click()
    run.settle()
    chosen = list(run.handle.state.entries)[5]
    assert run.page.locator(".kl-inspect-name code").inner_text() == chosen


SHOWN_TEXT = {
    "failed": ["tr[data-tone=bad] .kl-verdict", "tr[data-tone=warn] .kl-verdict"],
    "all": [
        *(".kl-title", ".kl-facts", ".kl-metric-label", ".kl-metric-note", ".kl-metric-value", ".kl-pill", ".kl-id"),
        *(".kl-tab[aria-selected=true]", ".kl-tab[aria-selected=false]", "tr[data-tone=good] .kl-verdict", ".kl-ratio-value"),
        *(".kl-name-text", ".kl-roof-text", ".kl-c .k, .kl-c .kt", ".kl-c .c1", ".kl-c .cp", ".kl-n"),
        *(".kl-log-lines span", ".kl-log-lines b", ".kl-log-lines time"),
    ],
}

LUMINANCE = """(selectors) => selectors.map((selector) => {
  const element = document.querySelector(selector);
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour, under) => {
    canvas.fillStyle = `rgb(${under.join(' ')})`; canvas.fillRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
  const back = layers.reduce((under, colour) => rgb(colour, under), [255, 255, 255]);
  const front = rgb(getComputedStyle(element).color, back);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (c) => c.reduce((sum, v, i) => sum + linear(v / 255) * [0.2126, 0.7152, 0.0722][i], 0);
  const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
})"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_in_both_themes(show, dark):
    run = show(dark=dark)
    weak = {}
    for shown, selectors in SHOWN_TEXT.items():
        run.page.get_by_role("button", name=shown, exact=True).click()
        run.settle()
        ratios = run.page.evaluate(LUMINANCE, selectors)
        weak |= {name: round(ratio, 2) for name, ratio in zip(selectors, ratios, strict=True) if ratio < 4.5}
    assert weak == {}


def test_a_theme_change_redraws_the_charts(show):
    run = show()
    sample = "document.querySelector('.kl-roof canvas').toDataURL()"
    before = run.page.evaluate(sample)
    run.page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    run.page.wait_for_timeout(200)
    assert run.page.evaluate(sample) != before


def test_motion_stops_for_those_who_ask(show):
    calm = show(events=100, reduced_motion="reduce")
    assert calm.page.evaluate("getComputedStyle(document.querySelector('.kl-pill'), '::before').animationName") == "none"
    moving = show(events=100, reduced_motion="no-preference")
    assert moving.page.evaluate("getComputedStyle(document.querySelector('.kl-pill'), '::before').animationName") == "kl-pulse"


def test_a_new_best_is_announced_politely_and_not_too_often(show):
    run = show(events=20)
    run.page.evaluate(
        """() => { window.said = []; const live = document.querySelector('[aria-live=polite].kl-hidden');
        const watch = new MutationObserver(() => window.said.push(live.textContent));
        watch.observe(live, { childList: true, characterData: true, subtree: true }); }"""
    )
    for _ in range(25):
        run.handle.play(6)
        run.stage.tick()
    said = run.page.evaluate("window.said")
    assert len(said) == 1 and said[0].startswith("New best"), "several new bests within five seconds, one announcement"


@pytest.mark.parametrize("size", [(1500, 1000), (1100, 800), (700, 900)])
def test_nothing_overflows(show, size):
    run = show(size=size)
    assert run.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    wide = run.page.evaluate(
        """() => { const root = document.querySelector('.kel').getBoundingClientRect();
        const over = (e) => e.offsetParent && e.getBoundingClientRect().right > root.right + 1;
        return [...document.querySelectorAll('.kel :is(button, input, select)')].filter(over).map((e) => e.outerHTML.slice(0, 80)); }"""
    )
    assert wide == []


def test_every_control_has_a_name(show):
    run = show(events=100)
    nameless = run.page.evaluate(
        """() => [...document.querySelectorAll('.kel :is(button, input, select, textarea, canvas)')]
        .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))
        .map((e) => e.outerHTML.slice(0, 100))"""
    )
    assert nameless == []
    assert run.page.locator("table.kl-board caption").inner_text() != ""
    assert run.page.locator("table.kl-board th[scope=col]").count() == 8


def test_the_stream_of_a_long_run_does_not_grow_the_page(show):
    run = show(candidates=600, events=300)
    before = run.page.evaluate("document.querySelectorAll('*').length")
    while run.handle.play(60):
        run.stage.tick()
    run.settle()
    assert run.page.evaluate("document.querySelectorAll('*').length") < before + 900
    assert run.page.locator(".kl-log-lines li").count() <= 300
    assert json.loads(run.page.evaluate("JSON.stringify(document.querySelector('.kl-board').getAttribute('aria-rowcount'))")) == "601"
