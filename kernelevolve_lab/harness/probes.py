"""Probes: what a kernel does that its results do not show. Each returns a sentence with numbers when it found something, else nothing.

They decide by behaviour and never by the look of a source; each finding is repeated before it counts, because machines are noisy.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from kernelevolve_lab.harness.correctness import explain
from kernelevolve_lab.harness.memory import NAN_POISON
from kernelevolve_lab.harness.reference import InputSet, Reference
from kernelevolve_lab.harness.session import Session

_WITNESS_SECONDS = 2e-3
_IDLE_SECONDS = 4e-3
_REPLAY_GAIN = 1.5


def second_witness(session: Session, sets: Sequence[InputSet], seconds: float, share: float, timeout: float) -> str:
    """Whether the time that the worker reports is the time that passes.

    Visits of n and of 2n calls: whatever a visit costs beside its calls is the same for both, so the difference of what the judge's clock
    sees and what the worker reports must not grow with n. `seconds` is the reported time of a call, `share` the part of the witnessed
    time that must at least be reported.
    """
    for attempt in range(2):
        count = max(1, min(512, round(_WITNESS_SECONDS * (attempt + 1) / max(seconds, 1e-7))))
        hidden: dict[int, list[float]] = {count: [], 2 * count: []}
        reported: list[float] = []
        for _ in range(3 + 2 * attempt):
            for calls, found in hidden.items():
                visit = session.call([sets[i % len(sets)] for i in range(calls)], 0, timeout)
                found.append((visit.witnessed - sum(visit.reported)) / 1e9)
                reported.append(sum(visit.reported) / calls / 1e9)
        told = float(np.median(reported))
        extra = (min(hidden[2 * count]) - min(hidden[count])) / count
        if extra <= told * (1 / share - 1) + 1e-6:
            return ""
    return (
        f"its clock and the judge's disagree: it reports {told * 1e6:.3g} µs per call where {(told + extra) * 1e6:.3g} µs pass "
        "(visits of n and 2n calls)"
    )


def works_on(session: Session, drawn: InputSet, seconds: float, timeout: float) -> str:
    """Whether threads keep computing after the kernel has returned: work that was put off, or threads that spin and so take the
    processor from whoever is measured next."""
    window = max(_IDLE_SECONDS, min(2 * seconds, 0.05))
    for _ in range(3):
        session.call([drawn], 0, timeout)
        time.sleep(3e-4)  # going to sleep takes a moment
        before = session.worker.cpu_nanoseconds()
        time.sleep(window)
        used = (session.worker.cpu_nanoseconds() - before) / 1e9
        if used < 1.5e-4 + 0.05 * window:
            return ""
    return f"its threads keep computing after it has returned ({used * 1e6:.0f} µs of processor time in the {window * 1e6:.0f} µs after)"


def stale_addresses(session: Session, reference: Reference, first: InputSet, second: InputSet, timeout: float) -> str:
    """Whether the kernel takes what lies at an address that it knows for what lay there before: two sets by turns at one place. Both need
    goldens and one size."""
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
            found = reference.compare(drawn, session.shown[0], NAN_POISON)
        if not found.ok:
            return f"wrong when new contents lie {'at an address that it had seen' if address in known else 'elsewhere'}: {explain(found)}"
        known.add(address)
        session.forget(drawn)
    return ""


def replays(session: Session, seen: Sequence[InputSet], fresh: Sequence[InputSet], timeout: float) -> str:
    """Whether the kernel is faster on contents that it has seen before: the fastest call on new contents against the median of the others,
    since whatever else happens on the machine only slows calls down. Both kinds are mapped anew and read by the judge right before each
    call, so that they are in the same caches and neither has its addresses known."""
    for drawn in seen:
        session.call([drawn], 0, timeout)
    times: tuple[list[int], list[int]] = ([], [])
    for index, new in enumerate(fresh):
        old = seen[index % len(seen)]
        session.forget(old)
        for kind, drawn in enumerate((old, new)):
            session.workload(drawn, 0)
            drawn.touch()
            times[kind].append(session.call([drawn], 0, timeout).reported[0])
    old_time, new_time = float(np.median(times[0])), min(times[1])
    if new_time < _REPLAY_GAIN * old_time or new_time - old_time < 1e4:
        return ""
    told = f"{old_time / 1e3:.0f} µs, new ones at least {new_time / 1e3:.0f} µs"
    return f"{new_time / old_time:.1f} times as fast on inputs that it has seen before ({told})"
