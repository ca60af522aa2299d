"""An exported operator of PyTorch passes PyTorch's own checks, in a process that cannot import this package."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
from exported import KERNEL, PYTHON_KERNEL, request, run_alone

from kernelevolve_lab import registry
from kernelevolve_lab.export import torch_op
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import CaseResult, OperatorRef, TensorSpec, Verdict

USE = """
import torch
from torch.library import opcheck
import {name} as m

operator = torch.ops.kernelevolve.{op}.default
x, w, b = torch.randn(4, 33), torch.randn(33), torch.randn(33)
opcheck(m.op, (x, w, b))
opcheck(m.op, (x.t().contiguous().t(), w, b))
opcheck(m.op, tuple(t.clone().requires_grad_() for t in (x, w, b)))
print("checked")

expected = torch.nn.functional.layer_norm(x, (33,), w, b)
assert m.supported(x, w, b)
torch.testing.assert_close(operator(x, w, b), expected)
doubles = (x.double(), w.double(), b.double())
torch.testing.assert_close(operator(*doubles), torch.nn.functional.layer_norm(doubles[0], (33,), *doubles[1:]))

compiled = torch.compile(lambda x, w, b: operator(x * 2, w, b) + 1, fullgraph=True, backend="aot_eager")
torch.testing.assert_close(compiled(x, w, b), torch.nn.functional.layer_norm(x * 2, (33,), w, b) + 1)
print("compiled")

gradients = []
for function in (lambda *a: torch.nn.functional.layer_norm(a[0], (33,), a[1], a[2]), m.op):
    given = [t.clone().requires_grad_() for t in (x, w, b)]
    function(*given).square().sum().backward()
    gradients.append([t.grad for t in given])
torch.testing.assert_close(gradients[1], gradients[0])
print(*m.self_test())
"""


@pytest.mark.parametrize(("language", "source"), [("cpp", KERNEL), ("python", PYTHON_KERNEL)])
def test_operator_is_clean_compiles_and_has_gradients(tmp_path: Path, language: str, source: str) -> None:
    (path,) = torch_op.export(request(tmp_path, source, language=language))
    code = USE.format(name=path.stem, op=path.stem.removesuffix("_op"))
    ran = run_alone(path, code, tmp_path / "cache")
    assert ran.returncode == 0, ran.stderr
    assert "checked" in ran.stdout and "compiled" in ran.stdout and "odd: right" in ran.stdout


@pytest.mark.parametrize("name", registry.names("operators"))
def test_shapes_and_gradients_of_every_operator_are_clean(tmp_path: Path, name: str) -> None:
    """Of the operator around the kernel; the kernel is left out, so that the inputs can be of double precision."""
    import torch

    operator: Operator = registry.load("operators", name)
    case = operator.held_out("laptop")[0]
    inputs = operator.make_inputs(case, torch.Generator().manual_seed(1))
    specs = tuple(TensorSpec(shape=tuple(t.shape), dtype=str(t.dtype).removeprefix("torch.")) for t in inputs)
    made = request(tmp_path)
    results = (CaseResult(case=case, inputs=specs, verdict=Verdict.CORRECT),)
    entry = dataclasses.replace(made.entry, evaluation=made.entry.evaluation.model_copy(update={"cases": results}))
    config = made.state.config.model_copy(update={"operator": OperatorRef(kind="registered", name=name, text=name)})
    request_ = dataclasses.replace(made, entry=entry, state=dataclasses.replace(made.state, config=config))
    (path,) = torch_op.export(request_)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.supported = lambda *given: False
    given = tuple(t.double().requires_grad_() if t.is_floating_point() else t for t in inputs)
    torch.library.opcheck(module.op, given)


def test_the_formats_of_the_contract_are_registered() -> None:
    assert set(registry.names("exporters")) >= {"module", "torch-op", "package", "kernelbench", "report"}
