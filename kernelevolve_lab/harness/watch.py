"""Whether a candidate has PyTorch do in its calls what it does not have it do under the dispatch trace.

The trace (`trace.py`) tells which operators a call uses and what for, but a candidate can notice it. The counter (`operator_counter.py`)
tells how often each is called, in every visit; so what a candidate has PyTorch compute where it is timed must have been seen in the trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from kernelevolve_lab.harness.policy import Policy, listed
from kernelevolve_lab.harness.workers import CandidateCheats

_VISITS = 3
"""In so many visits it must have been: a candidate may try what is faster when it meets a shape for the first time."""


class OperatorWatch:
    """The watch over one candidate in all its processes. `composite` are operators that only call others, which are counted, too."""

    def __init__(self, policy: Policy, composite: frozenset[str]):
        self._policy = policy
        self._composite = composite
        self._traced: dict[str, Counter[str]] = {}
        self._visits: Counter[str] = Counter()

    def traced(self, case: str, reached: Mapping[str, int] | None) -> None:
        """What one call of a case had PyTorch do under the trace."""
        if reached is not None:
            self._traced[case] = self._computing(reached)

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
