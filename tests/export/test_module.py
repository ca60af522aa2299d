"""An exported module is used as a user would use it: in a fresh process that cannot import this package."""

import subprocess
import sys
from pathlib import Path

import pytest

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.export import module
from kernelevolve_lab.export.base import ExportRequest
from kernelevolve_lab.export.source import self_contained
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import (
    Candidate,
    CaseResult,
    ErrorStats,
    Evaluation,
    Evidence,
    OperatorRef,
    Ratio,
    RunConfig,
    TensorSpec,
    Verdict,
)
from kernelevolve_lab.records.run_state import Entry, RunState

KERNEL = """\
#include "kel.h"
#include <cmath>

extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) {
    const float *x = inputs[0].ptr<float>(), *weight = inputs[1].ptr<float>(), *bias = inputs[2].ptr<float>();
    float* y = outputs[0].ptr<float>();
    const std::int64_t rows = inputs[0].size(0), cols = inputs[0].size(1);
    #pragma omp parallel for num_threads(stream.threads)
    for (std::int64_t r = 0; r < rows; ++r) {
        double sum = 0, square = 0;
        for (std::int64_t c = 0; c < cols; ++c) sum += x[r * cols + c];
        const double mean = sum / cols;
        for (std::int64_t c = 0; c < cols; ++c) square += (x[r * cols + c] - mean) * (x[r * cols + c] - mean);
        const double scale = 1 / std::sqrt(square / cols + 1e-5);
        for (std::int64_t c = 0; c < cols; ++c) y[r * cols + c] = float((x[r * cols + c] - mean) * scale * weight[c] + bias[c]);
    }
}
"""


def request(out: Path, source: str = KERNEL, verdict: Verdict = Verdict.CORRECT) -> ExportRequest:
    """A judged LayerNorm candidate; the numbers are made up, as only their being written out matters here."""
    operator: Operator = registry.load("operators", "layer_norm")
    candidate = Candidate(language="cpp", source=source, title='plain "two pass"')
    case = operator.held_out("laptop")[0]
    rows, cols = case.sizes["rows"], case.sizes["cols"]
    specs = tuple(TensorSpec(shape=shape, dtype="float32") for shape in ((rows, cols), (cols,), (cols,)))
    result = CaseResult(case=case, inputs=specs, verdict=verdict, error=ErrorStats(candidate=1e-7, reference=1e-7, gate=1e-5))
    correct = verdict is Verdict.CORRECT
    ratio = Ratio(value=1.25, low=1.21, high=1.29, baseline="torch.compile") if correct else None
    evaluation = Evaluation(
        candidate=candidate.id,
        target="cpu",
        language="cpp",
        verdict=verdict,
        evidence=Evidence.MEASURED,
        reasons=() if correct else ("wrong",),
        speedup=ratio,
        speedups=(ratio,) if ratio else (),
        cases=(result,),
    )
    config = RunConfig(operator=OperatorRef(kind="registered", name="layer_norm", text="layer_norm"), target="cpu", language="cpp")
    return ExportRequest(Entry(candidate, order=1, generation=0, evaluation=evaluation), RunState(run="r1", config=config), out)


def run_alone(path: Path, code: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run code beside the module, in a process where this package cannot be imported."""
    blocked = "import sys; sys.modules['kernelevolve_lab'] = None\n"
    return subprocess.run(
        [sys.executable, "-c", blocked + code],
        cwd=path.parent,
        env={"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(cache), "HOME": str(cache)},
        capture_output=True,
        text=True,
    )


def test_module_runs_alone_and_passes_its_self_test(tmp_path: Path) -> None:
    (path,) = module.export(request(tmp_path))
    ran = run_alone(path, f"import {path.stem} as m; print(*m.self_test(), sep='\\n')", tmp_path / "cache")
    assert ran.returncode == 0, ran.stderr
    assert "odd: right, largest error" in ran.stdout


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
    text = module.module_text(request(tmp_path))
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
