"""Declared constants: found in a source, varied, written back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_states import broken, candidate, correct, request, state_of

from kernelevolve_lab import registry
from kernelevolve_lab.proposers.tuning import PATIENCE, Tuner, tunable

SOURCE = """#include "kel.h"
constexpr int TILE = 64;  // tune: TILE in {32, 64, 128}
#define UNROLL 4  // tune: UNROLL in {1, 2, 4}
static const float LIMIT{1.5f};  // tune: LIMIT in {0.5f, 1.5f}
constexpr bool STREAM = true;  // tune: STREAM in {true, false}
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) { int TILE2 = TILE; }
"""


@pytest.fixture(scope="module")
def operator():
    return registry.load("operators", "rms_norm")


def test_declarations_are_read_and_written_back():
    found = tunable(SOURCE)
    assert found.setting == {"TILE": 64, "UNROLL": 4, "LIMIT": 1.5, "STREAM": True}
    assert found.space.bound == 3 * 3 * 2 * 2
    assert found.source(found.setting) == SOURCE
    changed = found.source({"TILE": 128, "UNROLL": 1, "LIMIT": 0.5, "STREAM": False})
    for written in ("int TILE = 128;  // tune", "#define UNROLL 1 ", "LIMIT{0.5f}", "STREAM = false"):
        assert written in changed
    assert changed.count("64") == 1, "what is listed stays listed"
    assert tunable(changed).family == found.family


@pytest.mark.parametrize(
    "line",
    [
        "int TILE = 48;  // tune: TILE in {32, 64}",
        "int TILE = 32;  // tune: TILE in {32}",
        "int TILE = 32;  // tune: OTHER in {32, 64}",
        "int TILE = f();  // tune: TILE in {32, 64}",
        "int TILE = 32;  // tune: TILE in {32, system(1)}",
        "// tune: TILE in {32, 64}",
        "int TILE = 32;  // tune TILE: 32 or 64",
    ],
)
def test_what_cannot_be_used_is_no_declaration(line):
    assert tunable(line + "\n") is None


def test_python_comments_declare_too():
    found = tunable("BLOCK = 64  # tune: BLOCK in {64, 128}\ndef kernel(x):\n    return x\n")
    assert found.source({"BLOCK": 128}).startswith("BLOCK = 128  # tune")


@given(st.text())
def test_any_text_can_be_looked_at(text):
    found = tunable(text)
    assert found is None or found.source(found.setting) == text


def test_every_setting_is_proposed_once(operator):
    parent = candidate(0, text=SOURCE, title="tiled")
    events, tuner, tried = [parent, correct(parent, 1.2, operator)], Tuner(), {parent.source}
    for index in range(35):
        state = state_of(*events)
        assert tuner.room(state, parent.id) == (35 - index if index < PATIENCE else 0), "no gain: no further tries are worth it"
        proposal = tuner.propose(request(operator, state, parents=(parent.id,), seed=index))
        assert proposal.candidate.source not in tried and proposal.candidate.parents == (parent.id,)
        assert proposal.candidate.title.startswith("tiled [TILE=")
        tried.add(proposal.candidate.source)
        events += [proposal.candidate, correct(proposal.candidate, 1.0, operator)]
    assert tuner.propose(request(operator, state_of(*events), parents=(parent.id,))).exhausted


def test_good_values_are_drawn_more_often(operator):
    """After a few observations that favour TILE 128, it is drawn more often than a third of the time."""
    parent = candidate(0, text=SOURCE)
    found = tunable(SOURCE)
    events = [parent, correct(parent, 1.0, operator)]
    for number, setting in enumerate(found.space.settings()):
        if number % 3 == 0:
            child = candidate(0, (parent.id,), text=found.source(setting))
            if child.id != parent.id:
                events += [child, correct(child, 3.0 if setting["TILE"] == 128 else 0.7, operator)]
    state = state_of(*events)
    drawn = [Tuner().propose(request(operator, state, parents=(parent.id,), seed=seed)).candidate.knobs["TILE"] for seed in range(20)]
    assert drawn.count(128) > 20 / 3


def test_candidate_without_declarations_has_no_room(operator):
    plain = candidate(1)
    assert Tuner().room(state_of(plain, broken(plain)), plain.id) == 0
