"""Operators made from functions and modules."""

import pytest
import torch
from gate import error, gate, golden, outputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from kernelevolve_lab.operators.function import from_callable
from kernelevolve_lab.operators.likeness import DISTRIBUTIONS, Likeness


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def project(x, weight):
    return torch.softmax(x, -1) @ weight, x.amax(-1)


def test_cases_work_and_semantics_come_from_the_example() -> None:
    operator = from_callable(project, (torch.randn(32, 64), torch.randn(64, 16)))
    assert operator.input_names == ("x", "weight")
    visible, held_out = operator.cases["laptop"]
    assert (visible.held_out, held_out.held_out) == (False, True)
    assert visible.distribution != held_out.distribution
    assert len(operator.distributions) == 3
    work = operator.work(visible)
    assert work.flops == 2 * 32 * 64 * 16
    assert work.bytes == 4 * (32 * 64 + 64 * 16 + 32 * 16 + 32)
    assert "x [32, 64] float32" in operator.semantics
    assert "torch.softmax(x, -1) @ weight" in operator.semantics


def test_inputs_are_fresh_and_trivial_outputs_fail() -> None:
    operator = from_callable(project, (torch.randn(32, 64), torch.randn(64, 16)))
    for distribution in operator.distributions:
        case = operator.cases["laptop"][0].model_copy(update={"distribution": distribution})
        one, two = operator.make_inputs(case, generator(1)), operator.make_inputs(case, generator(2))
        assert all(not torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(one, operator.make_inputs(case, generator(1)), strict=True))
        for got, expected in zip(outputs(operator.reference(*one)), golden(operator, one), strict=True):
            bound = gate(operator, got, expected)
            assert error(got, expected) <= bound
            assert error(torch.zeros_like(got), expected) > 10 * bound
            assert error(torch.full_like(got, float(expected.mean())), expected) > 10 * bound


def test_a_distribution_outside_the_functions_domain_is_left_out() -> None:
    def root_of_first_column(x):
        return torch.sqrt(x - x.min()) if bool((x[:, 0] == x[:, 0].min()).all()) else torch.full_like(x, torch.nan)

    example = torch.ones(4, 4)
    example[:, 1:] = 2.0
    with pytest.raises(Exception, match="not finite"):
        from_callable(root_of_first_column, (example,))
    positive = from_callable(torch.log, (torch.rand(64, 64) + 0.5,))
    assert positive.distributions == tuple(DISTRIBUTIONS)


def test_several_examples_hold_the_last_one_out() -> None:
    operator = from_callable(
        project, [(torch.randn(8, 4), torch.randn(4, 2)), (torch.randn(6, 4), torch.randn(4, 2)), (torch.randn(5, 3), torch.randn(3, 2))]
    )
    cases = operator.cases["laptop"]
    assert [case.held_out for case in cases] == [False, False, True]
    assert [operator.make_inputs(case, generator())[0].shape for case in cases] == [(8, 4), (6, 4), (5, 3)]
    assert operator.work(cases[2]).flops == 2 * 5 * 3 * 2


