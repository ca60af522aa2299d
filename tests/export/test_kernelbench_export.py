"""Exported KernelBench files are taken as KernelBench takes them: two modules, each after its seed, compared by allclose."""

import re
from pathlib import Path

import pytest
from exported import KERNEL, PYTHON_KERNEL, request, run_alone

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.export import kernelbench
from kernelevolve_lab.export.base import ExportRequest
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.records import Candidate, OperatorRef
from kernelevolve_lab.records.run_state import Entry, RunState

FORBIDDEN = (r"\btry\s*:", r"\bexcept\s*:", r"\bexcept\s+\w+", r"\bpass\b", r"\bthreading\b", r"\.Event\b")
"""What KernelBench refuses in a kernel whatever its language: src/kernelbench/kernel_static_checker.py, its strict rules."""

EVALUATE = """
import runpy, torch
task, new = runpy.run_path("{task}"), runpy.run_path("{new}")
def made(cls):
    torch.manual_seed(42)
    return cls(*task["get_init_inputs"]())
model, mine = made(task["Model"]), made(new["ModelNew"])
assert "Model" not in new and "get_inputs" not in new
drawn = []
for seed in (1, 2):
    torch.manual_seed(seed)
    inputs = task["get_inputs"]()
    drawn.append(inputs[0])
    assert torch.allclose(model(*inputs), mine(*inputs), atol=1e-4, rtol=1e-4)
assert not torch.equal(*drawn), "the inputs follow the seed"
"""


@pytest.mark.parametrize(("language", "source"), [("cpp", KERNEL), ("python", PYTHON_KERNEL)])
def test_task_and_kernel_agree_by_kernelbench_rules(tmp_path: Path, language: str, source: str) -> None:
    new, task = kernelbench.export(request(tmp_path, source, language=language))
    ran = run_alone(new, EVALUATE.format(task=task.name, new=new.name), tmp_path / "cache")
    assert ran.returncode == 0, ran.stderr
    code = re.sub(r"(#|//).*", "", new.read_text())
    assert not [rule for rule in FORBIDDEN if re.search(rule, code)]


def test_the_task_is_one_that_the_lab_takes_itself(tmp_path: Path) -> None:
    _, task = kernelbench.export(request(tmp_path))
    ref = ref_of(task)
    assert ref.kind == "task" and ref.text == task.read_text()


def test_an_answer_to_a_kernelbench_task_goes_out_as_it_came(tmp_path: Path) -> None:
    made = request(tmp_path, PYTHON_KERNEL, language="python")
    source = "import torch.nn as nn\n\nclass ModelNew(nn.Module):\n    def forward(self, x):\n        return x\n"
    candidate = Candidate(language="python", source=source)
    evaluation = made.entry.evaluation.model_copy(update={"candidate": candidate.id})
    ref = OperatorRef(kind="task", name="theirs", text="class Model: ...\n")
    state = RunState(run="r1", config=made.state.config.model_copy(update={"operator": ref}))
    new, task = kernelbench.export(ExportRequest(Entry(candidate, 1, 0, evaluation=evaluation), state, tmp_path, imported=True))
    assert new.read_text() == source and task.read_text() == ref.text


def test_several_outputs_are_refused(tmp_path: Path) -> None:
    made = request(tmp_path)
    ref = OperatorRef(kind="registered", name="batch_event_truncate", text="batch_event_truncate")
    operator = ExportRequest(made.entry, RunState(config=made.state.config.model_copy(update={"operator": ref})), tmp_path).operator()
    result = made.entry.evaluation.cases[0].model_copy(update={"case": operator.visible("laptop")[0]})
    entry = Entry(made.entry.candidate, 1, 0, evaluation=made.entry.evaluation.model_copy(update={"cases": (result,)}))
    state = RunState(run="r1", config=made.state.config.model_copy(update={"operator": ref}))
    with pytest.raises(BadInput, match="one output of a fixed size"):
        kernelbench.export(ExportRequest(entry, state, tmp_path))
