"""What the search has learned so far, as an Optuna study, and settings drawn from it.

One study serves all templates of an operator: which template is itself a choice, and each template's knobs stand under its own name. The
study is built anew from the run's state for every request, so that the same state and seed give the same setting in any process.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from kernelevolve_lab.proposers.schedule.space import Knob, Setting, Space
from kernelevolve_lab.proposers.schedule.templates import Template
from kernelevolve_lab.records import Scalar

# Process-wide, because both are: announcing every study, and calling experimental what has been there for years, would fill the notebook.
optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", r".*(PartialFixedSampler|multivariate|group).*experimental", optuna.exceptions.ExperimentalWarning)

TEMPLATE = "template"
STARTUP = 8  # observations below which settings are drawn uniformly


@dataclass(frozen=True)
class Observation:
    """A setting of a template and what came of it: a fitness, `failed` (not correct, or rejected by a person), or neither yet."""

    template: str
    setting: Mapping[str, Scalar]
    fitness: float | None = None
    failed: bool = False


class Study:
    """Draws settings by a tree-structured Parzen estimator (Bergstra et al., 2011; Optuna's, multivariate within each template).

    Failed settings rank below all others; settings that are being judged are assumed bad until known (constant liar), so that the
    next proposal goes elsewhere.
    """

    def __init__(self, templates: Mapping[str, Template], spaces: Mapping[str, Space], seen: Iterable[Observation]) -> None:
        self._spaces = spaces
        self._template = CategoricalDistribution(tuple(templates))
        self._study = optuna.create_study(direction="maximize")
        self._study.add_trials([trial for trial in map(self._trial, seen) if trial is not None])

    def draw(self, seed: int, template: str | None = None, fixed: Mapping[str, Scalar] | None = None) -> tuple[str, Setting]:
        """A template and a complete setting of it, constraints unchecked. With `template` that one; `fixed` knobs keep their values.
        What was drawn counts as being judged, so that the next draw goes elsewhere."""
        held: dict[str, Scalar] = {} if template is None else {TEMPLATE: template}
        for name, value in (fixed or {}).items():
            held[f"{template}.{name}"] = _encode(self._spaces[template].by_name[name], value)
        sampler: BaseSampler = TPESampler(multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP, seed=seed % 2**32)
        self._study.sampler = PartialFixedSampler(held, sampler) if held else sampler
        return self._suggest(self._study.ask())

    def _suggest(self, trial: Trial) -> tuple[str, Setting]:
        template = trial.suggest_categorical(TEMPLATE, self._template.choices)
        space = self._spaces[template]
        setting: Setting = {}
        for knob in space.knobs:
            if space.matters(knob, setting):
                name = f"{template}.{knob.name}"
                index = (
                    trial.suggest_int(name, 0, len(knob.values) - 1) if knob.ordered else trial.suggest_categorical(name, _choices(knob))
                )
                setting[knob.name] = _decode(knob, index)
        return template, setting

    def _trial(self, seen: Observation) -> FrozenTrial | None:
        space = self._spaces.get(seen.template)
        if space is None or not space.contains(seen.setting):
            return None
        params: dict[str, Scalar] = {TEMPLATE: seen.template}
        distributions: dict[str, BaseDistribution] = {TEMPLATE: self._template}
        for name, value in seen.setting.items():
            knob = space.by_name[name]
            params[f"{seen.template}.{name}"] = _encode(knob, value)
            distributions[f"{seen.template}.{name}"] = _distribution(knob)
        state = TrialState.PRUNED if seen.failed else TrialState.RUNNING if seen.fitness is None else TrialState.COMPLETE
        value = seen.fitness if state is TrialState.COMPLETE else None
        return optuna.trial.create_trial(state=state, value=value, params=params, distributions=distributions)


def _choices(knob: Knob) -> tuple[str, ...]:
    return tuple(map(repr, knob.values))


def _distribution(knob: Knob) -> BaseDistribution:
    # Numbers become their rank: neighbours are alike, whatever the distance between the values.
    return IntDistribution(0, len(knob.values) - 1) if knob.ordered else CategoricalDistribution(_choices(knob))


def _encode(knob: Knob, value: Scalar) -> int | str:
    return knob.values.index(value) if knob.ordered else repr(value)


def _decode(knob: Knob, code: int | str) -> Scalar:
    return knob.values[code] if knob.ordered else knob.values[_choices(knob).index(code)]
