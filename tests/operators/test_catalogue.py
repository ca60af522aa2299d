"""What must hold for every registered operator."""

import subprocess
import sys

import pytest
import torch
from gate import error, gate, golden, outputs

from kernelevolve_lab import registry
from kernelevolve_lab.operators import load, ref_of

NAMES = (
    "batch_event_truncate", "bias_gelu", "conv1d", "layer_norm", "map_id_transform", "matmul", "merge_bucketized_dense", "optimized_fm",
    "pffn", "rms_norm", "softmax",
)  # fmt: skip


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def operator_of(name: str):
    return load(ref_of(name))


def small(operator, case):
    """The case with fewer rows, samples or values, so that a test of all distributions takes seconds."""
    sizes = dict(case.sizes)
    many = next(key for key in ("rows", "m", "batch", "b", "values", "users") if key in sizes)
    while operator.work(case).bytes > 4e6 and sizes[many] > 8:
        sizes[many] = sizes[many] // 2 + 1
        case = case.model_copy(update={"sizes": sizes})
    return case


def judged(name: str):
    """The first visible and the first held-out laptop case, made small, in each distribution."""
    operator = operator_of(name)
    for case in (operator.visible("laptop")[0], operator.held_out("laptop")[0]):
        for distribution in operator.distributions:
            yield operator, small(operator, case.model_copy(update={"distribution": distribution}))


def test_the_eleven_operators_are_registered() -> None:
    assert set(NAMES) <= set(registry.names("operators"))


def test_operators_can_be_described_without_torch() -> None:
    code = (
        "import sys; from kernelevolve_lab.operators import load, ref_of\n"
        f"for name in {NAMES!r}:\n"
        "    operator = load(ref_of(name)); [operator.work(case) for cases in operator.cases.values() for case in cases]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_cases_are_enough_and_well_formed(name: str) -> None:
    operator = operator_of(name)
    assert operator.name == name
    assert len(operator.distributions) >= 3
    for profile in ("laptop", "gpu", "emulated"):
        cases = operator.cases[profile]
        assert len(operator.visible(profile)) >= 2
        assert len(operator.held_out(profile)) >= 1
        assert len({case.name for case in cases}) == len(cases)
        assert {case.distribution for case in cases} <= set(operator.distributions)
        shown = [case.sizes for case in operator.visible(profile)]
        assert all(case.sizes not in shown for case in operator.held_out(profile))
        odd = [value for case in operator.held_out(profile) for value in case.sizes.values() if value % 2]
        assert odd, "no held-out case with an odd size"
    assert all(name in operator.semantics for name in operator.input_names)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_repeatable_fresh_and_contiguous(name: str) -> None:
    operator = operator_of(name)
    for case in operator.cases["laptop"]:
        first, again, other = (operator.make_inputs(case, generator(seed)) for seed in (1, 1, 2))
        assert len(first) == len(operator.input_names)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert [t.shape for t in first] == [t.shape for t in other]
        assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
        assert all(tensor.is_contiguous() and tensor.storage_offset() == 0 for tensor in first)
        assert all(bool(torch.isfinite(t).all()) for t in first if t.is_floating_point()) or name == "merge_bucketized_dense"
        drawn = generator(3)
        one, two = operator.make_inputs(case, drawn), operator.make_inputs(case, drawn)
        assert any(not torch.equal(a, b) for a, b in zip(one, two, strict=True)), "the generator does not advance"


@pytest.mark.parametrize("name", NAMES)
def test_trivial_outputs_fail_the_gate(name: str) -> None:
    """Zeros, a copy of any input of the right shape, and the mean: each fails by far for every output alone."""
    for operator, case in judged(name):
        inputs = operator.make_inputs(case, generator(4))
        for got, expected in zip(outputs(operator.reference(*inputs)), golden(operator, inputs), strict=True):
            bound = gate(operator, got, expected)
            trivial = {"zeros": torch.zeros_like(got), "mean": torch.full_like(got, expected.double().mean().item())}
            trivial |= {f"input {i}": t.to(got.dtype) for i, t in enumerate(inputs) if t.shape == got.shape}
            for label, output in trivial.items():
                assert error(output, expected) > 10 * bound, f"{case.name}, {case.distribution}: {label} passes"


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_passes_its_own_gate_and_leaves_inputs_alone(name: str) -> None:
    for operator, case in judged(name):
        inputs = operator.make_inputs(case, generator(5))
        kept = tuple(tensor.clone() for tensor in inputs)
        got, again = outputs(operator.reference(*inputs)), outputs(operator.reference(*inputs))
        assert all(torch.equal(a, b) for a, b in zip(inputs, kept, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
        for output, expected in zip(got, golden(operator, inputs), strict=True):
            assert output.shape == expected.shape
            assert bool(torch.isfinite(expected.double()).all())
            assert error(output, expected) <= gate(operator, output, expected)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_in_place_of_single_fails_the_gate(name: str) -> None:
    operator = operator_of(name)
    for case in operator.visible("laptop"):
        if case.dtype != "float32":
            continue
        case = small(operator, case)
        inputs = operator.make_inputs(case, generator(6))
        lower = tuple(tensor.bfloat16() if tensor.is_floating_point() else tensor for tensor in inputs)
        pairs = list(zip(outputs(operator.reference(*inputs)), outputs(operator.reference(*lower)), golden(operator, inputs), strict=True))
        assert any(error(low, expected) > gate(operator, got, expected) for got, low, expected in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_cases_can_be_judged(name: str) -> None:
    """In every dtype of the GPU profile float16 does not overflow, zeros fail, and some distribution has a tight gate (of an output with
    values of very different sizes, where rounding alone is a large part of the RMS, the gate is wide)."""
    operator = operator_of(name)
    held_out = operator.held_out("laptop")[0]
    for dtype in {case.dtype for case in operator.cases["gpu"]}:
        bounds = []
        for distribution in operator.distributions:
            case = small(operator, held_out.model_copy(update={"dtype": dtype, "distribution": distribution}))
            inputs = operator.make_inputs(case, generator(7))
            for got, expected in zip(outputs(operator.reference(*inputs)), golden(operator, inputs), strict=True):
                assert bool(torch.isfinite(got.double()).all())
                bounds.append(gate(operator, got, expected))
                assert error(torch.zeros_like(got), expected) > 4 * bounds[-1], f"{dtype}, {distribution}"
        assert min(bounds) < 0.15, f"{dtype}: {bounds}"
