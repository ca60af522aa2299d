"""A search driven by a recording: its judge and its proposer give the recorded answers, so that the course is the same each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kernelevolve_lab.engine.services import Services
from kernelevolve_lab.languages.base import Build
from kernelevolve_lab.proposers.replay import Recording, ReplayProposer
from kernelevolve_lab.records import Candidate, Evaluation, Evidence, Verdict
from kernelevolve_lab.records.events import BaselineCase


def shipped() -> dict[str, Path]:
    """The recordings of real runs that come with this package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "recordings").glob("*.kevrun"))}


class RecordedJudge:
    """Finds what the recording found; a candidate that it does not know gets `infra_error`. See `engine.services.Judge`."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.target = recording.target
        self.baseline_note = "the recording has none"

    def open(self, progress: Callable[[str], None]) -> None:
        progress("This is a replay: evaluations come from a recording, nothing is measured.")

    def baselines(self, name: str) -> tuple[BaselineCase, ...]:
        return self._recording.baselines.get(name, ())

    def build(self, candidate: Candidate) -> Build:
        known = self._recording.first.get(candidate.id) or self._recording.final.get(candidate.id)
        broken = known is None or known.verdict is Verdict.BUILD_FAILED
        return Build(None if broken else Path("recorded"), known.diagnostics if known else (), 0.0, cached=True)

    def evaluate(
        self, candidate: Candidate, build: Build | None = None, *, final: bool = False, cancelled: Callable[[], bool] = lambda: False
    ) -> Evaluation:
        first, last = self._recording.first.get(candidate.id), self._recording.final.get(candidate.id)
        found = (last or first) if final else (first or last)
        if found is None:
            return Evaluation(
                candidate=candidate.id,
                target=self._recording.config.target,
                language=candidate.language,
                verdict=Verdict.INFRA_ERROR,
                evidence=Evidence.COMPILED,
                reasons=("the recording holds no evaluation of this candidate",),
            )
        return found.model_copy(update={"final": final})

    def close(self) -> None:
        """There is nothing to release."""


def recorded_services(recording: Recording, services: Services | None = None) -> Services:
    """Services whose judge, target and proposer are the recording's, and that learn nothing; the others stay those of `services`.
    Nothing is asked for ahead, so that the course does not depend on how long anything takes. What people did in the recorded run is not
    done again: nobody steers, whom they rejected is not rejected, and what they enqueued is missing."""
    return replace(
        services or Services(),
        resolve_target=lambda name: recording.target,
        measure_target=lambda target, progress: target,
        make_judge=lambda config, target: RecordedJudge(recording),
        make_proposer=lambda config, operator, target: ReplayProposer(recording, judged_only=True),
        learn=lambda state, operator: [],
        lookahead=0,
    )
