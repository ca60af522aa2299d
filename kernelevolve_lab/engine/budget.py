"""When a run has used up its budget."""

from kernelevolve_lab.records.run_state import RunState

# The last part of a bounded time belongs to measuring the finalists again: as long as that has to be expected to take, but no more than
# this.
RESERVED = 0.15


def spent(state: RunState, now: float, finals_seconds: float = 0.0) -> str | None:
    """Why the run must end now, in words, or None while it may go on. `finals_seconds` is how long the final measurements will take."""
    budget = state.budget
    if budget.candidates is not None and state.judged >= budget.candidates:
        return f"{state.judged} candidates were judged."
    if budget.seconds is not None:
        reserve = min(finals_seconds, RESERVED * budget.seconds)
        if state.active(now) >= budget.seconds - reserve:
            return f"The time of {budget.seconds:g} s is used up."
    if budget.stall is not None and state.since_best >= budget.stall:
        return f"{state.since_best} candidates in a row brought no new best."
    if budget.fitness is not None and state.best and state.best.fitness >= budget.fitness:
        return f"The aim is reached: {state.best.fitness:.2f}x, asked for was {budget.fitness:g}x."
    return None


def out_of_money(state: RunState) -> str | None:
    """Why nothing more may be asked for; what was paid for already is still judged."""
    if state.budget.cost is not None and state.cost >= state.budget.cost:
        return f"The money is used up: ${state.cost:.4f} of ${state.budget.cost:.4f}."
    return None


def room(state: RunState, in_flight: int) -> bool:
    """Whether one more candidate may be asked for, besides those proposed, those waiting for the judge and `in_flight` requests."""
    budget = state.budget
    if out_of_money(state):
        return False
    waiting = sum(entry.evaluation is None and not entry.banned for entry in state.entries.values())
    return budget.candidates is None or state.judged + waiting + in_flight < budget.candidates
