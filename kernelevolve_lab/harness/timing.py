"""How fast is it? Candidate and baselines by turns, on the same inputs, until the interval is narrow enough or the time is up.

A round visits the candidate and each baseline once; a visit is a few calls back to back, each on another input set, timed in the worker
around the bare call. Candidate and main baseline go first by turns, in random pairs of rounds, so that neither order nor drift favours one.

No answer can be replayed: in a timed call a process meets contents that it has never seen, and only such calls count. When a process has
seen all sets, another is started that has seen none. A few calls on contents seen before are timed beside the first ones, to tell by the
difference who tries. The candidate is stopped (SIGSTOP) whenever it is not its turn, so it cannot compute, or take the processor from a
baseline, in somebody else's.

What was timed is checked: outputs are sprinkled with random words before each visit and looked at as soon as it returns; some thousand
elements of every timed call are compared with what the reference gives, and whole outputs with the golden once in each process. The
candidate's visits are witnessed by the judge's own clock. Rounds in which a worker had to wait for a processor are measured again, as
long as there is time.

Cache policy `warm`: inputs were just read by another process, outputs written by one, as in a program where one operator's outputs are
the next one's inputs. For `cold` see `cold.py`. Both sides reuse the memory of their outputs.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from kernelevolve_lab.harness import contention, statistics
from kernelevolve_lab.harness.correctness import explain, late, tolerated
from kernelevolve_lab.harness.locks import Cancelled
from kernelevolve_lab.harness.reference import InputSet, Reference
from kernelevolve_lab.harness.session import Session
from kernelevolve_lab.harness.settings import JudgeSettings
from kernelevolve_lab.harness.workers import Visit

VISIT_BYTES = 64 << 20
"""Room for the outputs of a visit: each of its calls has a place of its own, so that what each wrote can be looked at."""
SPRINKLED = 64
"""Random words in each output of each timed call."""
DISTURBED_SHARE = 0.02
"""A round is disturbed when the candidate or the main baseline waited for a processor for more than this share of its time."""
FEWEST_ROUNDS = 6
"""With fewer undisturbed rounds than this the disturbed ones count, too."""
LOOKS = (6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""After how many rounds it is asked whether they suffice: not after each, since who looks often enough sees a narrow interval by luck."""
REPEATS = 3
"""Calls of each case on contents that the process has seen before."""


@dataclass(frozen=True)
class Limits:
    """When a case has been timed enough; see `JudgeSettings`."""

    min_rounds: int
    max_rounds: int
    seconds: float
    precision: float
    clear_loss: float
    cold_rounds: int = 0

    @classmethod
    def of(cls, settings: JudgeSettings, final: bool) -> Limits:
        """The limits of an ordinary or a final round."""
        if final:
            return cls(
                settings.final_min_rounds,
                settings.final_max_rounds,
                settings.final_case_seconds,
                settings.final_precision,
                0.0,
                settings.cold_rounds,
            )
        return cls(settings.min_rounds, settings.max_rounds, settings.case_seconds, settings.precision, settings.clear_loss)


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


@dataclass
class SessionContender:
    """Another candidate, in a process of its own (or the same kernel again: an A/A comparison). It uses the arena that the candidate
    does not use in that round, and takes a new process when it has seen a set before."""

    session: Session
    renew: Callable[[], Session]

    @property
    def pid(self) -> int:
        """See `Contender`."""
        return self.session.worker.candidate_pid

    def visit(self, sets: list[InputSet], turn: int, timeout: float) -> float:
        """See `Contender`."""
        if self.session.seen.intersection(drawn.id for drawn in sets):
            self.session = self.renew()
        arena = 1 - turn % 2
        for drawn in sets:
            self.session.workload(drawn, arena)
        visit = self.session.call(sets, arena, timeout)
        return sum(visit.reported) / len(sets) / 1e9


