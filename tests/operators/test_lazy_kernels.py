"""Kernels that leave out what the semantics ask for: each must fail the gate under some distribution."""

import pytest
import torch
from gate import golden, outputs
from gate import judged as verdict
from test_catalogue import generator, judged

from kernelevolve_lab.operators.jagged import batch_event_truncate
from kernelevolve_lab.operators.rows import SOFTMAX_SCALE


def rms_norm_without_eps(x, residual, weight):
    hidden = x + residual
    return hidden / hidden.square().mean(-1, keepdim=True).sqrt() * weight, hidden


def layer_norm_without_eps(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred / centred.square().mean(-1, keepdim=True).sqrt() * weight + bias


def softmax_without_maximum(x, mask):
    powers = torch.exp(x * SOFTMAX_SCALE) * mask
    return powers / powers.sum(-1, keepdim=True)


def softmax_by_a_cubic(x, mask):
    """exp2 of the fraction by a polynomial of degree 3, which is off by up to 2e-4."""
    scores = (x.masked_fill(~mask, -float("inf")) * SOFTMAX_SCALE * 1.44269504).clamp(min=-1e4)
    scores = scores - scores.amax(-1, keepdim=True)
    whole = scores.round()
    rest = scores - whole
    powers = torch.ldexp(((0.0558263 * rest + 0.2401397) * rest + 0.6931471) * rest + 0.9999999, whole.clamp(min=-149)) * mask
    return powers / powers.sum(-1, keepdim=True)


def ids_by_their_low_halves(values, table):
    place = {int(id) & 0xFFFFFFFF: index + 1 for index, id in enumerate(table.tolist())}
    return torch.tensor([place.get(value & 0xFFFFFFFF, 0) for value in values.tolist()])


def ids_within_the_table_alone(values, table):
    """Right for values between the least and the greatest id."""
    index = torch.bucketize(values.clamp(int(table[0]), int(table[-1])), table)
    return torch.where(table[index] == values.clamp(int(table[0]), int(table[-1])), index + 1, 0)


def any_of_equal_borders(x, borders, offsets):
    """A search that ends at a border that equals the value, be it the last of several."""
    below, upto = torch.searchsorted(borders, x), torch.searchsorted(borders, x, right=True)
    return torch.where(upto > below, upto - 1, below) + offsets.unsqueeze(1)


def borders_by_their_bits(x, borders, offsets):
    def key(values):
        bits = values.view(torch.int32)
        return bits ^ ((bits >> 31) & 0x7FFFFFFF)

    below = key(borders).unsqueeze(1) < key(x).unsqueeze(2)
    return below.sum(2) + offsets.unsqueeze(1)


def offsets_from_counts(x, borders, offsets):
    sizes = torch.isfinite(borders).sum(1) + 1
    return torch.searchsorted(borders, x) + (offsets[0] + sizes.cumsum(0) - sizes).unsqueeze(1)


def attributes_in_a_byte(outer, inner, values, limit):
    kept = batch_event_truncate(outer, inner, values, limit)
    short = batch_event_truncate(outer, inner & 0xFF, values[: int((inner & 0xFF).sum())], limit)[2]
    return kept[0], kept[1], torch.cat([short, values.new_zeros(kept[2].numel() - short.numel())])


LAZY = {
    "rms_norm": [rms_norm_without_eps],
    "layer_norm": [layer_norm_without_eps],
    "softmax": [softmax_without_maximum, softmax_by_a_cubic],
    "map_id_transform": [ids_by_their_low_halves, ids_within_the_table_alone],
    "merge_bucketized_dense": [any_of_equal_borders, borders_by_their_bits, offsets_from_counts],
    "batch_event_truncate": [attributes_in_a_byte],
}


@pytest.mark.parametrize(("name", "kernel"), [(name, kernel) for name, kernels in LAZY.items() for kernel in kernels])
def test_leaving_something_out_shows(name: str, kernel) -> None:
    wrong = set()
    for operator, case in judged(name):
        inputs = operator.make_inputs(case, generator(12))
        answers = zip(outputs(kernel(*inputs)), outputs(operator.reference(*inputs)), golden(operator, inputs), strict=True)
        if not all(verdict(operator, got, own, expected).ok for got, own, expected in answers):
            wrong.add(case.distribution)
    assert wrong, f"{kernel.__name__} is right under every distribution of {name}"
