"""Appeals in a run that has ended."""

import asyncio
import threading

from kernelevolve_lab.engine.appeal import first_appeal, heard, judge_again
from kernelevolve_lab.engine.lanes import Lane
from kernelevolve_lab.engine.log import RunLog
from kernelevolve_lab.engine.loop import POLL_SECONDS, Interrupted
from kernelevolve_lab.engine.services import Services
from kernelevolve_lab.errors import LabError
from kernelevolve_lab.records import Candidate, Evaluation
from kernelevolve_lab.records.events import EvaluationStarted, SteeringApplied
from kernelevolve_lab.records.run_state import Request
from kernelevolve_lab.store import Lease, Store


class Hearing:
    """Hears the appeals of a run that has ended, one after the other, without taking the search up again; what a `Driver` drives in place
    of the search loop."""

    def __init__(self, store: Store, lease: Lease, services: Services) -> None:
        self._log, self._lease, self._services = RunLog(store, lease.run), lease, services
        self._let_go = threading.Event()

    def wake(self) -> None:
        """Nothing to do: the log is looked at after each appeal."""

    def interrupt(self) -> None:
        """From any thread: give up; the appeal stays in the log."""
        self._let_go.set()

    async def run(self) -> None:
        """Judge until no appeal is left; raises `Interrupted` when it was told to let go or another process took the run over."""
        lane = Lane(f"appeal-{self._lease.run}")
        try:
            while (request := first_appeal(self._log.state)) is not None:
                await self._hear(lane, request)
        finally:
            lane.close()

    async def _hear(self, lane: Lane, request: Request) -> None:
        state = self._log.state
        candidate = state.entries[request.command.candidate].candidate
        self._log.append(EvaluationStarted(candidate=candidate.id))
        future = lane.run(self._judge, candidate)
        while not future.done():
            if self._must_stop():
                raise Interrupted("This process lets go of the run.")
            await asyncio.wait({future}, timeout=POLL_SECONDS)
        try:
            evaluation = future.result()
        except LabError as error:
            self._log.append(SteeringApplied(request=request.seq, note=f"{candidate.id} could not be judged again: {error}"))
            return
        self._log.append(*heard(state, request, evaluation))

    def _judge(self, candidate: Candidate) -> Evaluation:
        config, services = self._log.state.config, self._services
        target = services.measure_target(services.resolve_target(config.target), lambda text: None)
        return judge_again(lambda: services.make_judge(config, target), candidate, self._must_stop)

    def _must_stop(self) -> bool:
        return self._let_go.is_set() or self._lease.lost.is_set()
