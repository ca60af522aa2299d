"""An exported operator of PyTorch passes PyTorch's own checks, in a process that cannot import this package."""

from pathlib import Path

import pytest
from exported import KERNEL, PYTHON_KERNEL, request, run_alone

from kernelevolve_lab.export import torch_op

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
