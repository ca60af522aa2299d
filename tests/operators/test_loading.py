"""From names, files, functions and modules to operators, and what is said when that cannot be."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from kernelevolve_lab.errors import BadInput, UnknownName
from kernelevolve_lab.operators import Operator, load, ref_of
from kernelevolve_lab.records import OperatorRef

TASK = """
import torch
import torch.nn as nn

class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return torch.relu(self.linear(x))

batch_size = 8
width = 4 * 4

def get_inputs():
    return [torch.rand(batch_size, width)]

def get_init_inputs():
    return [width]
"""


def scaled_add(x, y, factor=2.0):
    """x + factor y"""
    return x + factor * y


def test_a_registered_name() -> None:
    ref = ref_of("rms_norm")
    assert (ref.kind, ref.name, ref.text) == ("registered", "rms_norm", "rms_norm")
    assert load(ref).name == "rms_norm"
    assert ref_of(ref) is ref


def test_an_unknown_name_brings_near_ones() -> None:
    with pytest.raises(UnknownName, match="'rms_norm'"):
        ref_of("rmsnorm")


def task_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "task.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_naming_a_task_file_does_not_run_it(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    ref = ref_of(task_file(tmp_path, TASK + f"\nopen({str(witness)!r}, 'w').close()\n"))
    assert (ref.kind, ref.name) == ("task", "task")
    assert not witness.exists()
    load(ref)
    assert witness.exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"x = '\xff\xfe'", "not UTF-8"),
        ("def get_inputs(:", r"not valid Python \(line 1\)"),
        ("def get_inputs():\n    return []", "no class Model"),
        ("class Model: pass", "no function get_inputs"),
        ("\0", "not valid Python"),
    ],
)
def test_a_task_file_that_is_none(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        ref_of(task_file(tmp_path, text))


def test_a_path_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no task file"):
        ref_of(tmp_path / "absent.py")
    with pytest.raises(BadInput, match="no task file"):
        ref_of("absent.py")
    with pytest.raises(BadInput, match="is a folder"):
        ref_of(tmp_path)


def test_sizes_of_a_task_are_written_into_its_source(tmp_path: Path) -> None:
    path = task_file(tmp_path, TASK)
    assert "width = 32\n" in ref_of(path, sizes={"width": 32}).text
    with pytest.raises(BadInput, match=r"no integer constant 'depth'.*batch_size, width"):
        ref_of(path, sizes={"depth": 2})
    with pytest.raises(BadInput, match="not a positive integer"):
        ref_of(path, sizes={"width": 0})


@pytest.mark.parametrize("thing", [7, None, torch.nn.ReLU, object()])
def test_what_is_no_operator(thing: object) -> None:
    with pytest.raises(BadInput, match="An operator is"):
        ref_of(thing)


def test_a_function_needs_inputs() -> None:
    with pytest.raises(BadInput, match="scaled_add needs example inputs"):
        ref_of(scaled_add)
    with pytest.raises(BadInput, match="hold no tensor"):
        ref_of(scaled_add, inputs=(1, 2))
    with pytest.raises(BadInput, match="scaled_add fails on inputs like the example"):
        ref_of(scaled_add, inputs=(torch.ones(2), torch.ones(3)))


def test_a_function_that_returns_no_tensor_or_nan() -> None:
    with pytest.raises(BadInput, match="returns float"):
        ref_of(lambda x: float(x.sum()), inputs=torch.randn(4))
    with pytest.raises(BadInput, match="not finite"):
        ref_of(lambda x: torch.log(-x.abs()), inputs=torch.randn(4))


def test_a_function_that_holds_a_lock_cannot_travel() -> None:
    lock = threading.Lock()

    def locked(x):
        with lock:
            return x + 1

    with pytest.raises(BadInput, match="cannot be sent to another process"):
        ref_of(locked, inputs=torch.randn(4))


def test_a_function_loads_where_its_file_is_not() -> None:
    ref = ref_of(scaled_add, inputs=(torch.randn(64, 32), torch.randn(64, 32), 3.0))
    assert ref.kind == "pickled"
    code = (
        "import sys, torch; from kernelevolve_lab.operators import load; from kernelevolve_lab.records import OperatorRef\n"
        "operator = load(OperatorRef.model_validate_json(sys.stdin.read()))\n"
        "x, y = operator.make_inputs(operator.cases['laptop'][0], torch.Generator().manual_seed(0))\n"
        "assert torch.equal(operator.reference(x, y), x + 3.0 * y)\n"
        "assert 'test_loading' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], input=ref.model_dump_json(), text=True, check=True, cwd="/")


def test_a_ref_that_carries_rubbish() -> None:
    with pytest.raises(BadInput, match="cannot be loaded here"):
        load(OperatorRef(kind="pickled", name="broken", text="AAAA"))


def test_an_operator_itself_can_be_carried() -> None:
    operator = load(ref_of("matmul"))
    carried = load(ref_of(operator))
    assert isinstance(carried, Operator)
    assert carried.work(carried.cases["laptop"][0]) == operator.work(operator.cases["laptop"][0])
