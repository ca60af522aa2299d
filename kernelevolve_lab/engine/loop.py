"""The search loop.

One coroutine (`SearchLoop.run`) is the only one that decides and writes; everything slow happens beside it, in tasks whose results it
collects:

    asking      up to `proposer.concurrency` requests at once, while fewer than `lookahead` candidates wait for the judge
    bench       builds in a few threads for the candidates that are next; one evaluation at a time in the judge's own thread

Each turn writes down what has come, reads the log (people steer through it, from any process), applies what they asked for, decides
whether the run is at its end, starts what is due and waits for the first thing to happen. An event is on disk before anything depends on
it; what a killed process had not written was not finished, and the next one does it again: `RunState` says what (requests without an
answer, candidates without an evaluation).
"""

import asyncio
import threading
import time
import traceback
from typing import Any

from kernelevolve_lab.engine import budget
from kernelevolve_lab.engine.asking import Asking
from kernelevolve_lab.engine.bench import FINALISTS, Bench
from kernelevolve_lab.engine.lanes import Lane
from kernelevolve_lab.engine.log import RunLog, waiting
from kernelevolve_lab.engine.services import BUILD_THREADS, Services
from kernelevolve_lab.engine.steering import Steering
from kernelevolve_lab.errors import LabError, StoreError
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records.events import BaselinesMeasured, Noted, PhaseChanged, RunEnded, TargetMeasured
from kernelevolve_lab.records.run_state import RunState, Status
from kernelevolve_lab.store import Lease, Store

POLL_SECONDS = 0.2


class Interrupted(Exception):
    """This process must let go of the run without ending it."""


class _Stopped(Exception):
    """A person asked to stop."""


