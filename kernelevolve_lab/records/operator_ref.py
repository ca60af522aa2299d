"""How an operator is named so that another process, or a later day, can load it again."""

from typing import Literal

from kernelevolve_lab.records.base import Record


class OperatorRef(Record):
    """`registered`: `text` is a registered name. `task`: `text` is the source of a KernelBench task file. `pickled`: `text` is base64 of a
    cloudpickle of an `Operator` that the user made in this process (a notebook's function); only ever loaded from the user's own run.
    `name` is for display."""

    kind: Literal["registered", "task", "pickled"]
    name: str
    text: str
