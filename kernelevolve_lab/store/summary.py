"""What a list of runs shows of each run."""

from typing import Literal

from kernelevolve_lab.records.base import Record
from kernelevolve_lab.records.run_state import RunState, Status

RunStatus = Literal["running", "paused", "interrupted", "finished", "stopped", "failed"]


class RunSummary(Record):
    """One run in a list. `status` is `interrupted` when the run has not ended and no live process drives it. `candidates` counts those
    proposed, `judged` those with an evaluation. `speedup` is the best one's, against `baseline`, of the evidence in `evidence`; None while
    nothing correct was found. Times are seconds since the epoch."""

    id: str
    title: str
    target: str
    language: str
    proposer: str
    policy: str
    status: RunStatus
    reason: str = ""
    created: float
    updated: float
    candidates: int = 0
    judged: int = 0
    best: str | None = None
    speedup: float | None = None
    baseline: str = ""
    evidence: str = ""
    active_seconds: float = 0.0
    cost: float = 0.0
    imported: bool = False


def summarise(state: RunState, *, imported: bool = False) -> RunSummary:
    """The summary of a run that somebody drives; who drives it is not in its events."""
    best = state.best
    ratio = best.evaluation.speedup if best else None
    ended = state.status is Status.ENDED
    return RunSummary(
        id=state.run,
        title=state.title,
        target=state.config.target,
        language=state.config.language,
        proposer=state.config.proposer,
        policy=state.config.policy,
        status=state.outcome if ended else "paused" if state.status is Status.PAUSED else "running",
        reason=state.reason,
        created=state.started_at,
        updated=state.updated_at,
        candidates=len(state.entries),
        judged=state.judged,
        best=state.best_id,
        speedup=ratio.value if ratio else None,
        baseline=ratio.baseline if ratio else "",
        evidence=best.evaluation.evidence if best else "",
        active_seconds=state.active_seconds,
        cost=state.cost,
        imported=imported,
    )
