"""A verdict that a person appealed: the candidate is judged again by a judge of its own, from scratch.

In a run that goes on, the bench takes an appeal up before the next candidate; where the run has ended, `engine.hearing` does.
"""

from collections.abc import Callable

from kernelevolve_lab.engine.services import Judge
from kernelevolve_lab.records import Candidate, Evaluation, Verdict
from kernelevolve_lab.records.events import EvaluationFinished, Event, SteeringApplied
from kernelevolve_lab.records.run import Appeal
from kernelevolve_lab.records.run_state import Request, RunState


def first_appeal(state: RunState) -> Request | None:
    """The oldest appeal that was not heard yet, or None."""
    return next((request for request in state.pending_requests if isinstance(request.command, Appeal)), None)


def judge_again(make_judge: Callable[[], Judge], candidate: Candidate, cancelled: Callable[[], bool]) -> Evaluation:
    """Judge a candidate with the settings of a finalist in processes that have judged nothing before, on inputs from fresh seeds; blocks.
    Raises what the judge raises."""
    judge = make_judge()
    try:
        judge.open(lambda text: None)
        return judge.evaluate(candidate, final=True, cancelled=cancelled)
    finally:
        judge.close()


def heard(state: RunState, request: Request, evaluation: Evaluation) -> list[Event]:
    """What goes into the log: the verdict and what it means, or that none was reached, in which case the one before stands."""
    entry = state.entries[request.command.candidate]
    before = entry.evaluation.verdict.value
    if evaluation.verdict is Verdict.INFRA_ERROR:
        note = f"{entry.id} could not be judged again, so its verdict stands ({before}): {'; '.join(evaluation.reasons)}"
        return [SteeringApplied(request=request.seq, note=note)]
    found = evaluation.verdict.value
    note = f"{entry.id} was judged again from scratch: {f'still {found}' if found == before else f'{found}, before {before}'}."
    return [EvaluationFinished(evaluation=evaluation, appeal=request.seq), SteeringApplied(request=request.seq, note=note)]