class TimedVisit(NamedTuple):
    """A visit of the candidate: seconds that the judge's clock saw and that the worker told, and how many calls it was."""

    seen: float
    told: float
    calls: int

    @classmethod
    def of(cls, visit: Visit) -> TimedVisit:
        """What a worker and its witness say of a visit. A forged clock may say that no time has passed."""
        return cls(visit.witnessed / 1e9, max(1, sum(visit.reported)) / 1e9, len(visit.reported))


@dataclass
class CaseTiming:
    """What was measured: seconds per call of each round, by who was timed, and what was wrong, if anything."""

    candidate: list[float] = field(default_factory=list)
    baselines: dict[str, list[float]] = field(default_factory=dict)
    visits: list[TimedVisit] = field(default_factory=list)
    disturbed: list[bool] = field(default_factory=list)  # rounds in which the main baseline waited for a processor
    waited: list[bool] = field(default_factory=list)  # rounds in which the candidate did
    processor: list[float] = field(default_factory=list)  # processor seconds per second of a visit, all threads together
    early: float = 0.0  # processor seconds that the candidate used after inputs were mapped and before it was called
    stopped: float = 0.0  # processor seconds that it used after it had been stopped
    again: list[tuple[float, float]] = field(default_factory=list)  # one set's first call in a process and a later one
    cold: dict[str, list[float]] = field(default_factory=dict)  # seconds of calls with cold caches, by who was timed
    wrong: str = ""

    @property
    def seems_to_replay(self) -> bool:
        """Whether calls on contents seen before were much faster, so that it is worth a closer look."""
        return len(self.again) >= REPEATS and all(later < 0.75 * first for first, later in self.again[-REPEATS:])

    def works_out_of_turn(self) -> str:
        """What to say about a candidate whose threads compute on inputs that they have found before anybody called the kernel, or that
        compute on when they have been stopped (in the operating system's kernel, where signals have to wait), if this one does."""
        used = sum(share * visit.told for share, visit in zip(self.processor, self.visits, strict=True))
        for seconds, when in ((self.early, "before it was called"), (self.stopped, "when it had been stopped")):
            if seconds > 0.1 * used + 1e-4 * len(self.candidate):
                return f"it used {seconds * 1e3:.1f} ms of processor time {when} ({used * 1e3:.1f} ms while it was called)"
        return ""

    @property
    def left_alone(self) -> list[bool]:
        """By round whether it counts: neither the main baseline nor the candidate waited for a processor. A candidate can make its own
        threads wait, and so choose among its rounds; its waiting is looked at only where it is not much more frequent than the
        baseline's."""
        own = sum(mine and not theirs for mine, theirs in zip(self.waited, self.disturbed, strict=True))
        by_chance = own <= 2 + 2 * sum(self.disturbed)
        return [not theirs and not (mine and by_chance) for mine, theirs in zip(self.waited, self.disturbed, strict=True)]

    def undisturbed(self, rounds: Sequence[float]) -> list[float]:
        """The values of undisturbed rounds; of all, where too few were left alone."""
        kept = [value for value, good in zip(rounds, self.left_alone, strict=False) if good]
        return kept if len(kept) >= FEWEST_ROUNDS else list(rounds)

    def ratios(self, baseline: str) -> list[float]:
        """Baseline time over candidate time, by undisturbed rounds."""
        return self.undisturbed([b / c for b, c in zip(self.baselines[baseline], self.candidate, strict=False)])


def time_baseline(reference: Reference, sets: Sequence[InputSet], baseline: str, calls: int = 7) -> list[float]:
    """Seconds of single calls of a baseline alone, after one that is not counted; for display and to size visits."""
    order = [sets[i % len(sets)] for i in range(calls + 1)]
    return [ns / 1e9 for ns in reference.time(baseline, order)[1:]]


