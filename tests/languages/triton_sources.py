"""Triton sources that the tests of this room build."""

SCALE = """import torch
import triton
import triton.language as tl


@triton.jit
def scale(x, y, n, factor, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, factor * tl.load(x + i, mask=i < n), mask=i < n)


"""

ENTRY = """def kernel(x):
    assert x.is_cuda and x.device.type == "cuda" and torch.cuda.is_available()
    y = torch.empty(x.shape, dtype=x.dtype, device="cuda")
    n = x.numel()
    scale[(triton.cdiv(n, 1024),)](x, y, n, 2.0, BLOCK=1024)
    return y
"""

WRONG_TYPE = SCALE.replace("mask=i < n)\n", "mask=i < n) + undefined\n", 1) + ENTRY

TUNED = (
    SCALE.replace(
        "@triton.jit",
        """@triton.autotune(
    [triton.Config({"BLOCK": 256}, num_warps=2), triton.Config({"BLOCK": 4096}), triton.Config({"BLOCK": 1000})], key=["n"]
)
@triton.jit""",
    )
    + """def kernel(x):
    y = torch.empty_like(x)
    scale[lambda meta: (triton.cdiv(x.numel(), meta["BLOCK"]),)](x, y, x.numel(), 2.0)
    return y
"""
)

MODEL = (
    SCALE
    + """class ModelNew(torch.nn.Module):
    def __init__(self, size, factor):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))
        self.factor = factor

        self.to("cuda").cuda()

    def forward(self, x, plus):
        y = torch.empty_like(x)
        scale[(triton.cdiv(x.numel(), 512),)](x, y, x.numel(), self.factor + plus, BLOCK=512)
        assert self.weight.device == x.device
        return y
"""
)

BY_VALUE = SCALE + ENTRY.replace("n = x.numel()", "n = int(x.sum().item())")

PRODUCT = """import torch
import triton
import triton.language as tl


@triton.jit
def product(a, b, c, K, BLOCK: tl.constexpr):
    i, k = tl.arange(0, BLOCK), tl.arange(0, 64)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for at in range(0, K, 64):
        left = tl.load(a + i[:, None] * K + at + k[None, :])
        right = tl.load(b + (at + k)[:, None] * BLOCK + i[None, :])
        total = tl.dot(left, right, total)
    tl.store(c + i[:, None] * BLOCK + i[None, :], total)


def kernel(a, b):
    c = torch.empty((a.shape[0], b.shape[1]), device=a.device)
    product[(1,)](a, b, c, a.shape[1], BLOCK=128, num_warps=4, num_stages=STAGES)
    return c
"""
