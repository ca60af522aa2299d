"""A run told on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from kernelevolve_lab.engine.handle import RunHandle
from kernelevolve_lab.records.run_state import RunState, Status

PERIOD = 0.25
QUIET_SECONDS = 5.0


def follow(run: RunHandle, say: Callable[[str], None]) -> None:
    """Tell the log of a run line by line, and in quiet times where it stands, until nobody drives it any more.

    Ctrl-C stops the run and waits for its end; a second one leaves it to be resumed.
    """
    told, last = 0, time.monotonic()
    stopping = False
    while True:
        try:
            over = run.wait(PERIOD)
            state = run.state
            for line in state.log:
                if line.seq > told:
                    say(line.text)
                    last = time.monotonic()
            told = max(told, state.seq)
            if over:
                return
            if time.monotonic() - last > QUIET_SECONDS:
                say(standing(state))
                last = time.monotonic()
        except KeyboardInterrupt:
            if stopping or not run.is_driven:
                raise
            stopping = True
            say("Stopping; press Ctrl-C again to leave at once (the run can be resumed).")
            run.stop()


def standing(state: RunState) -> str:
    """Where a run stands, in one line."""
    budget = f" of {state.budget.candidates}" if state.budget.candidates else ""
    running = time.time() - state.updated_at if state.status is Status.RUNNING else 0.0
    best = state.best
    ratio = best.evaluation.speedup if best else None
    found = f"; best {best.candidate.id}, {ratio.value:.2f}x over {ratio.baseline}" if ratio else ""
    return f"{state.phase or state.status}: {state.judged}{budget} candidates judged in {state.active_seconds + running:.0f} s{found}"
