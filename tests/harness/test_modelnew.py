"""KernelBench's `ModelNew`, unchanged: weights, several outputs, integer inputs, constants of its own, and who passes for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_operator import FAST

from kernelevolve_lab.harness import module_spec
from kernelevolve_lab.harness.judge import Judge
from kernelevolve_lab.operators.base import ModuleSpec
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.records import Candidate, Evaluation, Verdict
from kernelevolve_lab.targets import resolve

TASK = """
import torch
import torch.nn as nn

class Model(nn.Module):
    def __init__(self, in_features, out_features, shape):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.bias = nn.Parameter(torch.randn(shape))

    def forward(self, x, k):
        y = torch.relu(self.linear(x)) + self.bias
        return y, y.gather(1, k)

batch = 64
N = 128
M = 96

def get_inputs():
    return [torch.rand(batch, N), torch.randint(0, M, (batch, 4))]

def get_init_inputs():
    return [N, M, (M,)]
"""
KERNEL = '''
import ctypes, subprocess
open("k.c", "w").write("""
void run(const float* x, const float* b, float* y, long rows, long cols) {
  for (long i = 0; i < rows; ++i)
    for (long j = 0; j < cols; ++j) y[i * cols + j] = (x[i * cols + j] > 0 ? x[i * cols + j] : 0) + b[j];
}
""")
subprocess.run(["gcc", "-O3", "-shared", "-fPIC", "-o", "k.so", "k.c"], check=True)
lib = ctypes.CDLL("./k.so")
lib.run.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_long] * 2

def relu_bias(x, b):
    y = torch.empty_like(x)
    lib.run(x.data_ptr(), b.data_ptr(), y.data_ptr(), *x.shape)
    return y

'''
SAME = TASK.replace("class Model(", "class ModelNew(")
OWN = SAME.replace("class ModelNew", KERNEL + "class ModelNew").replace(
    "torch.relu(self.linear(x)) + self.bias", "relu_bias(self.linear(x), self.bias)"
)
RENAMED = OWN.replace(
    "self.linear = nn.Linear(in_features, out_features)",
    "made = nn.Linear(in_features, out_features); self.w, self.b = made.weight, made.bias",
).replace("self.linear(x)", "torch.nn.functional.linear(x, self.w, self.b)")
PACKED = OWN.replace("self.linear(x)", "self.product(x)").replace(
    "    def forward",
    """    packed = None

    def product(self, x):
        if self.packed is None:
            self.packed = self.linear.weight.t().contiguous()
        return torch.addmm(self.linear.bias, x, self.packed)

    def forward""",
)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Evaluation]]:
    folder = tmp_path_factory.mktemp("task")
    (folder / "linear_relu.py").write_text(TASK)
    with Judge(
        ref_of(Path(folder, "linear_relu.py")), resolve("cpu"), cache=folder, settings=replace(FAST, call_seconds=5.0), seed=0
    ) as judge:
        yield lambda source: judge.evaluate(Candidate(language="python", source=source))


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(OWN, id="as written"),
        pytest.param(OWN.replace("N = 128", "N = 1").replace("batch = 64", "batch = 1"), id="its own constants have no effect"),
        pytest.param(RENAMED, id="state under other names, made under the same seed"),
        pytest.param(f"{OWN}\nget_inputs = get_init_inputs = Model = None\n", id="its own inputs have no effect"),
    ],
)
def test_an_honest_module_is_correct(judged: Callable[[str], Evaluation], source: str):
    found = judged(source)
    assert found.verdict is Verdict.CORRECT, found.reasons
    assert found.speedup is not None and all(result.inputs[0].shape[-1] > 1 for result in found.cases)


@pytest.mark.parametrize(
    ("source", "verdict", "reason"),
    [
        pytest.param(SAME, Verdict.CHEATING, "wrapper", id="the reference itself"),
        pytest.param(RENAMED.replace("made =", "torch.rand(3); made ="), Verdict.INCORRECT, "passes the gate", id="other random numbers"),
        pytest.param(PACKED, Verdict.INCORRECT, "passes the gate", id="weights kept from an earlier call"),
        pytest.param("import torch\nclass ModelNew(torch.nn.Module):\n    pass\n", Verdict.CRASHED, "TypeError", id="another constructor"),
        pytest.param("class ModelNew(Model):\n    pass\n", Verdict.CRASHED, "name 'Model' is not defined", id="inherits the reference"),
    ],
)
def test_what_is_not_the_same_model_is_found(judged: Callable[[str], Evaluation], source: str, verdict: Verdict, reason: str):
    found = judged(source)
    assert found.verdict is verdict and reason in found.reasons[0], found.reasons


def test_a_spec_survives_as_text():
    spec = ModuleSpec(2, (3, (4, 5), [6.5, None], {"a": (True,), 7: "b"}), {1: (2, 3)}, ("w", "b"), False, 42)
    assert module_spec.from_text(module_spec.to_text(spec)) == spec
    with pytest.raises(TypeError):
        module_spec.to_text(ModuleSpec(1, (object(),)))