class CaseTimer:
    """Times one case. `baselines` gives by name who the candidate is timed against, with the expected seconds of one call, the main one
    first; `estimate` is the candidate's. `renew` ends the session and starts another, which has made a call but seen no set for timing."""

    def __init__(
        self,
        session: Session,
        renew: Callable[[], Session],
        reference: Reference,
        sets: Sequence[InputSet],
        baselines: dict[str, tuple[Contender, float]],
        estimate: float,
        limits: Limits,
        settings: JudgeSettings,
        timeout: float,
    ):
        self.session = session
        self.found = CaseTiming(baselines={name: [] for name in baselines})
        self._renew = renew
        self._reference = reference
        self._sets = sets
        self._baselines = baselines
        self._main = next(iter(baselines))
        self._limits = limits
        self._timeout = timeout
        self._lot = random.SystemRandom()
        self._rng = np.random.default_rng(self._lot.getrandbits(64))
        self._firsts: dict[int, float] = {}
        self._held = contextlib.ExitStack()  # holds the candidate still while it is open
        quickest = min(estimate, baselines[self._main][1])
        self._largest = max(sets, key=lambda drawn: drawn.arena_size)
        # Short calls are timed several at a time, but so few that one process lasts for the rounds that most candidates get.
        most = min((len(sets) - 1) // limits.min_rounds, VISIT_BYTES // max(1, self._largest.arena_size))
        self._calls = max(1, min(most, round(settings.visit_seconds / max(quickest, 1e-7))))
        self._queue = self._unseen()

    def run(self, cancelled: Callable[[], bool]) -> CaseTiming:
        """Time it. Raises `Cancelled`, and `CandidateFailed` when its process does."""
        started = time.monotonic()
        first = False
        try:
            for number in range(self._limits.max_rounds):
                if cancelled():
                    raise Cancelled
                first = not first if number % 2 else self._lot.random() < 0.5
                self._round(number, first)
                if self.found.wrong or self._enough(time.monotonic() - started):
                    break
        finally:
            self._held.close()
        return self.found

    def run_cold(self, flush: Callable[[], None]) -> None:
        """Rounds of one call of the candidate and one of the main baseline, each with caches that hold none of its inputs: both after one
        flush, on different sets. Adds to `CaseTiming.cold`."""
        main = self._baselines[self._main][0]
        for number in range(self._limits.cold_rounds):
            if not self._queue:
                self.session = self._renew()
                self._queue = self._unseen()
            mine = self._queue.pop()
            other = self._lot.choice([drawn for drawn in self._sets if drawn is not mine])
            self.session.workload(mine, 0)
            flush()
            for name in self._lot.sample(["candidate", self._main], 2):
                if name == "candidate":
                    spent = self.session.call([mine], 0, self._timeout).reported[0] / 1e9
                else:
                    with self.session.worker.frozen():
                        spent = main.visit([other], number, self._timeout)
                self.found.cold.setdefault(name, []).append(spent)

    def _enough(self, spent: float) -> bool:
        limits, rounds = self._limits, len(self.found.candidate)
        if rounds < limits.min_rounds or (sum(self.found.left_alone) < limits.min_rounds and spent <= 2 * limits.seconds):
            return False
        if spent > limits.seconds:
            return True
        if rounds not in LOOKS:
            return False
        ratio = statistics.paired_ratio(self.found.ratios(self._main), self._main)
        return ratio.high < limits.clear_loss or (ratio.high - ratio.low) / 2 <= limits.precision * ratio.value

    def _unseen(self) -> list[InputSet]:
        """The sets that this process has not seen, in random order, one with a golden early among them."""
        order = self._lot.sample(list(self._sets), len(self._sets))
        order = [drawn for drawn in order if drawn.id not in self.session.seen]
        golden = next((drawn for drawn in order if drawn.has_golden), None)
        if golden is not None:
            order.remove(golden)
            order.insert(self._lot.randrange(min(len(order) + 1, self._limits.min_rounds)), golden)
        return order

    def _round(self, number: int, candidate_first: bool) -> None:
        if not self._queue:
            self._held.close()
            self.session = self._renew()
            self._queue = self._unseen()
            self._firsts.clear()
        sets, self._queue = self._queue[: self._calls], self._queue[self._calls :]
        sets.sort(key=lambda drawn: drawn.has_golden)  # the last call of a visit is the one whose output is compared whole
        for drawn in sets:
            drawn.touch()
        # Beside the main baseline the others get the first rounds only: they are shown, not ranked by.
        names = ["", *(name for name in self._baselines if name == self._main or number < self._limits.min_rounds)]
        order = self._lot.sample(names, len(names))
        one, other = order.index(""), order.index(self._main)
        if (one < other) != candidate_first:
            order[one], order[other] = order[other], order[one]
        for name in order:
            if name:
                contender = self._baselines[name][0]
                waited, began = contention.waited(contender.pid), time.perf_counter()
                self.found.baselines[name].append(contender.visit(sets, number, self._timeout))
            else:
                waited, began = contention.waited(self.session.worker.candidate_pid), time.perf_counter()
                self.found.wrong = self._visit(sets, number)
                if self.found.wrong:
                    return
            pid = self._baselines[name][0].pid if name else self.session.worker.candidate_pid
            kept_waiting = contention.waited(pid) - waited > DISTURBED_SHARE * (time.perf_counter() - began)
            if name in ("", self._main):
                (self.found.disturbed if name else self.found.waited).append(kept_waiting)

    def _visit(self, sets: list[InputSet], number: int) -> str:
        """One visit of the candidate; returns what is wrong with it."""
        session, found = self.session, self.found
        index = number % 2  # the arenas take turns: where the pages of an output lie can make a kernel a few percent faster or slower
        self._held.close()
        session.make_room(self._largest, self._calls)
        for drawn in sets:
            session.workload(drawn, index)  # mapping a new set is no part of the visit
        ready = session.worker.cpu_nanoseconds()
        arena, places = session.arenas[index], session.places(sets, index)
        sprinkled = [arena.sprinkle(written, self._rng, SPRINKLED) for written in places]
        found.early += (session.worker.cpu_nanoseconds() - ready) / 1e9
        visit = session.call(sets, index, self._timeout)
        self._held.enter_context(self._stopped(session))
        for words in sprinkled:
            left = arena.unwritten(words)
            if left > tolerated(words):
                return f"outputs were not written when a timed call returned ({late(left, words)})"
        for drawn, written in zip(sets, places, strict=True):
            whole = drawn.has_golden and drawn is sets[-1]
            compared = self._reference.compare(drawn, session.shown[index], None, written, sampled=not whole)
            if not compared.ok:
                return f"wrong in a timed call, though right when it was checked: {explain(compared)}"
        timed = TimedVisit.of(visit)
        found.candidate.append(timed.told / timed.calls)
        found.visits.append(timed)
        found.processor.append(visit.processor / 1e9 / timed.told)
        self._firsts.update((drawn.id, nanoseconds / 1e9) for drawn, nanoseconds in zip(sets, visit.reported, strict=True))
        earlier = [drawn for drawn in self._sets if drawn.id in self._firsts and drawn not in sets]
        if earlier and number < self._limits.min_rounds and len(found.again) < REPEATS:
            self._call_again(self._lot.choice(earlier), index)
        return ""

    @contextlib.contextmanager
    def _stopped(self, session: Session) -> Iterator[None]:
        with session.worker.frozen():
            before = session.worker.cpu_nanoseconds()
            try:
                yield
            finally:
                self.found.stopped += max(0, session.worker.cpu_nanoseconds() - before) / 1e9

    def _call_again(self, drawn: InputSet, index: int) -> None:
        self._held.close()
        again = self.session.call([drawn], index, self._timeout).reported[0] / 1e9
        self._held.enter_context(self._stopped(self.session))
        self.found.again.append((self._firsts[drawn.id], again))
