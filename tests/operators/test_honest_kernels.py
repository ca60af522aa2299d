"""Honest float32 kernels that sum in another order or use another algebra must pass the gate on every distribution."""

import math

import numpy as np
import pytest
import torch
from gate import golden, outputs
from gate import judged as verdict
from test_catalogue import generator, judged

from kernelevolve_lab.operators.rows import LAYER_NORM_EPS, RMS_NORM_EPS, SOFTMAX_SCALE


def in_sequence(x: torch.Tensor) -> torch.Tensor:
    """The sum of each row, one float32 addition after the other."""
    return torch.from_numpy(np.add.accumulate(x.numpy(), axis=-1, dtype=np.float32)[..., -1:])


def softmax(x, mask):
    scores = torch.where(mask, x * SOFTMAX_SCALE, -math.inf)
    powers = torch.exp2((scores - scores.amax(-1, keepdim=True)) * math.log2(math.e))
    return powers / in_sequence(powers)


def rms_norm(x, residual, weight):
    hidden = x + residual
    scale = 1.0 / torch.sqrt(in_sequence(hidden * hidden) / hidden.shape[-1] + RMS_NORM_EPS)
    return hidden * (scale * weight), hidden


def layer_norm(x, weight, bias):
    mean = in_sequence(x) / x.shape[-1]
    centred = x - mean
    scale = 1.0 / torch.sqrt(in_sequence(centred * centred) / x.shape[-1] + LAYER_NORM_EPS)
    return centred * scale * weight + bias


def bias_gelu(x, bias):
    u = x + bias
    z = math.sqrt(2 / math.pi) * (u + 0.044715 * u * u * u)
    return u / (1.0 + torch.exp(-2.0 * z))


def in_slices(a, b, width: int = 1):
    total = torch.zeros(*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    for start in range(0, a.shape[-1], width):
        total += a[..., start : start + width] @ b[..., start : start + width, :]
    return total


def conv1d(x, weight, bias):
    padded = torch.nn.functional.pad(x, (1, 1))
    total = bias[None, :, None].expand(x.shape[0], -1, x.shape[2]).clone()
    for tap in range(3):
        total += in_slices(weight[None, :, :, tap], padded[:, :, tap : tap + x.shape[2]])
    return total


def optimized_fm(x, y):
    return in_slices(in_slices(x, x.transpose(1, 2)), y)


def normed(v, weight):
    return v * (1.0 / torch.sqrt(in_sequence(v * v) / v.shape[-1] + 1e-6)) * weight


def pffn(x, w1, b1, g1, w2, b2, g2):
    hidden = normed(bias_gelu(in_slices(x, w1), b1), g1)
    return normed(in_slices(hidden, w2) + b2, g2)


HONEST = {
    "softmax": softmax,
    "rms_norm": rms_norm,
    "layer_norm": layer_norm,
    "bias_gelu": bias_gelu,
    "matmul": in_slices,
    "conv1d": conv1d,
    "optimized_fm": optimized_fm,
    "pffn": pffn,
}


@pytest.mark.parametrize("name", HONEST)
def test_another_order_of_summation_passes(name: str) -> None:
    for operator, case in judged(name):
        inputs = operator.make_inputs(case, generator(11))
        got = outputs(HONEST[name](*inputs))
        for mine, reference, expected in zip(got, outputs(operator.reference(*inputs)), golden(operator, inputs), strict=True):
            found = verdict(operator, mine, reference, expected)
            assert found.ok, f"{case.name}, {case.distribution}: {found.error:.2e} > {found.gate:.2e}"