def test_a_function_of_inputs_is_called_for_each_draw_and_leaves_torchs_random_state_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    operator = from_callable(torch.exp, lambda: (torch.randn(16, 16),))
    case = operator.cases["laptop"][0]
    one, again, other = (operator.make_inputs(case, generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


class Gated(nn.Module):
    """A module with every kind of state: parameters, buffers and a plain tensor, one of them written to in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.norm = nn.BatchNorm1d(16)
        self.register_buffer("table", torch.arange(16.0))
        self.start = torch.full((16,), 0.5)

    def forward(self, x, power: int):
        return torch.relu(self.norm(self.linear(x))) ** power + self.table * self.start


def test_a_modules_state_is_inputs_after_its_arguments() -> None:
    module = Gated()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    operator = from_callable(module, (torch.randn(32, 16), 2))
    spec = operator.module(operator.cases["laptop"][0])
    assert spec.arguments == 1
    assert dict(spec.constants) == {1: 2}
    assert set(spec.state) == {*before, "start"}
    assert operator.input_names == ("x", *spec.state)

    inputs = operator.make_inputs(operator.cases["laptop"][0], generator())
    kept = tuple(tensor.clone() for tensor in inputs)
    got, again = operator.reference(*inputs), operator.reference(*inputs)
    assert torch.equal(got, again)
    assert all(torch.equal(a, b) for a, b in zip(inputs, kept, strict=True)), "running statistics were written into an input"
    state = {name: tensor for name, tensor in zip(spec.state, inputs[1:], strict=True) if name != "start"}
    torch.testing.assert_close(got, functional_call(module, {n: t.clone() for n, t in state.items()}, (inputs[0], 2)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items()), "the user's module changed"
    assert golden(operator, inputs)[0].dtype == torch.float64


class Chained(nn.Module):
    """A module that keeps a function bound to one of its own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        layer = self.layer
        self.chain = lambda x: torch.tanh(layer(x))

    def forward(self, x):
        return self.chain(x)


def test_functions_that_a_module_keeps_use_the_state_that_is_given() -> None:
    operator = from_callable(Chained(), (torch.randn(4, 8),))
    x, weight, bias = operator.make_inputs(operator.cases["laptop"][0], generator())
    torch.testing.assert_close(operator.reference(x, weight, bias), torch.tanh(x @ weight.T + bias))


def test_a_modules_parameters_are_drawn_fresh_and_its_tables_kept() -> None:
    module = Gated()
    operator = from_callable(module, (torch.randn(32, 16), 1))
    case = operator.cases["laptop"][0]
    names = operator.input_names
    one, two = (dict(zip(names, operator.make_inputs(case, generator(seed)), strict=True)) for seed in (1, 2))
    assert torch.equal(one["table"], module.table)
    for name, parameter in module.named_parameters():
        assert not torch.equal(one[name], two[name])
        assert one[name].shape == parameter.shape


@given(
    st.integers(1, 300), st.sampled_from([torch.int64, torch.int32, torch.uint8]), st.sampled_from(list(DISTRIBUTIONS)), st.integers(0, 99)
)
@settings(max_examples=100, deadline=None)
def test_integers_stay_in_the_range_of_the_example(count: int, dtype: torch.dtype, distribution: str, seed: int) -> None:
    example = torch.randint(3, 250, (count,), generator=generator(seed)).to(dtype)
    drawn = Likeness.of(example).draw(distribution, generator(seed + 1))
    assert (drawn.dtype, drawn.shape) == (dtype, example.shape)
    assert int(drawn.min()) >= int(example.min())
    assert int(drawn.max()) <= int(example.max())
    if distribution == "alike":
        assert int(drawn.long().sum()) == int(example.long().sum())


@given(st.lists(st.integers(0, 20), min_size=3, max_size=40), st.sampled_from(list(DISTRIBUTIONS)))
@settings(max_examples=100, deadline=None)
def test_offsets_stay_offsets(lengths: list[int], distribution: str) -> None:
    example = torch.tensor([0, *lengths, 1]).cumsum(0)
    drawn = Likeness.of(example).draw(distribution, generator())
    assert bool((drawn[1:] >= drawn[:-1]).all())
    assert (int(drawn[0]), int(drawn[-1])) == (int(example[0]), int(example[-1]))


@given(st.floats(-100, 100), st.floats(0.01, 100), st.sampled_from(list(DISTRIBUTIONS)))
@settings(max_examples=50, deadline=None)
def test_floats_stay_in_the_range_of_the_example(low: float, width: float, distribution: str) -> None:
    example = low + width * torch.rand(200, generator=generator())
    drawn = Likeness.of(example).draw(distribution, generator(1))
    slack = 1e-6 * max(abs(low), width)
    assert float(drawn.min()) >= float(example.min()) - slack
    assert float(drawn.max()) <= float(example.max()) + slack


def test_a_large_example_is_not_carried_along() -> None:
    likeness = Likeness.of(torch.randn(1 << 20))
    assert likeness.sample.numel() < 1 << 15
    drawn = likeness.draw("alike", generator())
    assert drawn.shape == (1 << 20,)
    assert abs(float(drawn.std()) - 1) < 0.05
