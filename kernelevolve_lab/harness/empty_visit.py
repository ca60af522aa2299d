"""What a visit costs beside its calls: measured with a kernel of the judge's own that does nothing, in a process such as the candidate's,
so that no candidate can make it look dearer than it is."""

from __future__ import annotations

from collections.abc import Sequence

from kernelevolve_lab.harness.memory import Placed
from kernelevolve_lab.harness.reference import InputSet
from kernelevolve_lab.harness.session import Session
from kernelevolve_lab.harness.timing import TimedVisit

_COMPILED = '#include "kel.h"\nextern "C" void kernel(const kel::Tensor*, kel::Tensor*, kel::Stream) {}\n'
_MODULE = "import torch\n\noutputs = ({outputs},)\n\n\ndef kernel(*inputs):\n    return outputs\n"


def source(binding: str, outputs: Sequence[Placed]) -> str:
    """A kernel that writes nothing, as a compiled language's or as a module whose outputs look as they must."""
    if binding != "python":
        return _COMPILED
    made = (f"torch.empty({list(place.spec.shape)}, dtype=torch.{place.spec.dtype})" for place in outputs)
    return _MODULE.format(outputs=", ".join(made))


def beside(
    session: Session, idle: Session, sets: Sequence[InputSet], calls: int, timeout: float
) -> tuple[list[TimedVisit], list[TimedVisit]]:
    """Visits of a candidate that are made as timed ones are, on contents that its process has not seen, and of the empty kernel by turns
    with them: whoever comes next has been stopped, and its inputs were just read."""
    largest = max(sets, key=lambda drawn: drawn.arena_size)
    fresh = [drawn for drawn in sets if drawn.id not in session.seen]
    found: dict[Session, list[TimedVisit]] = {session: [], idle: []}
    session.make_room(largest, calls)
    idle.make_room(largest, calls)
    for start in range(0, len(fresh) - calls + 1, calls):
        chosen = fresh[start : start + calls]
        for one, visits in found.items():
            for drawn in chosen:
                one.workload(drawn, 0)
            with one.worker.frozen():
                for drawn in chosen:
                    drawn.touch()
            visits.append(TimedVisit.of(one.call(chosen, 0, timeout)))
    return found[session], found[idle]
