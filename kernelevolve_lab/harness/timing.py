"""How fast is it? Candidate and baselines by turns, on the same inputs, until the interval is narrow enough or the time is up.

A round visits the candidate and each baseline once, in random order; a visit is a few calls back to back, each on another input set, timed
in the worker around the bare call. The candidate's visits are witnessed by the judge's own clock; its outputs are sprinkled with random
words before each visit, and looked at as soon as it returns; some visits are compared with the golden. Rounds in which a worker had to
wait for a processor are measured again, as long as there is time.

Cache policy `warm`: inputs and outputs are resident and were last touched by another process, as in a program where one operator's
outputs are the next one's inputs. Both sides reuse the memory of their outputs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from kernelevolve_lab.harness import contention, statistics
from kernelevolve_lab.harness.correctness import explain, late, tolerated
from kernelevolve_lab.harness.locks import Cancelled
from kernelevolve_lab.harness.reference import InputSet, Reference
from kernelevolve_lab.harness.session import Session
from kernelevolve_lab.harness.settings import JudgeSettings

SPRINKLED = 64
"""Random words in each output of each timed call."""


DISTURBED_SHARE = 0.02
"""A round is disturbed when the candidate or the main baseline waited for a processor for more than this share of its time."""
FEWEST_ROUNDS = 5
"""With fewer undisturbed rounds than this the disturbed ones count, too."""


@dataclass(frozen=True)
class Limits:
    """When a case has been timed enough; see `JudgeSettings`."""

    min_rounds: int
    max_rounds: int
    seconds: float
    precision: float
    clear_loss: float
    check_all: bool

    @classmethod
    def of(cls, settings: JudgeSettings, final: bool) -> Limits:
        """The limits of an ordinary or a final round."""
        if final:
            return cls(
                settings.final_min_rounds, settings.final_max_rounds, settings.final_case_seconds, settings.final_precision, 0.0, True
            )
        return cls(settings.min_rounds, settings.max_rounds, settings.case_seconds, settings.precision, settings.clear_loss, False)


class Contender(Protocol):
    """What a candidate is timed against."""

    @property
    def pid(self) -> int:
        """Its process."""

    def visit(self, sets: list[InputSet], turn: int, timeout: float) -> float:
        """Call once per set, back to back; return seconds per call. `turn` counts the rounds."""


@dataclass(frozen=True)
class ReferenceContender:
    """The operator in PyTorch: `eager` or `torch.compile`."""

    reference: Reference
    name: str

    @property
    def pid(self) -> int:
        """See `Contender`."""
        return self.reference.pid

    def visit(self, sets: list[InputSet], turn: int, timeout: float) -> float:
        """See `Contender`."""
        spent = self.reference.time(self.name, sets)
        return sum(spent) / len(spent) / 1e9


@dataclass(frozen=True)
class SessionContender:
    """Another candidate, in a process of its own (or the same kernel again: an A/A comparison). It uses the arena that the candidate
    does not use in that round."""

    session: Session

    @property
    def pid(self) -> int:
        """See `Contender`."""
        return self.session.worker.candidate_pid

    def visit(self, sets: list[InputSet], turn: int, timeout: float) -> float:
        """See `Contender`."""
        arena = 1 - turn % 2
        for drawn in sets:
            self.session.workload(drawn, arena)
        visit = self.session.call(sets, arena, timeout)
        return sum(visit.reported) / len(sets) / 1e9


@dataclass
class CaseTiming:
    """What was measured: seconds per call of each round, by who was timed, and what was wrong, if anything."""

    candidate: list[float] = field(default_factory=list)
    baselines: dict[str, list[float]] = field(default_factory=dict)
    witnessed: list[tuple[float, float]] = field(default_factory=list)  # judge's clock and worker's clock, whole visits
    disturbed: list[bool] = field(default_factory=list)  # rounds in which the candidate or the main baseline waited for a processor
    processor: list[float] = field(default_factory=list)  # processor seconds per second of a visit, all threads together
    fresh: list[float] = field(default_factory=list)
    repeated: list[float] = field(default_factory=list)
    idle: float = 0.0  # processor seconds that the candidate used between visits
    left_at: float = 0.0  # its processor time at the end of the last visit
    wrong: str = ""

    def works_between(self) -> str:
        """What to say about a candidate that computes while it is not called, if this one does: it steals from the baselines' time, or
        does its work when nobody looks."""
        used = sum(share * seconds for share, (_, seconds) in zip(self.processor, self.witnessed, strict=True))
        if self.idle <= 0.1 * used + 1e-4 * len(self.candidate):
            return ""
        return f"it used {self.idle * 1e3:.1f} ms of processor time while it was not being called ({used * 1e3:.1f} ms while it was)"

    def undisturbed(self, rounds: Sequence[float]) -> list[float]:
        """The values of undisturbed rounds; of all, where too few were left alone."""
        kept = [value for value, bad in zip(rounds, self.disturbed, strict=False) if not bad]
        return kept if len(kept) >= FEWEST_ROUNDS else list(rounds)

    def ratios(self, baseline: str) -> list[float]:
        """Baseline time over candidate time, by undisturbed rounds."""
        return self.undisturbed([b / c for b, c in zip(self.baselines[baseline], self.candidate, strict=False)])


def time_baseline(reference: Reference, sets: Sequence[InputSet], baseline: str, calls: int = 7) -> list[float]:
    """Seconds of single calls of a baseline alone, after one that is not counted; for display and to size visits."""
    order = [sets[i % len(sets)] for i in range(calls + 1)]
    return [ns / 1e9 for ns in reference.time(baseline, order)[1:]]


def time_case(
    session: Session,
    reference: Reference,
    sets: Sequence[InputSet],
    baselines: dict[str, tuple[Contender, float]],
    estimate: float,
    limits: Limits,
    settings: JudgeSettings,
    timeout: float,
    cancelled: Callable[[], bool],
) -> CaseTiming:
    """Time one case. `baselines` gives by name who it is timed against, with the expected seconds of one call, the main one first;
    `estimate` is the candidate's."""
    lot = random.SystemRandom()
    rng = np.random.default_rng(lot.getrandbits(64))
    main = next(iter(baselines))
    found = CaseTiming(baselines={name: [] for name in baselines})
    calls = {name: _calls(seconds, settings) for name, (_, seconds) in baselines.items()} | {"": _calls(estimate, settings)}
    golden = [drawn for drawn in sets if drawn.has_golden]
    check_at = lot.randrange(limits.min_rounds)
    started = time.monotonic()
    for number in range(limits.max_rounds):
        if cancelled():
            raise Cancelled
        # Beside the main baseline the others get the first rounds only: they are shown, not ranked by.
        names = ["", *(name for name in baselines if name == main or number < limits.min_rounds)]
        order = lot.sample(list(sets), len(sets))
        checked = golden and (limits.check_all or number == check_at)
        if checked:
            last = lot.choice(golden)
            order = [*(drawn for drawn in order if drawn is not last), last]
        disturbed = False
        for name in lot.sample(names, len(names)):
            visit_sets = [order[-1 - i % len(order)] for i in reversed(range(calls[name]))]
            pid = baselines[name][0].pid if name else session.worker.candidate_pid
            waited, began = contention.waited(pid), time.perf_counter()
            if name:
                found.baselines[name].append(baselines[name][0].visit(visit_sets, number, timeout))
            elif wrong := _visit(session, visit_sets, number % 2, found, rng, timeout):
                found.wrong = wrong
                return found
            kept_waiting = contention.waited(pid) - waited > DISTURBED_SHARE * (time.perf_counter() - began)
            disturbed |= kept_waiting and name in ("", main)
            if not name and checked and (wrong := _compare(session, reference, visit_sets, number % 2)):
                found.wrong = wrong
                return found
        found.disturbed.append(disturbed)
        calls[""] = _calls(float(np.median(found.candidate)), settings)
        spent = time.monotonic() - started
        if number + 1 >= limits.min_rounds and (found.disturbed.count(False) >= limits.min_rounds or spent > 2 * limits.seconds):
            low, high = statistics.rank_interval(found.ratios(main))
            narrow = (high - low) / 2 <= limits.precision * (low + high) / 2
            if high < limits.clear_loss or narrow or spent > limits.seconds:
                break
    return found


