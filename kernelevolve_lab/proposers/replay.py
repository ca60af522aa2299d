"""The proposer `replay`: proposes again what a recorded run proposed, request by request, without a model.

With the recorded judge (`search.recorded`) it drives a whole search again, the same course each time; with the real judge it measures a
recorded run's candidates anew, on this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.base import Proposal, ProposalRequest
from kernelevolve_lab.records import Evaluation, TargetSpec
from kernelevolve_lab.records.events import (
    BaselineCase,
    BaselinesMeasured,
    CandidateProposed,
    EvaluationFinished,
    Logged,
    ProposalFailed,
    RunStarted,
    TargetMeasured,
)
from kernelevolve_lab.records.run import RunConfig


@dataclass
class Recording:
    """What a run's log holds, arranged by what asks for it: answers by the request's number, evaluations (first, final) by candidate."""

    config: RunConfig
    title: str
    target: TargetSpec | None = None
    baselines: dict[str, tuple[BaselineCase, ...]] = field(default_factory=dict)
    answers: dict[int, CandidateProposed | ProposalFailed] = field(default_factory=dict)
    first: dict[str, Evaluation] = field(default_factory=dict)
    final: dict[str, Evaluation] = field(default_factory=dict)

    @classmethod
    def of(cls, log: Iterable[Logged]) -> Recording:
        """Arrange a log; raises `BadInput` for one that does not begin with the start of a run."""
        events = [logged.event for logged in log]
        if not events or not isinstance(events[0], RunStarted):
            raise BadInput("The recording is empty: it does not begin with the start of a run.")
        recording = cls(events[0].config, events[0].title)
        for event in events:
            match event:
                case TargetMeasured():
                    recording.target = event.target
                case BaselinesMeasured():
                    for baseline in event.baselines:
                        recording.baselines[baseline.name] = (*recording.baselines.get(baseline.name, ()), baseline)
                case CandidateProposed() | ProposalFailed() if event.index is not None:
                    recording.answers.setdefault(event.index, event)
                case EvaluationFinished():
                    kept = recording.final if event.evaluation.final else recording.first
                    kept.setdefault(event.evaluation.candidate, event.evaluation)
        return recording


def create(operator: Operator, target: TargetSpec, language: str, options: Mapping[str, object], seed: int) -> ReplayProposer:
    """The proposer for option `run`: a recorded run's id in the default store (or the one that `store` names), or the path of a run's file.

    Raises `BadInput` where that run is of another operator or language.
    """
    unknown = sorted(set(options) - {"run", "store"})
    if unknown or not options.get("run"):
        what = f"has no option '{unknown[0]}'" if unknown else "needs the option 'run'"
        raise BadInput(f"The replay proposer {what}; name the recorded run: run=<id or file>.")
    recording = Recording.of(_log(str(options["run"]), str(options["store"]) if options.get("store") else None))
    if (recording.config.operator.name, recording.config.language) != (operator.name, language):
        recorded = f"{recording.config.operator.name} in {recording.config.language}"
        raise BadInput(f"The recorded run is of {recorded}, not of {operator.name} in {language}; choose those, or another recording.")
    return ReplayProposer(recording)


def _log(run: str, url: str | None) -> Sequence[Logged]:
    from kernelevolve_lab.store import Store
    from kernelevolve_lab.store.bundle import SUFFIX, read_run

    if run.endswith(SUFFIX):
        return read_run(run)
    store = Store.open(url)
    try:
        return store.read(store.find(run))
    finally:
        store.close()


class ReplayProposer:
    """Answers request n with what the recording answered to request n. Tokens and cost are those of the recording. With `judged_only` a
    candidate that the recording does not judge (a person rejected it, or stopped the run, before its turn came) is none."""

    name = "replay"
    concurrency = 1

    def __init__(self, recording: Recording, judged_only: bool = False) -> None:
        self._recording, self._judged_only = recording, judged_only
        self._last = max(recording.answers, default=-1)

    async def propose(self, request: ProposalRequest) -> Proposal:
        """The recorded answer; exhausted after the last one."""
        if request.index > self._last:
            return Proposal(None, "the recording ends here", exhausted=True)
        answer = self._recording.answers.get(request.index)
        if answer is None:
            return Proposal(None, f"the recording has no answer to request {request.index}")
        candidate, reason = (None, answer.reason) if isinstance(answer, ProposalFailed) else (answer.candidate, "")
        if candidate and self._judged_only and candidate.id not in self._recording.first | self._recording.final:
            candidate, reason = None, f"the recording holds no evaluation of {candidate.id}"
        return Proposal(
            candidate,
            reason=reason,
            prompt=answer.prompt,
            reply=answer.reply,
            model=answer.model,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            cost=answer.cost,
        )

    async def close(self) -> None:
        """There is nothing to release."""
