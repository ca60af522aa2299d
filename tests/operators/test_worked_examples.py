"""Worked examples: the published ones (arXiv 2512.23236, sections 5.4.1, 5.4.2 and 5.5) and small ones by hand."""

import math

import torch

from kernelevolve_lab.operators.chains import optimized_fm, pffn
from kernelevolve_lab.operators.elementwise import bias_gelu
from kernelevolve_lab.operators.gemm import conv1d, matmul
from kernelevolve_lab.operators.jagged import batch_event_truncate
from kernelevolve_lab.operators.lookup import map_id_transform, merge_bucketized_dense
from kernelevolve_lab.operators.rows import layer_norm, rms_norm, softmax


def test_map_id_transform() -> None:
    out = map_id_transform(torch.tensor([100, 300, 500, 200, 999]), torch.arange(100, 501, 100))
    assert out.tolist() == [1, 3, 5, 2, 0]
    assert out.dtype == torch.int64


def test_map_id_transform_at_the_ends_of_the_table() -> None:
    assert map_id_transform(torch.tensor([-5, 7, 6, 8, 2**63 - 1, -(2**63)]), torch.tensor([7])).tolist() == [0, 1, 0, 0, 0, 0]


def test_merge_bucketized_dense() -> None:
    x = torch.tensor([[0.1, 0.4, 0.8], [0.2, 0.5, 0.9]])
    borders = torch.tensor([[0.3, 0.6], [0.4, 0.7]])
    assert merge_bucketized_dense(x, borders, torch.tensor([0, 3])).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_merge_bucketized_dense_puts_a_value_on_a_border_into_the_lower_bucket() -> None:
    borders = torch.tensor([[1.0, 2.0, math.inf]])
    assert merge_bucketized_dense(torch.tensor([[1.0, 1.5, 2.0, 2.5]]), borders, torch.tensor([10])).tolist() == [[10, 11, 11, 12]]


def test_batch_event_truncate() -> None:
    outer = torch.tensor([[3, 4, 1], [3, 4, 1]])
    inner = torch.tensor([1, 0, 2, 0, 3, 1, 1, 1, *[1] * 8])
    values = torch.tensor([*range(1, 10), *range(1, 9)])
    outer_out, inner_out, values_out = batch_event_truncate(outer, inner, values, torch.tensor(2))
    assert outer_out.tolist() == [[2, 2, 1], [2, 2, 1]]
    assert inner_out.tolist() == [1, 0, 0, 3, 1, 1, 1, 1, 1, 1]
    assert values_out.tolist() == [1, 4, 5, 6, 9, 1, 2, 4, 5, 8]


def test_softmax_scales_then_masks() -> None:
    x = torch.tensor([[0.0, 8.0 * math.log(3.0), 1e4], [5.0, 5.0, 5.0]])
    mask = torch.tensor([[True, True, False], [False, True, False]])
    torch.testing.assert_close(softmax(x, mask), torch.tensor([[0.25, 0.75, 0.0], [0.0, 1.0, 0.0]]))


def test_rms_norm_adds_the_residual_first() -> None:
    y, hidden = rms_norm(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 2.0]]), torch.tensor([1.0, 10.0]))
    assert hidden.tolist() == [[3.0, 4.0]]
    root = math.sqrt(12.5 + 1e-6)
    torch.testing.assert_close(y, torch.tensor([[3.0 / root, 40.0 / root]]))


def test_layer_norm_divides_by_the_biased_deviation() -> None:
    y = layer_norm(torch.tensor([[1.0, 3.0]]), torch.tensor([2.0, 1.0]), torch.tensor([0.5, -0.5]))
    scaled = 1.0 / math.sqrt(1.0 + 1e-5)
    torch.testing.assert_close(y, torch.tensor([[-2.0 * scaled + 0.5, scaled - 0.5]]))


def test_bias_gelu_is_the_tanh_form() -> None:
    u = 1.5
    expected = 0.5 * u * (1 + math.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
    got = bias_gelu(torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64))
    assert abs(float(got) - expected) < 1e-12
    assert abs(float(got) - 0.5 * u * (1 + math.erf(u / math.sqrt(2)))) > 1e-6


def test_matmul() -> None:
    assert matmul(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])).tolist() == [[11.0]]


def test_conv1d_pads_with_zeros_and_does_not_flip() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0]]])
    assert conv1d(x, torch.tensor([[[1.0, 10.0, 100.0]]]), torch.tensor([0.5])).tolist() == [[[210.5, 321.5, 32.5]]]


def test_optimized_fm_in_both_associations() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(optimized_fm(x, y), torch.bmm(torch.bmm(x, x.transpose(1, 2)), y))


def test_pffn_step_by_step() -> None:
    generator = torch.Generator().manual_seed(0)
    b, n, d, k = 2, 3, 4, 5

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, w1, b1, g1, w2, b2, g2 = draw(b, n, d), draw(b, d, k), draw(b, 1, k), draw(k), draw(b, k, d), draw(b, 1, d), draw(d)
    for s in range(b):
        u = x[s] @ w1[s] + b1[s]
        h = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
        h = h / torch.sqrt((h * h).mean(-1, keepdim=True) + 1e-6) * g1
        o = h @ w2[s] + b2[s]
        o = o / torch.sqrt((o * o).mean(-1, keepdim=True) + 1e-6) * g2
        torch.testing.assert_close(pffn(x, w1, b1, g1, w2, b2, g2)[s], o)
