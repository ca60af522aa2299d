"""Spaces: whatever is sampled, mutated or crossed is a complete, allowed setting, and the same kernel has one setting only."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.proposers.schedule.space import Knob, Setting, Space

SPACE = Space(
    (
        Knob("shape", ("flat", "tiled", "tree"), "flat", structural=True, labels={"tiled": "in tiles"}),
        Knob("tile", (8, 16, 32, 64), 16, when="shape == 'tiled'", label="tiles of {}"),
        Knob("fast", (False, True), False, structural=True, when="shape != 'tree' and limit > 1", label="fast"),
        Knob("steps", (1, 2, 4), 2, when="tile > 8", label="{} steps"),
    ),
    ("tile is undefined or steps is undefined or tile * steps <= 64", "not (shape == 'flat' and fast)"),
    {"limit": 4},
)
seeds = st.integers(0, 2**32).map(Random)
settings_of_space = st.sampled_from(list(SPACE.settings()))


def test_settings_lists_each_allowed_setting_once() -> None:
    found = list(SPACE.settings())
    assert len(found) == len({tuple(setting.items()) for setting in found})
    assert all(SPACE.contains(setting) for setting in found)
    # flat: fast off. tree: nothing else. tiled: tile 8 has no steps, 16 and 32 and 64 allow 3, 2 and 1 of them; fast or not.
    assert len(found) == 1 + 1 + 2 * (1 + 3 + 2 + 1)


def test_a_knob_that_does_not_matter_is_absent() -> None:
    assert SPACE.complete({"shape": "tree", "tile": 32, "fast": True}) == {"shape": "tree"}
    assert SPACE.complete({"shape": "tiled", "tile": 8, "steps": 4}) == {"shape": "tiled", "tile": 8, "fast": False}
    assert not SPACE.contains({"shape": "tree", "tile": 32})


@given(seeds)
def test_samples_are_in_the_space(random: Random) -> None:
    setting = SPACE.sample(random)
    assert setting is not None and SPACE.contains(setting)


@given(settings_of_space, seeds, st.integers(1, 4), st.floats(0.01, 4))
def test_mutation_stays_in_the_space_and_changes_something(setting: Setting, random: Random, count: int, structural: float) -> None:
    mutated = SPACE.mutate(setting, random, count, structural)
    assert mutated is not None and mutated != setting and SPACE.contains(mutated)


@given(settings_of_space, settings_of_space, seeds)
def test_crossing_takes_every_value_from_a_parent_or_the_default(first: Setting, second: Setting, random: Random) -> None:
    crossed = SPACE.cross(first, second, random)
    if crossed is not None:
        assert SPACE.contains(crossed) and crossed not in (first, second)
        for name, value in crossed.items():
            assert value in (first.get(name), second.get(name), SPACE.by_name[name].default)


@given(settings_of_space, st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_setting(setting: Setting, seed: int) -> None:
    assert SPACE.sample(Random(seed)) == SPACE.sample(Random(seed))
    assert SPACE.mutate(setting, Random(seed), 2) == SPACE.mutate(setting, Random(seed), 2)


@given(settings_of_space, seeds, st.integers(1, 6))
def test_chosen_knobs_are_different_and_present(setting: Setting, random: Random, count: int) -> None:
    chosen = SPACE.choose(setting, random, count)
    assert len(set(chosen)) == len(chosen) == min(count, len(setting))
    assert set(chosen) <= setting.keys()


def test_a_forbidden_default_moves_to_the_nearest_allowed_setting() -> None:
    assert SPACE.default({"shape": "tiled", "tile": 64, "steps": 2}) == {"shape": "tiled", "tile": 8, "fast": False}
    assert SPACE.default({"fast": True}) == {"shape": "tiled", "tile": 16, "fast": True, "steps": 2}  # what was asked for stays
    assert Space((Knob("a", (1, 2), 1),), ("a > 2",)).default() is None


def test_an_exhausted_space_has_no_mutation() -> None:
    single = Space((Knob("a", (1,), 1), Knob("b", (1, 2), 1)), ("b == 1",))
    assert single.mutate({"a": 1, "b": 1}, Random(0)) is None
    assert single.sample(Random(0)) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: SPACE.complete({"colour": 1}), "there is no knob 'colour'"),
        (lambda: SPACE.complete({"tile": 12}), "12 is not a value of knob 'tile'"),
        (lambda: SPACE.complete({"fast": 1}), "1 is not a value of knob 'fast'"),
        (lambda: Space((Knob("a", (1,), 1, when="b == 1"), Knob("b", (1,), 1))).complete({}), "'when' of knob 'a'"),
        (lambda: Space((Knob("a", (1,), 1),), ("c == 1",)).allows({"a": 1}), "'c' is undefined"),
        (lambda: Space((Knob("a", (1,), 1),), ("a ==",)).allows({"a": 1}), "is not an expression"),
        (lambda: Knob("a b", (1,), 1), "not an identifier"),
    ],
)
def test_bad_spaces_are_named(make, part: str) -> None:
    with pytest.raises(BadInput) as raised:
        make()
    assert part in str(raised.value)
