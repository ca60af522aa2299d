"""Spaces of settings: knobs with values, conditions under which a knob matters, and constraints between knobs.

A space knows nothing of files or templates, so that anything that can be tuned may declare one. A *setting* is a dict from knob name to
value that holds exactly the knobs that matter under it, in the order of the space; two settings are the same kernel exactly if they are
equal. Everything random takes a `random.Random`, so that the same seed gives the same settings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from random import Random
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError, UndefinedError

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.records import Scalar

Setting = dict[str, Scalar]
_ENVIRONMENT = Environment(undefined=StrictUndefined)
_TRIES = 200


@lru_cache(maxsize=4096)
def expression(text: str) -> Callable[..., Any]:
    """Compile a Jinja expression; raise `BadInput` where it is not one."""
    try:
        return _ENVIRONMENT.compile_expression(text, undefined_to_none=False)
    except TemplateError as error:
        raise BadInput(f"'{text}' is not an expression: {error}") from error


@dataclass(frozen=True)
class Knob:
    """One choice. `values` stand in an order in which neighbours are alike; `structural` knobs change what the kernel is rather than a
    size; `when` is an expression over earlier knobs (empty: always). `label` is words for the title with `{}` for the value, `labels` words
    by value."""

    name: str
    values: tuple[Scalar, ...]
    default: Scalar
    structural: bool = False
    when: str = ""
    label: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    help: str = ""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise BadInput(f"knob name '{self.name}' is not an identifier")
        if not self.values or len(set(map(repr, self.values))) != len(self.values):
            raise BadInput(f"knob '{self.name}' needs distinct values")
        if self.default not in self.values:
            raise BadInput(f"the default {self.default!r} of knob '{self.name}' is not among its values {list(self.values)}")

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers (neighbours are alike) rather than names."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    def say(self, value: Scalar) -> str:
        """The value in words for a title; empty where it is not worth a word."""
        if self.labels:
            return self.labels.get(str(value).lower() if isinstance(value, bool) else str(value), "")
        if isinstance(value, bool):
            return self.label if value else ""
        return self.label.format(value) if self.label else ""


@dataclass(frozen=True)
class Space:
    """The settings that knobs and constraints leave; `scope` are further names that expressions may use (such as `target`)."""

    knobs: tuple[Knob, ...]
    constraints: tuple[str, ...] = ()
    scope: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, Knob]:
        return {knob.name: knob for knob in self.knobs}

    @cached_property
    def bound(self) -> int:
        """An upper bound of the number of settings."""
        return math.prod(len(knob.values) for knob in self.knobs)

    def matters(self, knob: Knob, setting: Mapping[str, Scalar]) -> bool:
        """Whether the knob matters, given the earlier knobs of the setting; a condition on a knob that is itself absent is false."""
        if not knob.when:
            return True
        try:
            return bool(expression(knob.when)(**self.scope, **setting))
        except UndefinedError as error:
            earlier = itertools.takewhile(lambda other: other.name != knob.name, self.knobs)
            if any(f"'{other.name}'" in str(error) for other in earlier):
                return False
            raise BadInput(f"'when' of knob '{knob.name}': {error}") from error

    def complete(self, partial: Mapping[str, Scalar]) -> Setting:
        """The setting that keeps the values of `partial` which matter, with defaults for what is missing; constraints are not checked.
        Raise `BadInput` for an unknown knob or value."""
        for name, value in partial.items():
            if name not in self.by_name:
                raise BadInput(f"there is no knob '{name}'; there are: {', '.join(self.by_name)}")
            if not any(value == known and type(value) is type(known) for known in self.by_name[name].values):
                raise BadInput(f"{value!r} is not a value of knob '{name}'; the values are {list(self.by_name[name].values)}")
        setting: Setting = {}
        for knob in self.knobs:
            if self.matters(knob, setting):
                setting[knob.name] = partial.get(knob.name, knob.default)
        return setting

    def allows(self, setting: Mapping[str, Scalar]) -> bool:
        """Whether every constraint holds."""
        for text in self.constraints:
            try:
                if not expression(text)(**self.scope, **setting):
                    return False
            except UndefinedError as error:
                raise BadInput(f"constraint '{text}': {error}; where a knob may be absent, begin with '<knob> is undefined or'") from error
        return True

    def contains(self, setting: Mapping[str, Scalar]) -> bool:
        """Whether this is a complete, allowed setting of this space."""
        try:
            return self.complete(setting) == dict(setting) and self.allows(setting)
        except BadInput:
            return False

    def default(self, partial: Mapping[str, Scalar] | None = None) -> Setting | None:
        """The default setting with `partial` on top; where constraints forbid it, the nearest one that they allow: fewest knobs changed,
        sizes rather than structure, and rather what `partial` does not name. None when nothing within three changes is allowed."""
        wanted = self.complete(partial or {})
        names = sorted(wanted, key=lambda name: (name in (partial or {}), self.by_name[name].structural))
        for changes in range(4):
            for changed in itertools.combinations(names, changes):
                for setting in self._varied(wanted, changed):
                    if self.allows(setting):
                        return setting
        return None

    def _varied(self, setting: Setting, names: tuple[str, ...]) -> Iterator[Setting]:
        others = [[value for value in self.by_name[name].values if value != setting[name]] for name in names]
        for values in itertools.product(*others):
            yield self.complete({**setting, **dict(zip(names, values, strict=True))})

    def sample(self, random: Random) -> Setting | None:
        """A random setting; None when none was found (the constraints leave next to nothing)."""
        for _ in range(_TRIES):
            setting = self.complete({knob.name: random.choice(knob.values) for knob in self.knobs})
            if self.allows(setting):
                return setting
        return self.default()

    def choose(self, setting: Mapping[str, Scalar], random: Random, count: int, structural: float = 0.25) -> tuple[str, ...]:
        """The names of up to `count` different knobs of this setting, chosen to be changed; a structural one has weight `structural`
        against 1 for others."""
        left = {knob.name: structural if knob.structural else 1.0 for knob in self.knobs if knob.name in setting and len(knob.values) > 1}
        chosen: list[str] = []
        while left and len(chosen) < count:
            name = random.choices(list(left), list(left.values()))[0]
            del left[name]
            chosen.append(name)
        return tuple(chosen)

    def mutate(self, setting: Mapping[str, Scalar], random: Random, count: int = 1, structural: float = 0.25) -> Setting | None:
        """An allowed setting that differs from this one, made by changing `count` knobs (see `choose`); numbers move to a neighbour most
        of the time. None when no such setting was found."""
        for _ in range(_TRIES):
            changed = dict(setting)
            for name in self.choose(setting, random, count, structural):
                changed[name] = self._another(self.by_name[name], changed[name], random)
            result = self.complete(changed)
            if result != dict(setting) and self.allows(result):
                return result
        return None

    @staticmethod
    def _another(knob: Knob, value: Scalar, random: Random) -> Scalar:
        others = [other for other in knob.values if other != value]
        if knob.ordered and random.random() < 0.75:
            at = knob.values.index(value)
            others = [knob.values[i] for i in (at - 1, at + 1) if 0 <= i < len(knob.values)]
        return random.choice(others)

    def cross(self, first: Mapping[str, Scalar], second: Mapping[str, Scalar], random: Random) -> Setting | None:
        """A setting that takes each knob from one of two parents; None when no allowed one differs from both."""
        for _ in range(_TRIES // 4):
            mixed = {**first, **second}
            for name in first.keys() & second.keys():
                mixed[name] = random.choice((first[name], second[name]))
            result = self.complete(mixed)
            if result not in (dict(first), dict(second)) and self.allows(result):
                return result
        return None

    def settings(self) -> Iterator[Setting]:
        """Every allowed setting once, in the order of the knobs' values."""

        def extend(setting: Setting, depth: int) -> Iterator[Setting]:
            if depth == len(self.knobs):
                if self.allows(setting):
                    yield setting
                return
            knob = self.knobs[depth]
            for value in knob.values if self.matters(knob, setting) else (None,):
                yield from extend(setting if value is None else {**setting, knob.name: value}, depth + 1)

        return extend({}, 0)
