"""The plotly figures show the numbers of `rendering.figures`, and fit into a saved notebook."""

import pytest
import synthetic_stream as synthetic

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.rendering.figures import candidate_dots, progress_info, roofline_frame
from kernelevolve_lab.widgets.figures import progress_figure, roofline_figure


@pytest.fixture(scope="module")
def state():
    return synthetic.folded(50).state


def trace(figure, name):
    return next(t for t in figure.data if t.name == name)


def test_the_roofline_shows_the_main_case(state):
    frame = roofline_frame(state)
    figure = roofline_figure(state)
    (place,) = [d for d in candidate_dots(state.best, frame) if d.case == frame.main]
    best = trace(figure, "best")
    assert (list(best.x), list(best.y)) == ([frame.cases[frame.main].intensity], [place.flops])
    assert list(trace(figure, "baselines").text) == ["eager", "torch.compile"]
    assert "(measured)" in best.hovertext[0]
    correct = sum(entry.correct for entry in state.entries.values())
    assert len(trace(figure, "candidates").x) == correct - 1


def test_another_case_can_be_named(state):
    assert "rows 256" in roofline_figure(state, "256x512").layout.title.text
    with pytest.raises(BadInput, match="known: 256x512, 1024x1024, 4096x1024"):
        roofline_figure(state, "7x7")


def test_progress_shows_every_interval(state):
    info = progress_info(state)
    figure = progress_figure(state)
    shown = trace(figure, "candidates")
    good = [p for p in info.points if p.value is not None]
    assert list(shown.y) == [p.value for p in good]
    assert shown.error_y.array[0] == pytest.approx(good[0].high - good[0].value)
    assert list(trace(figure, "best so far").y)[-1] == state.best.fitness


@pytest.mark.parametrize("draw", [roofline_figure, progress_figure])
def test_nothing_measured_says_so(draw):
    with pytest.raises(BadInput):
        draw(synthetic.folded(upto=3).state)


@pytest.mark.parametrize("draw", [roofline_figure, progress_figure])
def test_a_figure_is_small(draw, state):
    assert len(draw(state).to_json()) < 60_000
