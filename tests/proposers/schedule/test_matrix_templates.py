"""The recipes for matrix products and chains of them: every setting tried builds without a warning and is right on small odd shapes."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from kernelevolve_lab import targets
from kernelevolve_lab.languages import abi
from kernelevolve_lab.languages.cpp import CPP
from kernelevolve_lab.operators import loading
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.schedule.templates import TEMPLATES, Template, first_settings, read
from kernelevolve_lab.records import Case

RANDOM_SETTINGS = 3
MARGIN = 128
"""Floats of poison before and after the output, which must still be there after the call."""

MATMUL = [
    {"m": m, "n": n, "k": k} for m, n, k in [(1, 1, 1), (7, 13, 5), (33, 129, 70), (65, 67, 300), (3, 200, 1), (100, 1, 17), (15, 65, 513)]
]
CHAIN = [
    {"b": b, "n": n, "d": d, "k": k}
    for b, n, d, k in [(1, 1, 1, 1), (2, 3, 5, 7), (3, 24, 33, 100), (2, 49, 40, 65), (3, 70, 17, 130), (1, 5, 200, 33), (4, 33, 31, 16)]
]
CONV = [
    {"batch": b, "c_in": i, "c_out": o, "length": length}
    for b, i, o, length in [(1, 1, 1, 1), (2, 3, 5, 2), (3, 17, 9, 31), (2, 5, 33, 65), (1, 20, 15, 200), (5, 7, 7, 7), (9, 4, 6, 129)]
]
RECIPES = {
    "matmul": ("matmul", MATMUL),
    "conv1d": ("conv1d", CONV),
    "conv1d_winograd": ("conv1d", CONV),
    "optimized_fm": ("optimized_fm", CHAIN),
    "pffn": ("pffn", CHAIN),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("builds")


@pytest.fixture(scope="module")
def target():
    return targets.resolve("cpu")


def settings_to_try(template: Template, target) -> list[dict]:
    """The default, the drafts and some at random, always the same ones."""
    draw = random.Random(template.name)
    sampled = [template.space(target).sample(draw) for _ in range(RANDOM_SETTINGS)]
    return [*first_settings(template, template.space(target)), *(setting for setting in sampled if setting is not None)]


def call(kernel, inputs, shape) -> torch.Tensor:
    """The kernel's output on two threads, after checking that nothing beside it was written."""
    memory = torch.full((shape.numel() + 2 * MARGIN,), float("nan"))
    out = memory[MARGIN : MARGIN + shape.numel()].view(shape)
    views = [abi.tensor(t.data_ptr(), t.shape, "float32") for t in (*inputs, out)]
    kernel(abi.array(views[:-1]), abi.array(views[-1:]), abi.Stream(None, 2, 0))
    assert memory[:MARGIN].isnan().all() and memory[-MARGIN:].isnan().all(), "wrote outside of its output"
    return out


def error(got: torch.Tensor, golden: torch.Tensor) -> float:
    return ((got.double() - golden).abs().max() / golden.square().mean().sqrt()).item()


def assert_right(kernel, operator: Operator, case: Case) -> None:
    inputs = operator.make_inputs(case, torch.Generator().manual_seed(7))
    before = [t.clone() for t in inputs]
    reference = operator.reference(*inputs)
    golden = operator.reference(*(t.double() for t in inputs))
    got = call(kernel, inputs, reference.shape)
    gate = max(operator.tolerance.floors["float32"], operator.tolerance.factor * error(reference, golden))
    assert error(got, golden) <= gate, case
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True)), "wrote to its inputs"
    assert torch.equal(got, call(kernel, inputs, reference.shape)), "not the same twice"


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_is_right_on_odd_shapes(name, target, cache):
    operator_name, sizes = RECIPES[name]
    operator = loading.load(loading.ref_of(operator_name))
    template = read(TEMPLATES / "cpp" / f"{name}.cpp.j2")
    assert template.serves(operator.name, target, "cpp")
    settings = settings_to_try(template, target)
    sources = [template.render(setting, operator.name, target) for setting in settings]
    with ThreadPoolExecutor(2) as pool:
        builds = list(pool.map(lambda source: CPP.build(source, target, cache), sources))
    for setting, build in zip(settings, builds, strict=True):
        assert build.artifact is not None and not build.diagnostics, (setting, build.diagnostics)
        kernel = abi.load(build.artifact)
        for i, size in enumerate(sizes):
            distribution = operator.distributions[i % len(operator.distributions)]
            assert_right(kernel, operator, Case(name=str(size), sizes=size, distribution=distribution))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("bits", [128, 256])
def test_narrow_registers_get_narrow_vectors(name, bits, target):
    narrow = target.model_copy(update={"simd_bits": bits, "features": ("avx2",) if bits == 256 else ()})
    template = read(TEMPLATES / "cpp" / f"{name}.cpp.j2")
    settings = settings_to_try(template, narrow)
    assert settings
    for setting in settings:
        assert setting["width"] <= bits
        assert setting["tile_rows"] * setting["tile_vectors"] + setting["tile_vectors"] < 16, "a tile does not fit 16 registers"
        assert "_mm512" not in template.render(setting, RECIPES[name][0], narrow)


@pytest.mark.parametrize(
    ("name", "operator_name", "shapes"),
    [
        ("matmul", "matmul", [(3, 0), (0, 5)]),
        ("matmul", "matmul", [(0, 3), (3, 5)]),
        ("conv1d", "conv1d", [(0, 3, 9), (4, 3, 3), (4,)]),
        ("conv1d_winograd", "conv1d", [(0, 3, 9), (4, 3, 3), (4,)]),
        ("optimized_fm", "optimized_fm", [(2, 3, 0), (2, 3, 4)]),
    ],
)
def test_empty_dimensions(name, operator_name, shapes, target, cache):
    operator = loading.load(loading.ref_of(operator_name))
    template = read(TEMPLATES / "cpp" / f"{name}.cpp.j2")
    setting = template.space(target).default()
    assert setting is not None
    build = CPP.build(template.render(setting, operator_name, target), target, cache)
    assert build.artifact is not None
    inputs = [torch.ones(shape) for shape in shapes]
    expected = operator.reference(*inputs)
    assert torch.equal(call(abi.load(build.artifact), inputs, expected.shape), expected)
