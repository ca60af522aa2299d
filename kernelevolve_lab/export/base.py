"""What an exporter is given and what it returns.

An exporter is registered in the entry-point group `kernelevolve_lab.exporters` as a function `(request: ExportRequest) -> tuple[Path, ...]`
that writes files under `request.out` and returns them, the main one first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.operators.loading import load
from kernelevolve_lab.records.run_state import Entry, RunState


@dataclass(frozen=True)
class ExportRequest:
    """One judged candidate of the run `state`, on its way out; `imported` says that the run came from a file, so that it is somebody else's
    text."""

    entry: Entry
    state: RunState
    out: Path
    imported: bool = False

    def operator(self) -> Operator:
        """What the candidate computes. Raises `BadInput` where loading it would run code that is not the user's own."""
        ref = self.state.config.operator
        if ref.kind == "task":
            raise BadInput(
                f"The code of the task '{ref.name}' runs only in the sandbox, so no module can be cut out of it; "
                "export it as kernelbench or as a report."
            )
        if ref.kind != "registered" and self.imported:
            raise BadInput(
                f"The operator '{ref.name}' came with a run from a file and is not loaded here; export the run's report instead."
            )
        return load(ref)
