"""Is it right? One check of one candidate on one set of inputs, and what to say about it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kernelevolve_lab.harness.memory import BIG_POISON, NAN_POISON
from kernelevolve_lab.harness.reference import Comparison, InputSet, Reference
from kernelevolve_lab.harness.session import Session
from kernelevolve_lab.records import ErrorStats


@dataclass(frozen=True)
class Checked:
    """The outcome of a check: right or not and why not, the error, whether two runs agreed bit by bit, seconds of the first call."""

    ok: bool
    reason: str
    error: ErrorStats
    deterministic: bool
    seconds: float


def check(session: Session, reference: Reference, drawn: InputSet, timeout: float, rng: np.random.Generator, twice: bool = True) -> Checked:
    """Run with poisoned outputs and compare with the golden, the process frozen as soon as it has returned; `twice` runs again with other
    poison.

    The second run is compared through bit equality with the first where that holds; otherwise in full, so a kernel that differs from run
    to run is right only if every run is within the gate.
    """
    first, second = session.arenas
    first.poison(drawn.outputs, NAN_POISON)
    sprinkled = first.sprinkle(drawn.outputs, rng)
    visit = session.call([drawn], 0, timeout)
    with session.worker.frozen():
        left = first.unwritten(sprinkled)
        found = reference.compare(drawn, session.shown[0], NAN_POISON)
    seconds = visit.reported[0] / 1e9
    if not found.ok:
        return Checked(False, explain(found), found.stats, True, seconds)
    if left > tolerated(sprinkled):
        return Checked(False, f"outputs were written after the call had returned ({late(left, sprinkled)})", found.stats, True, seconds)
    if not twice:
        return Checked(True, "", found.stats, True, seconds)
    second.poison(drawn.outputs, BIG_POISON)
    session.call([drawn], 1, timeout)
    with session.worker.frozen():
        deterministic = reference.same(drawn, *session.shown)
        again = found if deterministic else reference.compare(drawn, session.shown[1], BIG_POISON)
    if not again.ok:
        return Checked(False, f"right in one run and wrong in the next: {explain(again)}", again.stats, False, seconds)
    return Checked(True, "", max(found, again, key=lambda c: c.stats.candidate).stats, deterministic, seconds)


def tolerated(sprinkled: np.ndarray) -> int:
    """How many sprinkled words may still be there: a right output keeps one by a chance of 2^-32, so one of several is let go."""
    return min(1, sprinkled.shape[1] - 1)


def late(left: int, sprinkled: np.ndarray) -> str:
    """The count of words that were still there."""
    return f"{left} of {sprinkled.shape[1]} sampled words were still unwritten then"


def explain(found: Comparison) -> str:
    """What is wrong, in one sentence with numbers; tells values of the worst element only, never inputs or seeds."""
    stats = found.stats
    where = f"output {stats.worst_output} at {list(stats.worst_index)}"
    if found.unwritten:
        return f"{found.unwritten} of {found.numel} output elements were never written, or computed from what was in them (worst: {where})"
    if stats.gate == 0.0:
        worst = f"{where}: {_number(stats.got)}, not {_number(stats.expected)}"
        return f"{stats.candidate:.0f} elements are wrong where results must be exact ({worst})"
    if not math.isfinite(stats.candidate):
        return f"{where} is {_number(stats.got)}, not {_number(stats.expected)}"
    return (
        f"error {stats.candidate:.3g} against the float64 golden (beside its row and itself) passes the gate of {stats.gate:.3g}; "
        f"worst: {where} is {_number(stats.got)}, not {_number(stats.expected)}"
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"
