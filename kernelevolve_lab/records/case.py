"""A case: one workload of an operator."""

from typing import Literal

from kernelevolve_lab.records.base import Record

Scalar = bool | int | float | str
Profile = Literal["laptop", "gpu", "emulated"]
"""How large the cases are: for a laptop's processor, for a GPU (the published production shapes where there are any), or small enough for
an emulator, which takes milliseconds for what a GPU does in a microsecond."""


class Case(Record):
    """One workload of an operator: its sizes, dtype and input distribution.

    `name` is unique within an operator and profile. `sizes` are the operator's own parameters (for example `{"rows": 4096, "cols": 1024}`).
    A `held_out` case is judged but never shown to a proposer. `scaled_from` are those sizes that were made smaller to fit this machine,
    as the task has them.
    """

    name: str
    sizes: dict[str, Scalar]
    dtype: str = "float32"
    distribution: str = "normal"
    held_out: bool = False
    scaled_from: dict[str, Scalar] = {}


class TensorSpec(Record):
    """Shape and dtype (torch's name without the prefix, e.g. `float32`, `int64`) of one input or output."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"
