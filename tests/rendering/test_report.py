"""Runs as documents: self-contained, escaped, small, with evidence on every number."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import synthetic_stream as synthetic

from kernelevolve_lab.rendering import fragments, report, svg

VOID = {"br", "img", "input", "link", "meta", "hr"}


class Balance(HTMLParser):
    """Fails on tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs), f"<{tag}> carries a script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def parsed(markup: str) -> Balance:
    reader = Balance()
    reader.feed(markup)
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def state():
    return synthetic.folded(60).state


@pytest.mark.parametrize("events", [0, 1, 3, 5, 7, 12, 60, None])
def test_every_stage_of_a_run_has_a_report(events):
    state = synthetic.folded(40, upto=events).state
    reader = parsed(report.notebook_html(state, "v"))
    assert not reader.tags & {"script", "link", "iframe", "img", "b1"}
    assert report.text(state)
    parsed(report.stub_html(state))


def test_nothing_is_fetched(state):
    markup = report.notebook_html(state, "v")
    assert not re.search(r"(?:src|href)=|url\(|@import|https?://", markup)


def test_a_report_of_a_long_run_fits_into_a_notebook():
    assert len(report.notebook_html(synthetic.folded(400).state, "v").encode()) < 120_000


def test_titles_are_text(state):
    markup = report.notebook_html(state, "v")
    assert "rows in parallel &lt;b&gt;tiles&lt;/b&gt;" in markup
    assert "<b>tiles" not in markup


def test_the_table_ranks_as_the_state_does(state):
    rows = re.findall(r"<code>([0-9a-f]{12})</code>", report.leaderboard_html(state, 15))
    assert rows == [entry.candidate.id for entry in state.ranked()[:15]]


def test_numbers_carry_interval_and_evidence(state):
    best = state.best.evaluation
    text = report.text(state)
    assert f"{best.speedup.value:.2f}× [{best.speedup.low:.2f}, {best.speedup.high:.2f}] vs torch.compile" in text
    assert "(measured)" in text
    assert "Measured on cpu" in fragments.cases_html(best, state.target)


@pytest.mark.parametrize("draw", [svg.roofline_svg, svg.progress_svg])
def test_figures_are_well_formed_and_named(state, draw):
    root = ElementTree.fromstring(draw(state))
    assert root.get("role") == "img"
    assert root.find("title").text
    assert "×" in root.find("desc").text
    width, height = (float(v) for v in root.get("viewBox").split()[2:])
    for circle in root.iter("circle"):
        assert 0 <= float(circle.get("cx")) <= width
        assert 0 <= float(circle.get("cy")) <= height


def test_figures_of_an_empty_run_are_nothing():
    empty = synthetic.folded(upto=2).state
    assert svg.roofline_svg(empty) == svg.progress_svg(empty) == ""


def test_an_operator_without_arithmetic_is_drawn_by_bandwidth(state):
    from dataclasses import replace

    still = tuple(
        b.model_copy(update={"roofline": b.roofline.model_copy(update={"intensity": 0.0, "flops_per_second": 0.0})})
        for b in state.baselines
    )
    root = ElementTree.fromstring(svg.roofline_svg(replace(state, baselines=still)))
    assert root.find("title").text.startswith("Achieved bandwidth")


def test_stage_times_add_up(state):
    markup = fragments.stages_html(state.best.evaluation)
    shares = [float(share) for share in re.findall(r"width:([\d.]+)%", markup)]
    assert sum(shares) == pytest.approx(100, abs=0.1)


def test_a_conversation_is_shown_escaped():
    state = synthetic.folded(40).state
    chat = next(e for e in state.entries.values() if e.prompt)
    markup = fragments.conversation_html(chat)
    assert "&lt;operator&gt;" in markup and "<operator>" not in markup
    quiet = next(e for e in state.entries.values() if not e.prompt and not e.candidate.notes)
    assert "sends no prompt" in fragments.conversation_html(quiet)
