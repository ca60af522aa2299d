"""What an exporter is given and what it returns.

An exporter is registered in the entry-point group `kernelevolve_lab.exporters` as a function `(request: ExportRequest) -> tuple[Path, ...]`
that writes files under `request.out` and returns them, the main one first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records.run_state import Entry, RunState


@dataclass(frozen=True)
class ExportRequest:
    """One judged candidate of a run, on its way out; `operator` is what it computes, `state` the run it comes from."""

    operator: Operator
    entry: Entry
    state: RunState
    out: Path
