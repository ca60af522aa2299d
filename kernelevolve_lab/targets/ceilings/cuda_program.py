"""Measures what a CUDA device can do at most; a program of its own, because it needs torch and Triton and holds the device.

usage: cuda_program.py DEVICE ROUNDS. Writes one JSON object a line: `kind` (`bandwidth`, `compute`), `name`, `pattern` and `rate`
(bytes/s or FLOP/s) of one test in one round, or `name` and `skipped` with the reason; at last the versions. Bandwidths count bytes read
and written. Matrix rates are cuBLAS on random data in several shapes; other arithmetic is chains of multiply-adds in Triton.
"""

import json
import sys
from collections.abc import Callable, Iterator

import torch
import triton
import triton.language as tl

BIG_BYTES = 1 << 30
L2_LOOPS = 40
PRODUCTS = ((4096, 4096, 4096), (8192, 8192, 4096), (8192, 8192, 8192))


@triton.jit
def read_kernel(x, y, n, loops, BLOCK: tl.constexpr):
    # Past the first level (.cg), and another way through the memory in each loop.
    program, programs = tl.program_id(0), tl.num_programs(0)
    total = tl.zeros([BLOCK], tl.float32)
    for loop in range(loops):
        for start in range(((program + loop * 7) % programs) * BLOCK, n, programs * BLOCK):
            total += tl.load(x + start + tl.arange(0, BLOCK), cache_modifier=".cg")
    tl.store(y + program, tl.sum(total))


@triton.jit
def copy_kernel(x, y, n, loops, BLOCK: tl.constexpr):
    program, programs = tl.program_id(0), tl.num_programs(0)
    for loop in range(loops):
        for start in range(((program + loop * 7) % programs) * BLOCK, n, programs * BLOCK):
            at = start + tl.arange(0, BLOCK)
            tl.store(y + at, tl.load(x + at, cache_modifier=".cg"))


@triton.jit
def triad_kernel(x, y, z, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(z + at, tl.load(x + at) + 2.0 * tl.load(y + at))


@triton.jit
def fma_kernel(y, a, b, n, BLOCK: tl.constexpr, UNROLL: tl.constexpr):
    v0 = tl.arange(0, BLOCK).to(y.dtype.element_ty)
    v1, v2, v3 = v0 + 1, v0 + 2, v0 + 3
    a, b = a.to(v0.dtype), b.to(v0.dtype)
    for _ in range(n):
        for _ in tl.static_range(UNROLL):
            v0, v1, v2, v3 = v0 * a + b, v1 * a + b, v2 * a + b, v3 * a + b
    tl.store(y + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), v0 + v1 + v2 + v3)


def seconds(run: Callable[[], object], inner: int = 1) -> float:
    """Seconds of one of `inner` runs back to back, by events, after one run that is not counted."""
    run()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    for _ in range(inner):
        run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / inner


