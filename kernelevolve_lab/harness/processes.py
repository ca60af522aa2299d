"""The processes in which one candidate is judged, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

from kernelevolve_lab.harness import empty_visit
from kernelevolve_lab.harness.kept import Kept
from kernelevolve_lab.harness.native import NativeWorker, build_host
from kernelevolve_lab.harness.policy import Policy
from kernelevolve_lab.harness.python_worker import PythonWorker
from kernelevolve_lab.harness.reference import InputSet
from kernelevolve_lab.harness.session import Session
from kernelevolve_lab.harness.watch import OperatorWatch
from kernelevolve_lab.harness.workers import CandidateFailed, Worker
from kernelevolve_lab.harness.works import Order, Works
from kernelevolve_lab.languages.base import KERNELS, Build, Language


@dataclass
class Processes:
    """Starts them; what the candidate builds when it is loaded is built once for all. To be closed."""

    order: Order
    build: Build
    language: Language
    policy: Policy
    kept: Kept = field(default_factory=Kept)
    watch: OperatorWatch | None = None

    def start(self, works: Works) -> Session:
        """The candidate in a new process."""
        worker = self._python(works) if self.language.binding == "python" else self._compiled(works)
        return Session(worker, works.arenas, works.arena_size, works.description.modules, self.order.settings.load_seconds, self.watch)

    def _limits(self) -> dict:
        settings = self.order.settings
        return {"threads": self.order.threads, "heap_bytes": settings.heap_bytes, "load_seconds": settings.load_seconds}

    def _python(self, works: Works) -> Worker:
        zygote, given = works.zygote.get(), self._limits()
        assert self.build.artifact is not None
        source = self.build.artifact.read_bytes()
        self.watch = self.watch or OperatorWatch(self.policy, zygote.composite)
        # A ModelNew is built when its case is, and may compile then; a device's languages compile at the first call.
        given["threads_only"] = self.order.device == "cpu" and not self.order.emulated and not works.description.modules
        kernels = self.build.artifact.with_name(KERNELS)
        if self.order.device != "cpu" and kernels.is_dir():
            given["kernels"] = kernels
        first = not self.kept.sealed
        worker = PythonWorker(zygote, source, kept=self.kept, **given)
        if first:
            self.kept.seal()
            if self.kept.size:
                worker.close()
                return PythonWorker(zygote, source, kept=self.kept, **given)
        return worker

    def _compiled(self, works: Works) -> Worker:
        assert self.build.artifact is not None
        if self.order.device != "cpu":
            return PythonWorker(works.zygote.get(), self.build.artifact.read_bytes(), **self._limits())
        return NativeWorker(build_host(self.order.cache), self.build.artifact, confined=self.order.confined, **self._limits())

    def idle(self, works: Works, drawn: InputSet) -> Session:
        """A kernel of the judge's own, which does nothing, in a process such as the candidate's."""
        text = empty_visit.source(self.language.binding, drawn.outputs)
        worker: Worker
        if self.language.binding == "python":
            worker = PythonWorker(works.zygote.get(), text.encode(), **self._limits())
        else:
            built = self.language.build(text, self.order.target, self.order.cache / "builds")
            assert built.artifact is not None
            worker = NativeWorker(build_host(self.order.cache), built.artifact, confined=self.order.confined, **self._limits())
        return Session(worker, works.arenas, works.arena_size, {}, self.order.settings.load_seconds)

    def works_for(self, works: Works) -> Works:
        """The works with which that candidate is judged. A `ModelNew` that keeps some of the reference's state under names of its own gets
        it by KernelBench's rule alone, the seed before the constructor; so the reference must have those values, too."""
        if self.language.binding != "python" or not works.description.modules:
            return works
        case = works.visible[0]
        try:
            session = self.start(works)
        except CandidateFailed:
            return works  # the trial finds out, and says so
        try:
            session.workload(works.pool.check(case, case.distribution), 0)
            lacking = session.lacking
        except CandidateFailed:
            return works
        finally:
            session.close()
        return works.constructed(lacking, self.order.settings) if lacking else works

    def close(self) -> None:
        """Free what was kept for them."""
        self.kept.close()
