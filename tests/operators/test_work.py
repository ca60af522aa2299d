"""Work formulas against PyTorch's own counter and against the tensors themselves."""

import pytest
import torch
from gate import outputs
from test_catalogue import NAMES, generator, operator_of, small
from torch.utils.flop_counter import FlopCounterMode

from kernelevolve_lab.operators.base import Work
from kernelevolve_lab.records import Case


def counted(operator, case: Case) -> float:
    inputs = operator.make_inputs(case, generator(0))
    with FlopCounterMode(display=False) as counter:
        operator.reference(*inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"batch_event_truncate"}))
def test_bytes_are_those_of_the_inputs_and_outputs(name: str) -> None:
    operator = operator_of(name)
    for case in (small(operator, case) for case in operator.cases["laptop"]):
        inputs = operator.make_inputs(case, generator(0))
        tensors = (*inputs, *outputs(operator.reference(*inputs)))
        assert operator.work(case).bytes == sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_bytes_of_a_truncation_leave_out_the_values_that_are_dropped() -> None:
    operator = operator_of("batch_event_truncate")
    for case in operator.cases["laptop"]:
        for distribution in operator.distributions:
            case = case.model_copy(update={"distribution": distribution})
            outer, inner, values, limit = operator.make_inputs(case, generator(1))
            kept = operator.reference(outer, inner, values, limit)
            lengths = outer.numel() + inner.numel() + limit.numel() + kept[0].numel() + kept[1].numel()
            assert operator.work(case).bytes == 8 * lengths + 2 * kept[2].numel() * values.element_size()


def test_flops_of_matmul() -> None:
    operator = operator_of("matmul")
    for case in operator.cases["laptop"]:
        assert operator.work(case).flops == counted(operator, case)


def test_flops_of_conv1d_leave_out_the_padding_and_count_the_bias() -> None:
    operator = operator_of("conv1d")
    for case in operator.cases["laptop"]:
        batch, c_in, c_out, length = (case.sizes[key] for key in ("batch", "c_in", "c_out", "length"))
        assert operator.work(case).flops == counted(operator, case) - 4 * batch * c_in * c_out + batch * c_out * length


def test_flops_of_optimized_fm_are_those_of_the_cheaper_association() -> None:
    operator = operator_of("optimized_fm")
    for case in operator.cases["laptop"]:
        x, y = operator.make_inputs(case, generator(0))
        with FlopCounterMode(display=False) as counter:
            torch.bmm(torch.bmm(x, x.transpose(1, 2)), y)
        assert operator.work(case).flops == min(counted(operator, case), counter.get_total_flops())


def test_flops_of_pffn_are_the_products_and_little_else() -> None:
    operator = operator_of("pffn")
    for case in operator.cases["laptop"]:
        products, rest = counted(operator, case), operator.work(case).flops
        assert products < rest < 1.2 * products


def test_the_published_shapes_have_the_published_traffic() -> None:
    """conv1d at its production shape moves 157 MB in fp16: in and out of 2048 x 96 x 200 values each."""
    operator = operator_of("conv1d")
    case = next(case for case in operator.cases["gpu"] if case.sizes["batch"] == 2048 and case.dtype == "float16")
    work = operator.work(case)
    assert isinstance(work, Work)
    assert work.bytes == pytest.approx(157e6, rel=0.01)
