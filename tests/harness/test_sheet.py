"""A task is described by a sandboxed process; nothing of it runs here."""

from pathlib import Path

import pytest

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.harness.sheet import sheet
from kernelevolve_lab.operators.loading import ref_of

TASK = """
import os
import torch
import torch.nn as nn

os.environ["KEL_TASK_RAN_HERE"] = "yes"


class Model(nn.Module):
    def forward(self, x):
        return torch.relu(x) * 2


def get_inputs():
    return [torch.randn(64, 32)]


def get_init_inputs():
    return []
"""


def test_a_task_is_told_as_data(tmp_path: Path) -> None:
    import os

    (tmp_path / "double_relu.py").write_text(TASK)
    operator = sheet(ref_of(tmp_path / "double_relu.py"), "laptop", tmp_path / "cache")
    assert "KEL_TASK_RAN_HERE" not in os.environ
    assert operator.name == "double_relu"
    assert "torch.relu(x) * 2" in operator.semantics
    visible = operator.visible("laptop")
    assert visible and all(operator.work(case).bytes > 0 for case in visible)
    with pytest.raises(BadInput, match="sandbox"):
        operator.reference()
