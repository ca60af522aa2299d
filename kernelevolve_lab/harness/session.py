"""One candidate's process with the memory that it was lent: input sets mapped once each, outputs in the judge's arenas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernelevolve_lab.harness.memory import PAGE, Arena, Placed
from kernelevolve_lab.harness.policy import Traced
from kernelevolve_lab.harness.reference import InputSet, Reference
from kernelevolve_lab.harness.watch import OperatorWatch
from kernelevolve_lab.harness.workers import Visit, Worker


class Arenas:
    """The two output arenas of a judge, as large as any case so far needed; shared by its candidates one after the other."""

    def __init__(self, reference: Reference):
        self._reference = reference
        self._kept: list[tuple[Arena, int]] = []

    def fit(self, size: int) -> list[tuple[Arena, int]]:
        """Both arenas, each with its number in the reference worker."""
        if not self._kept or self._kept[0][0].size < size:
            self._reference.drop(arenas=[number for _, number in self._kept])
            self.close()
            for _ in range(2):
                arena = Arena(size, handed=self._reference.device != "cpu")
                self._kept.append((arena, self._reference.show(arena)))
        return self._kept

    def close(self) -> None:
        """Free them."""
        for arena, _ in self._kept:
            arena.close()
        self._kept.clear()


class Session:
    """A candidate at work. Arenas are numbered 0 and 1. `modules` says by case how a `ModelNew` is built, `load_seconds` how long that
    may take; `watch` looks at what its calls have PyTorch do."""

    def __init__(
        self, worker: Worker, arenas: Arenas, size: int, modules: Mapping[str, str], load_seconds: float, watch: OperatorWatch | None = None
    ):
        self.worker = worker
        self.lacking: tuple[str, ...] = ()
        """Names of the reference's state that the candidate's module, if it is one, does not have."""
        self._modules = modules
        self._load_seconds = load_seconds
        self._watch = watch
        self.seen: set[int] = set()
        self._lender = arenas
        self._input_regions: dict[int, tuple[int, int]] = {}
        self._workloads: dict[tuple[int, int], int] = {}
        self._borrow(size)

    def _borrow(self, size: int) -> None:
        lent = self._lender.fit(size)
        self.arenas = [arena for arena, _ in lent]
        for arena in self.arenas:
            arena.clear()
        self.shown = [number for _, number in lent]
        self._arena_regions = [self.worker.map(arena.fd, arena.size, writable=True)[0] for arena in self.arenas]

    def make_room(self, drawn: InputSet, calls: int = 1) -> None:
        """See to it that the outputs of so many calls fit side by side: how large they are may depend on the data, and so on the
        distribution."""
        size = calls * drawn.arena_size
        if size <= self.arenas[0].size:
            return
        while self._workloads:
            self.worker.undefine(self._workloads.popitem()[1])
        for region in self._arena_regions:
            self.worker.unmap(region)
        self._borrow(size)

    def workload(self, drawn: InputSet, arena: int) -> int:
        """The call with that set's inputs and outputs in that arena."""
        key = (drawn.id, arena)
        if key not in self._workloads:
            if drawn.id not in self._input_regions:
                self._input_regions[drawn.id] = self.worker.map(drawn.fd, drawn.size, writable=False)
            region, _ = self._input_regions[drawn.id]
            self._workloads[key] = workload = self.worker.define(drawn.inputs, region, drawn.outputs, self._arena_regions[arena])
            if drawn.case.name in self._modules:
                self.lacking = self.worker.bind(workload, self._modules[drawn.case.name], self._load_seconds)
        return self._workloads[key]

    def address(self, drawn: InputSet) -> int:
        """Where a set lies in the process, 0 if it is not mapped."""
        return self._input_regions.get(drawn.id, (0, 0))[1]

    def forget(self, drawn: InputSet) -> None:
        """Unmap a set; its address is likely to be the next one's."""
        region, _ = self._input_regions.pop(drawn.id)
        self.worker.unmap(region)
        for key in [key for key in self._workloads if key[0] == drawn.id]:
            self.worker.undefine(self._workloads.pop(key))

    def places(self, sets: Sequence[InputSet], arena: int) -> list[tuple[Placed, ...]]:
        """Where `call` has the outputs of each call: side by side in the arena as long as there is room, then from its start again."""
        return [
            tuple(Placed(place.spec, place.offset + pages * PAGE) for place in drawn.outputs)
            for drawn, pages in zip(sets, self._pages(sets, arena), strict=True)
        ]

    def call(self, sets: Sequence[InputSet], arena: int, timeout: float) -> Visit:
        """Call once per set, back to back."""
        visit = self.worker.call(self._calls(sets, arena), timeout)
        return self._visited(sets, visit)

    def watched(self, sets: Sequence[InputSet], arena: int, timeout: float) -> tuple[Visit, list[int] | None]:
        """The same, and where the process was at random moments; None where nobody looks."""
        visit, samples = self.worker.watched(self._calls(sets, arena), timeout)
        return self._visited(sets, visit), samples

    def _calls(self, sets: Sequence[InputSet], arena: int) -> list[tuple[int, int]]:
        workloads = [self.workload(drawn, arena) for drawn in sets]
        return list(zip(workloads, self._pages(sets, arena), strict=True))

    def _visited(self, sets: Sequence[InputSet], visit: Visit) -> Visit:
        self.seen.update(drawn.id for drawn in sets)
        if self._watch is not None:
            self._watch.visited(sets[0].case.name, visit.operators, len(sets))
        return visit

    def trace(self, drawn: InputSet, timeout: float) -> Traced | None:
        """What a call has PyTorch do, None where nothing could. Its outputs lie in the first arena."""
        found = self.worker.trace(self.workload(drawn, 0), timeout)
        return self._watch.traced(drawn.case.name, found) if found is not None and self._watch is not None else found

    def _pages(self, sets: Sequence[InputSet], arena: int) -> list[int]:
        slot = max(drawn.arena_size for drawn in sets)
        room = self.arenas[arena].size // slot
        return [(i % room) * (slot // PAGE) for i in range(len(sets))]

    def close(self) -> None:
        """End the process."""
        self.worker.close()
