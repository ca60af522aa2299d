"""The input sets that the judge has ready: drawn from secret seeds, shared by the candidates of a run, and drawn anew over time.

No candidate process can tell another what it saw (it dies with its memory, has nothing to write to, and what it left in the output arenas
is cleared), so a set may serve many of them. Each meets a set in a timed call once: that is what keeps a kernel from replaying an answer.
"""

from __future__ import annotations

import random
from typing import Any

from kernelevolve_lab.harness.reference import InputSet, Reference
from kernelevolve_lab.harness.settings import JudgeSettings
from kernelevolve_lab.records import Case

GOLDEN = 2
"""Sets of a case that have a float64 golden: one for the check before a process is timed, one for a full check of a timed call."""
SMALL_BYTES = 2 << 20
"""Of sets up to this size several times as many are kept: calls are short then, and need more of them."""
HELD_OUT_SETS = 8


class InputPool:
    """Sets by case: for timing (the case's own distribution) and for checks (any distribution)."""

    def __init__(self, reference: Reference, cases: tuple[Case, ...], settings: JudgeSettings):
        self._reference = reference
        self._settings = settings
        self._cases = cases
        self._timing: dict[str, list[InputSet]] = {case.name: [] for case in cases}
        self._checks: dict[tuple[str, str], InputSet] = {}
        self._random = random.SystemRandom()

    def adopt(self, drawn: InputSet) -> None:
        """Take over a set that was drawn elsewhere as one for timing."""
        self._timing[drawn.case.name].append(drawn)

    def timing(self, case: Case) -> list[InputSet]:
        """The sets to time a case with, in a new random order; at least three of them, or as many as `pool_bytes` allows."""
        kept = self._timing[case.name]
        while len(kept) < self._wanted(case):
            kept.append(self._reference.draw(case, golden=len(kept) < GOLDEN))
        return self._random.sample(kept, len(kept))

    def check(self, case: Case, distribution: str) -> InputSet:
        """A set with a golden under that distribution."""
        if distribution == case.distribution:
            kept = self._timing[case.name]
            if not kept:
                kept.append(self._reference.draw(case, golden=True))
            chosen = self._random.choice([drawn for drawn in kept if drawn.has_golden] or kept)
            self._reference.expect(chosen)
            return chosen
        key = (case.name, distribution)
        if key not in self._checks:
            self._checks[key] = self._reference.draw(case.model_copy(update={"distribution": distribution}), golden=True)
        return self._checks[key]

    def refresh(self) -> None:
        """Draw one set anew, chosen at random among all that are there."""
        timing = [(kept, index) for kept in self._timing.values() for index in range(len(kept))]
        checks = [(self._checks, key) for key in self._checks]
        if timing or checks:
            self._redraw(*self._random.choice([*timing, *checks]))

    def renew(self) -> None:
        """Draw all sets anew."""
        for kept in (*self._timing.values(), self._checks):
            for key in list(kept) if isinstance(kept, dict) else range(len(kept)):
                self._redraw(kept, key)

    def _redraw(self, kept: Any, key: Any) -> None:
        old = kept[key]
        kept[key] = self._reference.draw(old.case, golden=old.has_golden)
        self._reference.drop([old])

    def close(self) -> None:
        """Free all sets here (the worker's end frees them there)."""
        for drawn in (*self._checks.values(), *(drawn for kept in self._timing.values() for drawn in kept)):
            drawn.close()

    def _wanted(self, case: Case) -> int:
        kept = self._timing[case.name]
        if not kept:
            return GOLDEN
        most = HELD_OUT_SETS if case.held_out else self._settings.pool_sets * (4 if kept[0].size <= SMALL_BYTES else 1)
        share = self._settings.pool_bytes // (len(self._cases) * kept[0].size)
        return max(3, min(most, share))
