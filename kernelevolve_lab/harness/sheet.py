"""An operator that was never run here: what a task says of itself, told by a sandboxed process that loaded it.

A task file is somebody's code. Proposers and exporters need its text, cases and work, not its functions, so they get those as data.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.harness.reference import Reference, task_cache
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import OperatorRef, Profile


def sheet(ref: OperatorRef, profile: Profile, cache: Path, *, unsandboxed: bool = False) -> Operator:
    """The operator of `ref` with its cases for `profile` as data; its `reference` and `make_inputs` raise `BadInput`.

    Takes as long as importing torch in a fresh process. Raises a `LabError` when the task cannot be loaded.
    """

    def elsewhere(*_: object) -> NoReturn:
        raise BadInput(f"The code of the task '{ref.name}' runs only in the judge's sandbox, so this cannot be done with it here.")

    reference = Reference(threads=1, cache=task_cache(cache, ref), confined=not unsandboxed)
    try:
        told = reference.open(ref, profile)
    finally:
        reference.close()
    return Operator(
        name=told.name,
        title=told.title,
        family=told.family,
        semantics=told.semantics,
        input_names=told.input_names,
        reference=elsewhere,
        make_inputs=elsewhere,
        cases={profile: told.cases},
        work=lambda case: told.work[case.name],
        work_formula=told.work_formula,
        distributions=told.distributions,
        tolerance=told.tolerance,
    )
