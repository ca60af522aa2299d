"""Probes: what a kernel does that its results do not show. Each returns a sentence with numbers when it found something, else nothing.

They decide by behaviour and never by the look of a source; each finding is repeated before it counts, because machines are noisy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kernelevolve_lab.harness import contention
from kernelevolve_lab.harness.correctness import explain
from kernelevolve_lab.harness.memory import NAN_POISON
from kernelevolve_lab.harness.reference import InputSet, Reference
from kernelevolve_lab.harness.session import Session
from kernelevolve_lab.harness.timing import TimedVisit

_WITNESS_SECONDS = 2e-3
_WITNESS_ATTEMPTS = 4
_ROUND_TRIP = 1e-4
"""Seconds that a question and its answer may take beside the calls that they are about, before a visit is looked at closely."""
_LONG_VISIT = 3e-3
"""Seconds; in shorter visits too large a part could be hidden in the round trip."""
_HIDDEN_SHARE = 0.05
"""The part of a timed visit that may be hidden, where that is more than what visits differ by."""
_LONGER_AT_LENGTH, _LAUNCH_SECONDS = 2.0, 1.5e-6
"""Calls of a long visit may take so many times as long as those that were timed, and so much longer on a device, which has to start
each."""
_IDLE_SECONDS = 4e-3
_LOOKS = 5
_REPLAY_GAIN = 1.5
_REPLAY_SHARE = 0.8
_REPLAY_PROCESSES = 3


def second_witness(session: Session, sets: Sequence[InputSet], visits: Sequence[TimedVisit], share: float, timeout: float) -> str:
    """Whether the time that the worker reports is the time that passes, call by call; `visits` are the timed ones, `share` the part of the
    witnessed time that must at least be reported.

    A clock that is wrong in some of the calls moves what is reported, but nothing that the judge sees; a busy machine makes what the judge
    sees longer, but never shorter. So each report is held against what was seen of its visit, and the quickest report against the
    quickest visit that was seen, and all are believed where one of the two agrees. Where timed visits are long that decides. Otherwise
    visits of n and of 2n calls do: whatever a visit costs beside its calls is the same for both, so the difference of what the judge's
    clock sees and what the worker reports must not grow with n. (`hides` is about what does not.)
    """
    shown = _Shown.of(visits)
    if shown.usual >= _LONG_VISIT and shown.hidden <= max(_ROUND_TRIP, shown.usual * (1 / share - 1)):
        return ""
    usual, on_device = shown.usual / shown.calls, session.worker.unsteadiness is None
    for attempt in range(_WITNESS_ATTEMPTS):
        count = max(1, min(session.worker.longest_visit, round(_WITNESS_SECONDS * (attempt + 1) / max(usual, 1e-7))))
        made: dict[int, list[TimedVisit]] = {count: [], 2 * count: []}
        with session.worker.steady(2 * count):
            for _ in range(3 + 2 * attempt):
                for calls, found in made.items():
                    found.append(TimedVisit.of(session.call([sets[i % len(sets)] for i in range(calls)], 0, timeout)))
        both = [*made[count], *made[2 * count]]
        quickest, told = (float(pick([visit.told / visit.calls for visit in both])) for pick in (min, np.median))
        if on_device and usual < quickest / _LONGER_AT_LENGTH - _LAUNCH_SECONDS:
            elsewhere = f"{quickest * 1e6:.3g} µs in visits of {count} calls and more"
            return f"it reports {usual * 1e6:.3g} µs per call where it is timed, and {elsewhere}"
        one, two = _Shown.of(made[count]), _Shown.of(made[2 * count])
        extra = min(two.hidden - one.hidden, two.quickest - one.quickest - count * told) / count
        if extra <= told * (1 / share - 1) + session.worker.call_overhead:
            return ""
    return (
        f"its clock and the judge's disagree: it reports {told * 1e6:.3g} µs per call where {(told + extra) * 1e6:.3g} µs pass "
        "(visits of n and 2n calls)"
    )


def hides(
    visits: Sequence[TimedVisit],
    unsteadiness: float,
    beside_empty: Callable[[int], tuple[Sequence[TimedVisit], Sequence[TimedVisit]]],
) -> str:
    """Whether a timed visit hides work outside of its calls: before the first or after the last, or in some of them. `beside_empty` makes
    visits of so many calls once more, in a process that has not seen their contents, by turns with visits of a kernel that does nothing:
    both cost the same beside their calls, but for `unsteadiness` seconds."""
    shown = _Shown.of(visits)
    for _ in range(_WITNESS_ATTEMPTS):
        if shown.hidden <= max(unsteadiness, _HIDDEN_SHARE * shown.usual):
            return ""
        again, empty = beside_empty(shown.calls)
        shown = _Shown.of(again)
        shown = replace(shown, hidden=shown.hidden - _Shown.of(empty).hidden)
    return (
        f"its clock and the judge's disagree where it is timed: it reports {shown.usual * 1e6:.3g} µs for {shown.calls} calls, and "
        f"{shown.hidden * 1e6:.3g} µs more pass than with a kernel that does nothing"
    )


@dataclass(frozen=True)
class _Shown:
    """What visits of one number of calls show: seconds of a whole visit, as they are `usual`ly reported and at their `quickest` seen, and
    what of it is `hidden`: usually, or from the quickest seen to the quickest reported, whichever is less."""

    calls: int
    usual: float
    quickest: float
    hidden: float

    @classmethod
    def of(cls, visits: Sequence[TimedVisit]) -> _Shown:
        """Of the visits with the most calls."""
        calls = max(visit.calls for visit in visits)
        full = [visit for visit in visits if visit.calls == calls]
        usual, hidden = (float(np.median(values)) for values in ([v.told for v in full], [v.seen - v.told for v in full]))
        quickest = min(visit.seen for visit in full)
        return cls(calls, usual, quickest, min(hidden, quickest - min(visit.told for visit in full)))


def works_on(session: Session, drawn: InputSet, seconds: float, timeout: float) -> str:
    """Whether threads keep computing after the kernel has returned: work that was put off, or threads that spin and so take the
    processor from whoever is measured next. Threads that would compute and get no processor on a busy machine count as well."""
    window = max(_IDLE_SECONDS, min(2 * seconds, 0.05))
    for _ in range(3):
        session.call([drawn], 0, timeout)
        time.sleep(3e-4)  # going to sleep takes a moment
        before = session.worker.cpu_nanoseconds()
        busy = True
        for _ in range(_LOOKS):
            time.sleep(window / _LOOKS)
            busy = busy and contention.runnable(session.worker.candidate_pid)
        used = (session.worker.cpu_nanoseconds() - before) / 1e9
        if not busy and used < 1.5e-4 + 0.05 * window:
            return ""
    return f"its threads keep computing after it has returned ({used * 1e6:.0f} µs of processor time in the {window * 1e6:.0f} µs after)"


def stale_addresses(session: Session, reference: Reference, first: InputSet, second: InputSet, timeout: float) -> str:
    """Whether the kernel takes what lies at an address that it knows for what lay there before: two sets of one size by turns at one
    place."""
    for drawn in (first, second):
        if session.address(drawn):
            session.forget(drawn)
    known: set[int] = set()
    for drawn in (first, second, first):
        session.workload(drawn, 0)
        address = session.address(drawn)
        session.arenas[0].poison(drawn.outputs, NAN_POISON)
        session.call([drawn], 0, timeout)
        with session.worker.frozen():
            found = reference.compare(drawn, session.shown[0], NAN_POISON, sampled=True)
        if not found.ok:
            return f"wrong when new contents lie {'at an address that it had seen' if address in known else 'elsewhere'}: {explain(found)}"
        known.add(address)
        session.forget(drawn)
    return ""


def replays(renew: Callable[[], Session], sets: Sequence[InputSet], timeout: float) -> str:
    """Whether the kernel is faster on contents that it has seen before.

    In a new process each set is called for the first time, and again after the next one's first call; each time mapped anew and read by
    the judge right before, so that it is in the same caches and no address is known. A sign test on first against second call of the same
    contents: a set counts where its first call took `_REPLAY_GAIN` times as long. Chance makes that of one set in ten even on a busy
    machine; for a verdict it takes four in five of all sets, in each of three processes (with nine sets each by chance once in 10^15).
    """
    gains: list[float] = []
    for _ in range(_REPLAY_PROCESSES):
        session = renew()
        fresh = [drawn for drawn in sets if drawn.id not in session.seen]
        firsts: list[int] = []
        found: list[float] = []
        for index, drawn in enumerate(fresh):
            firsts.append(_lone_call(session, drawn, timeout))
            if index > 0:
                again = _lone_call(session, fresh[index - 1], timeout)
                found.append(firsts[index - 1] / max(1, again) if firsts[index - 1] - again >= 1e4 else 1.0)
        if not found or sum(gain >= _REPLAY_GAIN for gain in found) < _REPLAY_SHARE * len(found):
            return ""
        gains += found
    return (
        f"{float(np.median(gains)):.1f} times as fast on inputs that it has seen before "
        f"({sum(gain >= _REPLAY_GAIN for gain in gains)} of {len(gains)} input sets)"
    )


def _lone_call(session: Session, drawn: InputSet, timeout: float) -> int:
    session.workload(drawn, 0)
    drawn.touch()
    reported = session.call([drawn], 0, timeout).reported[0]
    session.forget(drawn)
    return reported
