"""KernelBench task files: sizes, state, distributions, and what goes wrong."""

import ast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.operators.kernelbench import from_task
from kernelevolve_lab.operators.task_scaling import MAX_BYTES, MAX_FLOPS
from kernelevolve_lab.operators.task_source import constants, rescaled

LINEAR = """
import torch
import torch.nn as nn

class Model(nn.Module):
    def __init__(self, width, scale):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.scale = scale

    def forward(self, x, index):
        return self.norm(self.linear(x))[index] * self.scale, index + 1

batch_size = 1024
width = 2048 * 4

def get_inputs():
    return [torch.rand(batch_size, width), torch.randint(0, batch_size, (batch_size,))]

def get_init_inputs():
    return [width, 0.5]
"""

POINTWISE = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return {body}

rows = {rows}

def get_inputs():
    return [torch.rand(rows, 1024)]
"""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_task_is_scaled_for_the_laptop_and_as_written_for_the_gpu() -> None:
    operator = from_task(LINEAR, "linear")
    small, held_out = operator.cases["laptop"]
    assert operator.cases["gpu"][0].sizes == {"batch_size": 1024, "width": 8192}
    assert small.sizes["width"] < 8192
    assert "width 8192 →" in small.name
    assert "width 8192 →" in operator.title
    work = operator.work(small)
    assert work.bytes <= MAX_BYTES
    assert work.flops <= MAX_FLOPS
    assert held_out.held_out
    assert held_out.sizes != small.sizes
    inputs = operator.make_inputs(small, generator())
    outs = operator.reference(*inputs)
    assert work.bytes == sum(tensor.numel() * tensor.element_size() for tensor in (*inputs, *outs))
    assert work.flops == 2 * small.sizes["batch_size"] * small.sizes["width"] ** 2


def test_the_reference_is_the_model_at_the_inputs_sizes() -> None:
    operator = from_task(LINEAR, "linear")
    namespace: dict = {}
    exec(LINEAR, namespace)
    for case in operator.cases["laptop"]:
        inputs = operator.make_inputs(case, generator(1))
        spec = operator.module(case)
        assert inputs[1].dtype == torch.int64
        torch.manual_seed(spec.seed)
        model = namespace["Model"](*spec.init_inputs)
        assert spec.init_inputs == (case.sizes["width"], 0.5)
        model.load_state_dict(dict(zip(spec.state, inputs[spec.arguments :], strict=True)))
        expected = model(*inputs[: spec.arguments])
        for got, wanted in zip(operator.reference(*inputs), expected, strict=True):
            assert torch.equal(got, wanted)
        wide = operator.reference(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs))
        assert wide[0].dtype == torch.float64


def test_only_distributions_with_a_finite_golden_are_kept() -> None:
    assert from_task(POINTWISE.format(body="torch.relu(x)", rows=64), "relu").distributions == ("given", "signed", "heavy_tailed")
    assert from_task(POINTWISE.format(body="torch.log(x + 1e-3)", rows=64), "log").distributions == ("given",)
    with pytest.raises(BadInput, match="not finite"):
        from_task(POINTWISE.format(body="x / 0", rows=64), "division")


def test_sizes_that_must_agree_are_scaled_together() -> None:
    source = """
import torch
class Model(torch.nn.Module):
    def forward(self, x, y):
        return x * y
batch_size = 32768
shape = (32768,)
def get_inputs():
    return [torch.rand(batch_size, *shape), torch.rand(batch_size)]
"""
    operator = from_task(source, "agreeing")
    sizes = operator.cases["laptop"][0].sizes
    assert sizes["batch_size"] == sizes["shape[0]"] < 32768


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (POINTWISE.format(body="x", rows="10 ** 5 * 10"), "GiB"),
        ("import no_such_library\n" + POINTWISE.format(body="x", rows=4), "imports 'no_such_library'"),
        (POINTWISE.format(body="x", rows=4) + "\nraise ValueError('no data')", "fails when it is loaded: ValueError: no data"),
        (POINTWISE.format(body="x", rows=4) + "\nimport sys\nsys.exit(3)", "fails when it is loaded: SystemExit"),
        (POINTWISE.format(body="x", rows=4) + "\ndef get_init_inputs():\n    return [1]", "Model of the task bad cannot be built"),
        (POINTWISE.format(body="x", rows=4) + "\ndef get_inputs():\n    return torch.nope()", "get_inputs of the task bad fails"),
        (POINTWISE.format(body="x", rows=4) + "\ndef get_inputs():\n    return []", "must return a list"),
        (POINTWISE.format(body="x @ x", rows=4), "fails on its own inputs"),
        (POINTWISE.format(body="float(x.sum())", rows=4), "returns float"),
    ],
)
def test_a_task_that_cannot_be_judged(source: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        from_task(source, "bad")


def test_integer_constants_are_found_and_nothing_else() -> None:
    source = "a = 3\nb = 2 * a\nc = 4 * 1024\nd = (8, 16.0, -2)\ne = True\nf = 1.5\ndef g():\n    h = 7\n"
    assert constants(ast.parse(source)) == {"a": 3, "c": 4096, "d[0]": 8}


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_rescaling_changes_the_named_constants_alone(first: int, second: int) -> None:
    source = "é = 'ü'; a = 2 * (\n    8)  # a\nb = (16, 32)\nc = a\n"
    text = rescaled(source, {"a": first, "b[1]": second})
    namespace: dict = {}
    exec(text, namespace)
    assert (namespace["a"], namespace["b"], namespace["c"], namespace["é"]) == (first, (16, second), first, "ü")
    assert rescaled(source, {}) == source


def test_a_constant_of_zero_may_stay() -> None:
    assert rescaled("padding = 0\nsize = 8\n", {"padding": 0, "size": 4}) == "padding = 0\nsize = 4\n"
