"""What the loop needs from the other rooms, in one place, so that a test or a replay can put its own in."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kernelevolve_lab import registry
from kernelevolve_lab.engine.policies.base import Policy
from kernelevolve_lab.languages.base import Build
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.base import Proposer
from kernelevolve_lab.records import Candidate, Evaluation, RunConfig, TargetSpec
from kernelevolve_lab.records.events import BaselineCase, LessonLearned
from kernelevolve_lab.records.run_state import RunState

BUILD_THREADS = max(min(4, os.cpu_count() or 1), min(12, (os.cpu_count() or 1) // 4))


class Judge(Protocol):
    """The part of `harness.judge.Judge` that a search uses; every method blocks. `build` may be called from several threads at once, the
    others from one at a time. `target` may be replaced between evaluations, by the same with ceilings that were measured meanwhile."""

    target: TargetSpec

    @property
    def baseline_note(self) -> str:
        """Why `torch.compile` is no baseline."""

    def open(self, progress: Callable[[str], None]) -> None: ...

    def baselines(self, name: str) -> tuple[BaselineCase, ...]: ...

    def build(self, candidate: Candidate) -> Build: ...

    def evaluate(
        self, candidate: Candidate, build: Build | None = None, *, final: bool = False, cancelled: Callable[[], bool]
    ) -> Evaluation: ...

    def close(self) -> None: ...


def _load_operator(config: RunConfig) -> Operator:
    """The operator; of a task file only what a sandboxed process tells of it."""
    from kernelevolve_lab.harness.sheet import sheet
    from kernelevolve_lab.operators.loading import load
    from kernelevolve_lab.paths import cache_dir

    if config.operator.kind == "task":
        return sheet(config.operator, config.profile, cache_dir(), unsandboxed=config.unsandboxed)
    return load(config.operator)


def _resolve_target(name: str) -> TargetSpec:
    from kernelevolve_lab.targets import resolve

    return resolve(name)


def _measure_target(target: TargetSpec, progress: Callable[[str], None]) -> TargetSpec:
    from kernelevolve_lab.paths import cache_dir
    from kernelevolve_lab.targets import measure

    return measure(target, cache_dir(), progress=progress)


def _make_judge(config: RunConfig, target: TargetSpec) -> Judge:
    from kernelevolve_lab.harness.judge import Judge as RealJudge

    return RealJudge(config.operator, target, profile=config.profile, unsandboxed=config.unsandboxed)


def _make_proposer(config: RunConfig, operator: Operator, target: TargetSpec) -> Proposer:
    return registry.load("proposers", config.proposer)(operator, target, config.language, dict(config.options), config.seed)


def _learn(state: RunState, operator: Operator) -> list[LessonLearned]:
    from kernelevolve_lab.knowledge.distil import learn

    return learn(state, operator)


def _make_policy(config: RunConfig) -> Policy:
    return registry.load("policies", config.policy)()


@dataclass(frozen=True)
class Services:
    """How a run gets its operator, measured target, judge, proposer and policy, and how lessons are drawn from it at its end; the defaults
    are the real ones. All may block. `lookahead` is how many candidates may wait for the judge (see `engine.loop.SearchLoop`)."""

    load_operator: Callable[[RunConfig], Operator] = _load_operator
    resolve_target: Callable[[str], TargetSpec] = _resolve_target
    measure_target: Callable[[TargetSpec, Callable[[str], None]], TargetSpec] = _measure_target
    make_judge: Callable[[RunConfig, TargetSpec], Judge] = _make_judge
    make_proposer: Callable[[RunConfig, Operator, TargetSpec], Proposer] = _make_proposer
    make_policy: Callable[[RunConfig], Policy] = _make_policy
    learn: Callable[[RunState, Operator], list[LessonLearned]] = _learn
    lookahead: int = 1 + BUILD_THREADS