def _visit(session: Session, sets: list[InputSet], index: int, found: CaseTiming, rng: np.random.Generator, timeout: float) -> str:
    # The arenas take turns: where the pages of an output lie can make a kernel a few percent faster or slower.
    if found.candidate:
        found.idle += session.worker.cpu_nanoseconds() / 1e9 - found.left_at
    for drawn in sets:
        session.workload(drawn, index)  # mapping a new set is no part of the visit
    arena, places, seen = session.arenas[index], session.places(sets, index), set(session.seen)
    last = {written[0].offset if written else 0: written for written in places}  # of calls that share a place the last one counts
    sprinkled = [arena.sprinkle(written, rng, SPRINKLED) for written in last.values()]
    visit = session.call(sets, index, timeout)
    found.left_at = session.worker.cpu_nanoseconds() / 1e9
    for words in sprinkled:
        left = arena.unwritten(words)
        if left > tolerated(words):
            return f"outputs were not written when a timed call returned ({late(left, words)})"
    for drawn, nanoseconds in zip(sets, visit.reported, strict=True):
        (found.repeated if drawn.id in seen else found.fresh).append(nanoseconds / 1e9)
        seen.add(drawn.id)
    spent = sum(visit.reported) / 1e9
    found.candidate.append(spent / len(sets))
    found.witnessed.append((visit.witnessed / 1e9, spent))
    found.processor.append(visit.processor / 1e9 / max(1e-9, spent))
    return ""


def _compare(session: Session, reference: Reference, sets: list[InputSet], index: int) -> str:
    """What is wrong with the outputs of the last call of the visit that has just ended, if anything is."""
    with session.worker.frozen():
        found = reference.compare(sets[-1], session.shown[index], None, session.places(sets, index)[-1])
    return "" if found.ok else f"wrong in a timed call, though right when it was checked: {explain(found)}"


def _calls(seconds: float, settings: JudgeSettings) -> int:
    """How many calls make a visit."""
    return max(1, min(64, round(settings.visit_seconds / max(seconds, 1e-7))))
