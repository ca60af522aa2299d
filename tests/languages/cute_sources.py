"""CuTe DSL sources that the tests of this room build."""

COPY = """import torch
import cutlass
import cutlass.cute as cute
from cutlass.cute.runtime import from_dlpack


@cute.kernel
def copy_kernel(x: cute.Tensor, y: cute.Tensor):
    thread, _, _ = cute.arch.thread_idx()
    block, _, _ = cute.arch.block_idx()
    i = block * 128 + thread
    if i < cute.size(x):
        BODY


@cute.jit
def copy(x: cute.Tensor, y: cute.Tensor):
    copy_kernel(x, y).launch(grid=((cute.size(x) + 127) // 128, 1, 1), block=(128, 1, 1))


def kernel(x):
    y = torch.empty_like(x)
    copy(from_dlpack(x.view(-1)), from_dlpack(y.view(-1)))
    return y
"""

PLAIN = COPY.replace("BODY", "y[i] = x[i]")

DYNAMIC = PLAIN.replace(".view(-1))", ".view(-1)).mark_layout_dynamic()")
"""Sizes are values of the run, so the grid is worked out by compiled host code."""

SHARED = COPY.replace(
    "    if i < cute.size(x):\n        BODY",
    """    held = cutlass.memory.SmemAllocator().allocate_tensor(cutlass.Float32, cute.make_layout(WORDS))
    held[thread] = x[i]
    cute.arch.sync_threads()
    y[i] = held[127 - thread]""",
)

MODEL = (
    PLAIN[: PLAIN.index("def kernel")]
    + """class ModelNew(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))

    def forward(self, x, again):
        y = torch.empty_like(x)
        for _ in range(again):
            copy(from_dlpack(x.view(-1)), from_dlpack(self.weight.detach()))
        return y
"""
)
