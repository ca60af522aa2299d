"""The schedule proposer: drafts first, then mutations, crossovers and fresh settings.

Drafts (no parents) are, in order: every template's default, the drafts that templates name, then the structural choices farthest from
what has been tried. After these, and whenever memory is `clean_slate` or the parents did not come from a template, the study draws a
fresh setting; with memory `none` a template and its setting are drawn at random. Otherwise parents decide: two of one template are
crossed, one is mutated in a few knobs, to values drawn from the study or at random. Nothing is proposed twice, and nothing descends from
a candidate that a person rejected.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from functools import cached_property
from random import Random

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.base import Proposal, ProposalRequest
from kernelevolve_lab.proposers.schedule.space import Setting, Space
from kernelevolve_lab.proposers.schedule.templates import first_settings, templates
from kernelevolve_lab.records import Candidate, Scalar, TargetSpec
from kernelevolve_lab.records.run_state import Entry, RunState

SPREAD = 4  # structural drafts per template after the ones that it names
CROSSOVER = 0.5  # how often two parents of one template are crossed rather than the first mutated
AT_RANDOM = 0.5  # how often a mutation takes its new values at random rather than from the study, which may be wrong
OBSERVATIONS = 200  # how many observations the study is built from
DRAWS = 5  # how often the study is asked before settings are changed at random


class Schedule:
    """See the module. The run's state is all it remembers, so that it goes on in another process as if nothing had happened."""

    name = "schedule"
    concurrency = 1

    def __init__(self, operator: Operator, target: TargetSpec, language: str, seed: int) -> None:
        found = templates() if _registered(operator) else ()
        # Which cases a run has is told with its requests; what serves none of the operator's profiles is refused at once.
        profiles = [{case.dtype for case in cases} for cases in operator.cases.values()]
        self.templates = {t.name: t for t in found if any(t.serves(operator.name, target, language, dtypes) for dtypes in profiles)}
        if not self.templates:
            raise BadInput(
                f"The schedule proposer has no template for '{operator.name}' in {language} on {target.name}; "
                "enqueue your own kernels (proposer 'manual') or let a model write them (proposer 'chat')."
            )
        self._operator, self._target, self._language, self._seed = operator.name, target, language, seed
        self._cases = operator.cases
        self.spaces: Mapping[str, Space] = {name: template.space(target) for name, template in self.templates.items()}

    async def propose(self, request: ProposalRequest) -> Proposal:
        return await asyncio.to_thread(self._propose, request)

    async def close(self) -> None:
        pass

    def _propose(self, request: ProposalRequest) -> Proposal:
        dtypes = self._dtypes(request.state)
        if not self._keep(dtypes):
            return Proposal(None, reason=f"No template for '{self._operator}' computes all of {', '.join(sorted(dtypes))}.", exhausted=True)
        taken = {*request.state.entries, *request.pending}
        for template, setting, parents, notes in self._ideas(request):
            candidate = self._candidate(template, setting, parents, notes)
            if candidate.id not in taken:
                return Proposal(candidate)
        return Proposal(None, reason=f"All settings of the templates for '{self._operator}' have been proposed.", exhausted=True)

    def _dtypes(self, state: RunState) -> set[str]:
        """The dtypes of the cases that this run's candidates are judged on; none where the run does not say."""
        return {case.dtype for case in self._cases[state.config.profile]} if state.config else set()

    def _keep(self, dtypes: set[str]) -> bool:
        """Go on with the templates that compute all of these dtypes; whether there are any. A run's dtypes stay the same."""
        kept = {name: t for name, t in self.templates.items() if t.serves(self._operator, self._target, self._language, dtypes)}
        if kept and len(kept) < len(self.templates):
            self.templates, self.spaces = kept, {name: self.spaces[name] for name in kept}
        return bool(kept)

    def _candidate(self, name: str, setting: Setting, parents: tuple[Entry, ...], notes: str) -> Candidate:
        template = self.templates[name]
        return Candidate(
            language=self._language,
            source=template.render(setting, self._operator, self._target),
            parents=tuple(parent.candidate.id for parent in parents),
            proposer=self.name,
            title=template.describe(setting),
            notes=notes,
            template=name,
            knobs=setting,
        )

    def _ideas(self, request: ProposalRequest) -> Iterator[tuple[str, Setting, tuple[Entry, ...], str]]:
        """What could be proposed, best first, until every setting there is has been named; some may be taken."""
        random = Random(request.seed)
        fresh = request.memory == "clean_slate"
        parents = () if fresh else tuple(filter(self._usable, map(request.state.entries.get, request.parents)))
        if not request.parents and not fresh:
            for name, setting in self.drafts:
                yield name, setting, (), self.templates[name].idea
        if parents:
            yield from self._descend(request.state, parents, random)
        yield from self._independent(random) if request.memory == "none" else self._fresh(request.state, random)
        yield from self._remaining(random)

    def _usable(self, entry: Entry | None) -> bool:
        if entry is None or entry.banned or entry.candidate.template not in self.templates:
            return False
        return self.spaces[entry.candidate.template].contains(entry.candidate.knobs)

    @cached_property
    def drafts(self) -> tuple[tuple[str, Setting], ...]:
        """The settings to begin with, round robin over the templates: defaults, the drafts they name, then structure spread far apart."""
        lists = []
        for name, template in self.templates.items():
            space = self.spaces[name]
            named = first_settings(template, space)
            lists.append([(name, setting) for setting in (*named, *_spread(space, named, Random(self._seed)))])
        return tuple(draft for drafts in itertools.zip_longest(*lists) for draft in drafts if draft is not None)

    def _descend(
        self, state: RunState, parents: tuple[Entry, ...], random: Random
    ) -> Iterator[tuple[str, Setting, tuple[Entry, ...], str]]:
        parent = parents[0]
        name, knobs = parent.candidate.template, parent.candidate.knobs
        template, space = self.templates[name], self.spaces[name]
        partner = next((other for other in parents[1:] if other.candidate.template == name), None)
        study = None
        for _ in range(DRAWS):
            if partner is not None and random.random() < CROSSOVER:
                setting = space.cross(knobs, partner.candidate.knobs, random)
                if setting is not None:
                    yield name, setting, (parent, partner), f"Crossed: {template.difference(knobs, setting)}."
                continue
            count = random.choices((1, 2, 3), (5, 3, 1))[0]
            if random.random() < AT_RANDOM:
                setting = space.mutate(knobs, random, count)
            else:
                free = space.choose(knobs, random, count)
                study = study or self._study(state)
                _, setting = study.draw(random.getrandbits(32), name, {knob: value for knob, value in knobs.items() if knob not in free})
            if setting is not None and setting != knobs and space.allows(setting):
                yield name, setting, (parent,), f"Changed: {template.difference(knobs, setting)}."
        for count in (1, 1, 2, 2, 3, 4) * 2:
            setting = space.mutate(knobs, random, count)
            if setting is not None:
                yield name, setting, (parent,), f"Changed: {template.difference(knobs, setting)}."

    def _fresh(self, state: RunState, random: Random) -> Iterator[tuple[str, Setting, tuple[Entry, ...], str]]:
        study = self._study(state)
        for _ in range(DRAWS):
            name, setting = study.draw(random.getrandbits(32))
            if self.spaces[name].allows(setting):
                yield name, setting, (), "A fresh setting, drawn from what did well so far."
            for count in (1, 2, 3):
                near = self.spaces[name].mutate(setting, random, count)
                if near is not None:
                    yield name, near, (), "A fresh setting, near one drawn from what did well so far."

    def _independent(self, random: Random) -> Iterator[tuple[str, Setting, tuple[Entry, ...], str]]:
        for _ in range(DRAWS * 10):
            name = random.choice(list(self.templates))
            setting = self.spaces[name].sample(random)
            if setting is not None:
                yield name, setting, (), "Drawn at random."

    def _remaining(self, random: Random) -> Iterator[tuple[str, Setting, tuple[Entry, ...], str]]:
        names = list(self.templates)
        random.shuffle(names)
        for name in names:
            for setting in self.spaces[name].settings():
                yield name, setting, (), "One of the last settings not yet tried."

    def _study(self, state: RunState):
        # Optuna is loaded here so that the first drafts need not wait for it.
        from kernelevolve_lab.proposers.schedule.study import Observation, Study

        entries = [entry for entry in state.entries.values() if entry.candidate.template in self.templates]
        # The best and the latest: enough to learn from, and the time to build the study stays bounded.
        best = sorted(entries, key=lambda entry: (-entry.fitness, entry.order))[: OBSERVATIONS // 4]
        kept = {entry.order: entry for entry in (*best, *entries[-OBSERVATIONS * 3 // 4 :])}
        seen = []
        for _, entry in sorted(kept.items()):
            failed = entry.banned or (entry.evaluation is not None and not entry.correct)
            fitness = entry.fitness if entry.evaluation is not None else None
            seen.append(Observation(entry.candidate.template, entry.candidate.knobs, fitness, failed))
        return Study(self.templates, self.spaces, seen)


def _registered(operator: Operator) -> bool:
    """Whether this is the registered operator that templates mean by that name, and not a person's own of the same name."""
    return operator.name in registry.names("operators") and registry.load("operators", operator.name).semantics == operator.semantics


def _spread(space: Space, tried: list[Setting], random: Random) -> list[Setting]:
    """Settings that differ from those tried in as many structural knobs as possible, one after the other (farthest first)."""
    structural = [knob.name for knob in space.knobs if knob.structural]
    pool = [setting for _ in range(64) if (setting := space.default(_structure(space, random))) is not None]
    tried, found = list(tried), []

    def distance(one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> int:
        return sum(one.get(name) != other.get(name) for name in structural)

    while len(found) < SPREAD and pool:
        farthest = max(pool, key=lambda setting: min((distance(setting, other) for other in tried), default=0))
        if tried and min(distance(farthest, other) for other in tried) == 0:
            break
        found.append(farthest)
        tried.append(farthest)
    return found


def _structure(space: Space, random: Random) -> Setting:
    return {knob.name: random.choice(knob.values) for knob in space.knobs if knob.structural}
