"""An exported module is used as a user would use it: in a fresh process that cannot import this package."""

from pathlib import Path

import pytest
from exported import KERNEL, PYTHON_KERNEL, request, run_alone

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.export import module
from kernelevolve_lab.export.base import ExportRequest
from kernelevolve_lab.export.kernel import module_text
from kernelevolve_lab.export.source import self_contained
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import OperatorRef, Verdict
from kernelevolve_lab.records.run_state import RunState


def test_module_runs_alone_and_passes_its_self_test(tmp_path: Path) -> None:
    (path,) = module.export(request(tmp_path))
    ran = run_alone(path, f"import {path.stem} as m; print(*m.self_test(), sep='\\n')", tmp_path / "cache")
    assert ran.returncode == 0, ran.stderr
    assert "odd: right, largest error" in ran.stdout


def test_module_of_a_python_kernel_runs_alone(tmp_path: Path) -> None:
    (path,) = module.export(request(tmp_path, PYTHON_KERNEL, language="python"))
    ran = run_alone(path, f"import {path.stem} as m; print(*m.self_test()); print(m._loaded().__file__)", tmp_path / "cache")
    assert ran.returncode == 0, ran.stderr
    assert "odd: right, largest error" in ran.stdout and str(tmp_path / "cache") in ran.stdout


def test_module_can_be_loaded_from_its_path(tmp_path: Path) -> None:
    (path,) = module.export(request(tmp_path))
    code = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("winner", "{path}")
winner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(winner)
assert winner.self_test()
"""
    ran = run_alone(path, code, tmp_path / "cache")
    assert ran.returncode == 0, ran.stderr


def test_module_takes_the_reference_for_what_it_was_not_judged_on(tmp_path: Path) -> None:
    (path,) = module.export(request(tmp_path))
    code = f"""
import torch, {path.stem} as m
x, w, b = torch.randn(4, 8), torch.ones(8), torch.zeros(8)
assert m.supported(x, w, b)
for other in ((x.double(), w.double(), b.double()), (x.t().contiguous().t(), w, b), (x[None], w, b)):
    assert not m.supported(*other)
    torch.testing.assert_close(m.kernel(*other), torch.nn.functional.layer_norm(other[0], (8,), other[1], other[2]))
x.requires_grad_()
assert m.kernel(x, w, b).grad_fn is not None
try:
    m.kernel(x.detach(), torch.ones(9), b)
except RuntimeError:
    print("sizes that do not fit are refused")
"""
    ran = run_alone(path, code, tmp_path / "cache")
    assert ran.returncode == 0, ran.stderr
    assert "sizes that do not fit are refused" in ran.stdout


def test_self_test_fails_for_a_wrong_kernel(tmp_path: Path) -> None:
    (path,) = module.export(request(tmp_path, KERNEL.replace("1e-5", "1e-1")))
    ran = run_alone(path, f"import {path.stem} as m; m.self_test()", tmp_path / "cache")
    assert ran.returncode != 0
    assert "is above" in ran.stderr


def test_module_without_a_compiler_warns_and_uses_the_reference(tmp_path: Path) -> None:
    (path,) = module.export(request(tmp_path))
    code = f"""
import os; os.environ["PATH"] = ""
import torch, {path.stem} as m
x, w, b = torch.randn(4, 8), torch.ones(8), torch.zeros(8)
torch.testing.assert_close(m.kernel(x, w, b), torch.nn.functional.layer_norm(x, (8,), w, b))
"""
    ran = run_alone(path, code, tmp_path / "cache")
    assert ran.returncode == 0, ran.stderr
    assert "no C++ compiler" in ran.stderr


@pytest.mark.parametrize(("kind", "imported"), [("task", False), ("pickled", True)])
def test_code_that_is_not_the_users_own_is_not_loaded(tmp_path: Path, kind: str, imported: bool) -> None:
    made = request(tmp_path)
    ref = OperatorRef(kind=kind, name="theirs", text="raise SystemExit")
    state = RunState(run="r1", config=made.state.config.model_copy(update={"operator": ref}))
    with pytest.raises(BadInput, match="'theirs'"):
        module.export(ExportRequest(made.entry, state, tmp_path, imported=imported))


def test_header_carries_the_evidence_on_plain_lines(tmp_path: Path) -> None:
    text = module_text(request(tmp_path))
    assert "1.25x over torch.compile (95 % interval 1.21 to 1.29)" in text
    assert "evidence measured" in text
    assert "plain 'two pass'" in text


def test_what_is_not_correct_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not judged correct"):
        module.export(request(tmp_path, verdict=Verdict.INCORRECT))


@pytest.mark.parametrize("name", registry.names("operators"))
def test_the_functions_of_every_operator_stand_alone(name: str) -> None:
    """Each reference gives the shapes of its outputs without data, or its operator says how to allocate them."""
    import torch

    operator: Operator = registry.load("operators", name)
    functions = {"reference": operator.reference, "make_inputs": operator.make_inputs}
    if operator.allocate:
        functions["allocate"] = operator.allocate
    scope: dict = {}
    exec("from __future__ import annotations\nimport torch\n" + self_contained(functions), scope)
    case = operator.held_out("laptop")[0]
    inputs = scope["make_inputs"](case, torch.Generator().manual_seed(7))
    for got, expected in zip(inputs, operator.make_inputs(case, torch.Generator().manual_seed(7)), strict=True):
        assert torch.equal(got, expected)
    outputs = scope["reference"](*inputs)
    empty = scope["allocate"](*inputs) if operator.allocate else scope["reference"](*(t.to("meta") for t in inputs))
    shapes = [[(t.shape, t.dtype) for t in (ts if isinstance(ts, tuple) else (ts,))] for ts in (outputs, empty)]
    assert shapes[0] == shapes[1]


def test_a_reference_that_cannot_be_cut_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="lambda"):
        self_contained({"reference": eval("lambda x: x")})