class SearchLoop:
    """Drives one run to its end; make one per drive, and call `run` once.

    `lookahead` is how many candidates may wait while one is judged, by default what the services say. 0: the first one is asked for when
    the baseline is compiled, the next one when the last is judged, which makes the course of a run independent of how long things take.
    """

    def __init__(self, store: Store, lease: Lease, services: Services, lookahead: int | None = None) -> None:
        self._log = RunLog(store, lease.run)
        self._lease = lease
        self._services = services
        self._lookahead = services.lookahead if lookahead is None else lookahead
        self._interrupted = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._judge_lane = Lane(f"judge-{lease.run}")
        self._build_lane = Lane(f"build-{lease.run}", BUILD_THREADS)
        self._bench = Bench(self._log, self._log.state.config, self._judge_lane, self._build_lane, BUILD_THREADS)
        self._steering = Steering(self._log, self._bench)
        self._asking: Asking | None = None
        self._operator: Operator | None = None

    def wake(self) -> None:
        """From any thread: look at the log now."""
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._woken.set)
            except RuntimeError:  # the loop has ended
                return

    def interrupt(self) -> None:
        """From any thread: let go of the run as soon as possible; it stays resumable."""
        self._interrupted.set()
        self.wake()

    async def run(self) -> None:
        """Drive the run to its end. Whatever goes wrong becomes the run's end with its reason; only a failing store raises `StoreError`,
        and `Interrupted` says that the run was let go."""
        self._woken, self._loop = asyncio.Event(), asyncio.get_running_loop()
        try:
            outcome, reason = await self._course()
            await self._learn()
            self._log.append(RunEnded(outcome=outcome, reason=reason))
        finally:
            await self._close()

    async def _course(self) -> tuple[str, str]:
        try:
            try:
                await self._prepare()
                return "finished", await self._search()
            except _Stopped:
                await self._bench.settle()
                return "stopped", "A person stopped it."
        except (StoreError, Interrupted):
            raise
        except LabError as error:
            return "failed", str(error)
        except Exception as error:
            self._log.append(Noted(text=f"This is a defect of kernelevolve-lab:\n{traceback.format_exc(limit=-8)}", level="error"))
            return "failed", f"Internal error: {type(error).__name__}: {error}"

    async def _learn(self) -> None:
        """Keep what this run found for later ones; that it cannot be kept does not spoil the run."""
        if self._operator is None:
            return
        try:
            lessons = await self._build_lane.run(self._services.learn, self._log.state, self._operator)
        except (LabError, OSError) as error:
            lessons = [Noted(text=f"The lessons of this run could not be kept: {error}", level="warning")]
        if lessons:
            self._log.append(*lessons)

    async def _prepare(self) -> None:
        config, services = self._log.state.config, self._services
        self._phase("starting the judge")
        judge = services.make_judge(config, services.resolve_target(config.target))
        opening = self._bench.open(judge, self._progress)
        self._operator = operator = await self._step(self._build_lane.run(services.load_operator, config))
        await self._step(opening)
        self._phase("timing PyTorch")
        self._log.append(BaselinesMeasured(baselines=await self._step(self._bench.measure_eager())))
        # On a new machine this takes a while; by now there is something to look at.
        self._phase("measuring the machine")
        target = judge.target = await self._step(self._judge_lane.run(services.measure_target, judge.target, self._progress))
        self._log.append(TargetMeasured(target=target))
        proposer = await self._step(self._build_lane.run(services.make_proposer, config, operator, target))
        policy = services.make_policy(config)
        self._asking = Asking(self._log, config, operator, target, proposer, policy, self._lookahead)
        self._phase("compiling the baseline, first candidates are being written")
        self._bench.compile_baseline()

    async def _search(self) -> str:
        """Search until the budget is used up, then measure the finalists again; return why it ended."""
        compiling, phase = True, "searching"
        while True:
            state = self._turn()
            spent = self._spent(state)
            now = "measuring the finalists again" if spent else "searching"
            if now != phase or (compiling and not self._bench.compiling):
                compiling, phase = False, now
                self._phase(phase)
            if state.status is not Status.PAUSED:
                hearing = self._bench.hear_appeal(state, self._services.make_judge)
                if spent is None:
                    if self._lookahead or not self._bench.compiling:
                        self._asking.start(state)
                    self._bench.build_ahead(waiting(state))
                    if not hearing:
                        self._bench.judge_next(waiting(state))
                elif not hearing and not self._bench.judge_finalist(state):
                    return spent
            await self._wait(self._bench.tasks | self._asking.tasks)

    def _spent(self, state: RunState) -> str | None:
        """Why the search is at its end, or None. Candidates that are waiting are judged before a lack of new ones ends it."""
        reason = budget.spent(state, time.time(), finals_seconds=FINALISTS * self._bench.evaluation_seconds)
        if reason is not None or self._asking.tasks or waiting(state) or self._bench.judging:
            return reason
        return self._asking.dry or budget.out_of_money(state)

    def _turn(self) -> RunState:
        """Collect results and commands; raise when the run must end now."""
        if self._interrupted.is_set():
            raise Interrupted("This process lets go of the run.")
        if self._lease.lost.is_set():
            raise Interrupted("Another process took the run over.")
        self._bench.collect()
        if self._asking is not None:
            self._asking.collect()
        state = self._steering.apply(self._log.state)
        if self._steering.stopping:
            raise _Stopped
        return state

    async def _step(self, future: asyncio.Future) -> Any:
        """Await one step of the preparation, listening to people meanwhile."""
        while not future.done():
            self._turn()
            await self._wait({future})
        return future.result()

    async def _wait(self, futures: set[asyncio.Future]) -> None:
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait({*futures, woken}, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        self._woken.clear()

    def _phase(self, phase: str) -> None:
        self._log.append(PhaseChanged(phase=phase))

    def _progress(self, text: str) -> None:
        """Called from the judge's thread with what takes long."""
        self._log.append(Noted(text=text))

    async def _close(self) -> None:
        await self._bench.close()
        if self._asking is not None:
            await self._asking.close()
        self._judge_lane.close()
        self._build_lane.close()
