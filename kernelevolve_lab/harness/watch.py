"""Whether a candidate has PyTorch do in its calls what it does not have it do under the dispatch trace.

The trace (`trace.py`) tells which operators a call uses and what for, but a candidate can notice it. The counter (`operator_counter.py`)
tells how often each is called, in every visit; so what a candidate has PyTorch compute where it is timed must have been seen in the trace.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kernelevolve_lab.harness.policy import Policy, Traced, listed
from kernelevolve_lab.harness.sampling import Samples, weigh
from kernelevolve_lab.harness.workers import CandidateCheats

if TYPE_CHECKING:
    from kernelevolve_lab.harness.reference import InputSet
    from kernelevolve_lab.harness.session import Session

_VISITS = 3
"""In so many visits it must have been: a candidate may try what is faster when it meets a shape for the first time."""
_MOMENTS, _DECISIVE, _WATCHED_SECONDS = 64, 16, 4.0
"""How many moments are enough where no library was found to compute, how many with somebody computing where one was, and where looking
ends at the latest: threads that wait for others by spinning tell nothing."""


class OperatorWatch:
    """The watch over one candidate in all its processes. `composite` are operators that only call others, which are counted, too."""

    def __init__(self, policy: Policy, composite: frozenset[str]):
        self._policy = policy
        self._composite = composite
        self._traced: dict[str, Counter[str]] = {}
        self._visits: Counter[str] = Counter()

    def traced(self, case: str, found: Traced) -> Traced:
        """What one call of a case had PyTorch do under the trace; returns it with what the trace did not see, if it saw nothing."""
        if found.reached is None:
            return found
        reached = self._computing(found.reached)
        if self._policy.mode == "replace":  # otherwise nothing is allowed, whether the trace sees it or not
            self._traced[case] = reached
        if self._policy.computing(found.counts) or not reached:
            return found
        return replace(found, counts=reached, made_outside=True)  # another thread, or modes switched off

    def visited(self, case: str, operators: Mapping[str, int] | None, calls: int) -> None:
        """What a visit of so many calls had PyTorch do; raises `CandidateCheats` where that is more than under the trace, again and
        again. Where PyTorch may do a part, nothing is said of visits before the trace."""
        if operators is None or self._policy.mode == "allow" or (self._policy.mode == "replace" and case not in self._traced):
            return
        seen = self._traced.get(case, Counter())
        more = [name for name, count in self._computing(operators).items() if count > seen[name] * calls]
        if not more:
            return
        self._visits[case] += 1
        if self._visits[case] >= _VISITS:
            raise CandidateCheats(f"PyTorch computes for it ({listed(more)}) in calls that are not traced, and not in one that is")

    def _computing(self, operators: Mapping[str, int]) -> Counter[str]:
        return Counter({name: n for name, n in self._policy.computing(operators).items() if name not in self._composite})


def foreign_code(session: Session, sets: Sequence[InputSet], calls: int, policy: Policy, timeout: float) -> str:
    """Whether libraries compute for a candidate beside PyTorch's dispatcher: visits of so many calls, as the timed ones have, in which the
    process is looked at now and then."""
    found, operators, began = Samples(), Counter[str](), time.monotonic()
    moments = turn = 0
    while policy.mode != "allow" and time.monotonic() - began < _WATCHED_SECONDS:
        foreign = found.foreign.total()
        if turn >= _MOMENTS if not foreign else found.own + foreign >= _DECISIVE:
            break
        visit, samples = session.watched([sets[(turn + i) % len(sets)] for i in range(calls)], 0, timeout)
        if samples is None:
            return ""
        seen = weigh(session.worker.candidate_pid, samples, policy.libraries)
        found.own, found.foreign, moments = found.own + seen.own, found.foreign + seen.foreign, moments + len(samples)
        operators.update(visit.operators or {})
        turn = max(turn + 1, moments)
    return policy.offence_in(found, operators)