def bandwidths(units: int, l2_bytes: int) -> Iterator[tuple[str, str, float]]:
    """Name, pattern and rate of every bandwidth test."""
    count = min(BIG_BYTES, torch.cuda.mem_get_info()[0] // 8) // 4
    x, y, z = (torch.randn(count, device="cuda") for _ in range(3))
    for block, warps, programs in ((1024, 4, 16), (4096, 8, 4), (4096, 8, 16)):
        grid = (units * programs,)
        yield "memory", "read", 4 * count / seconds(lambda b=block, w=warps, g=grid: read_kernel[g](x, y, count, 1, b, num_warps=w))
        yield "memory", "copy", 8 * count / seconds(lambda b=block, w=warps, g=grid: copy_kernel[g](x, y, count, 1, b, num_warps=w))
        whole = count // block
        rate = 12 * whole * block / seconds(lambda b=block, w=warps, n=whole: triad_kernel[(n,)](x, y, z, b, num_warps=w))
        yield "memory", "triad", rate
    yield "memory", "copy", 8 * count / seconds(lambda: y.copy_(x))
    yield "memory", "write", 4 * count / seconds(lambda: y.fill_(1.0))
    for part in (0.25, 0.4, 0.6):
        held = int(l2_bytes * part) // 4 // 4096 * 4096
        for block, programs in ((1024, 8), (4096, 4)):
            grid, warps = (units * programs,), 4
            time = seconds(lambda n=held, b=block, w=warps, g=grid: read_kernel[g](x, y, n, L2_LOOPS, b, num_warps=w))
            yield "l2", "read", 4 * held * L2_LOOPS / time
            half = held // 2
            time = seconds(lambda n=half, b=block, w=warps, g=grid: copy_kernel[g](x, y, n, L2_LOOPS, b, num_warps=w))
            yield "l2", "copy", 8 * half * L2_LOOPS / time


def arithmetic(units: int) -> Iterator[tuple[str, str, float]]:
    """Name, pattern and rate of chains of multiply-adds."""
    steps, unroll, block, warps = 200, 16, 1024, 8
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        out = torch.empty(units * 16 * block, dtype=dtype, device="cuda")
        for programs in (8, 16):
            grid = (units * programs,)
            time = seconds(
                lambda o=out, g=grid: fma_kernel[g](o, 1.0001, 0.5, steps, block, unroll, num_warps=warps, enable_fp_fusion=True)
            )
            yield name, "multiply-adds", units * programs * block * steps * unroll * 4 * 2.0 / time


def matrix_tests() -> dict[str, Callable[[int, int, int], Callable[[], object]]]:
    """By the ceiling's name what makes a product of m x k and k x n; raises what torch raises where the device has no such unit."""

    def plain(dtype: torch.dtype, tf32: bool = False) -> Callable[[int, int, int], Callable[[], object]]:
        def make(m: int, n: int, k: int) -> Callable[[], object]:
            torch.backends.cuda.matmul.allow_tf32 = tf32
            a, b = (torch.randn(shape, device="cuda").to(dtype) for shape in ((m, k), (k, n)))
            out = torch.empty(m, n, device="cuda", dtype=dtype)
            return lambda: torch.mm(a, b, out=out)

        return make

    def float8(m: int, n: int, k: int) -> Callable[[], object]:
        a, b = (torch.randn(shape, device="cuda").to(torch.float8_e4m3fn) for shape in ((m, k), (n, k)))
        one = torch.ones((), device="cuda")
        return lambda: torch._scaled_mm(a, b.t(), one, one, out_dtype=torch.bfloat16)

    def int8(m: int, n: int, k: int) -> Callable[[], object]:
        a, b = (torch.randint(-8, 8, shape, device="cuda", dtype=torch.int8) for shape in ((m, k), (n, k)))
        return lambda: torch._int_mm(a, b.t())

    return {
        "float16-tensor": plain(torch.float16),
        "bfloat16-tensor": plain(torch.bfloat16),
        "tf32-tensor": plain(torch.float32, tf32=True),
        "float8_e4m3fn-tensor": float8,
        "int8-tensor": int8,
        "float64-tensor": plain(torch.float64),
    }


def products() -> Iterator[tuple[str, str, float]]:
    """Name, shape and rate of matrix products; a name whose product the device refuses comes with the reason and a rate of 0."""
    for name, make in matrix_tests().items():
        shapes = PRODUCTS[:1] if name == "float64-tensor" else PRODUCTS
        for m, n, k in shapes:
            try:
                yield name, f"{m} x {n} x {k}", 2.0 * m * n * k / seconds(make(m, n, k), inner=3)
            except RuntimeError as error:
                yield name, str(error).splitlines()[0][:200], 0.0
                break


def main() -> None:
    """Measure, rounds over all tests; see the head of the file."""
    device, rounds = int(sys.argv[1]), int(sys.argv[2])
    torch.cuda.set_device(device)
    properties = torch.cuda.get_device_properties(device)
    units, l2_bytes = properties.multi_processor_count, properties.L2_cache_size
    for _ in range(rounds):
        for kind, tests in (
            ("bandwidth", bandwidths(units, l2_bytes)),
            ("compute", arithmetic(units)),
            ("compute", products()),
        ):
            for name, pattern, rate in tests:
                result = (
                    {"name": name, "skipped": pattern} if rate == 0.0 else {"kind": kind, "name": name, "pattern": pattern, "rate": rate}
                )
                print(json.dumps(result), flush=True)
    print(
        json.dumps({"name": "versions", "torch": torch.__version__, "triton": triton.__version__, "cuda": torch.version.cuda}), flush=True
    )


if __name__ == "__main__":
    main()
