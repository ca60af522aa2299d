import ctypes
import re
from pathlib import Path

import numpy as np
import pytest

from kernelevolve_lab.languages import abi
from kernelevolve_lab.languages.cpp import CPP, HEADER
from kernelevolve_lab.targets import resolve

PROBE = """#include "kel.h"
#include <initializer_list>
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) {
    std::int64_t* out = outputs[0].ptr<std::int64_t>();
    const kel::Tensor& t = inputs[1];
    int n = 0;
    using kel::Stream, kel::Tensor;
    for (std::size_t value : {sizeof(Tensor), offsetof(Tensor, data), offsetof(Tensor, sizes), offsetof(Tensor, strides),
                              offsetof(Tensor, ndim), offsetof(Tensor, dtype), sizeof(Stream), offsetof(Stream, handle),
                              offsetof(Stream, threads),
                              offsetof(Stream, device)})
        out[n++] = static_cast<std::int64_t>(value);
    for (std::int64_t value : {t.size(0), t.size(-1), t.stride(0), t.stride(-1), t.numel()}) out[n++] = value;
    const int last = stream.handle == nullptr;
    for (int value : {t.ndim, int(t.contiguous()), int(t.dtype), stream.threads, stream.device, last}) out[n++] = value;
}
"""

CONVERT = """#include "kel.h"
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream) {
    const auto* halves = inputs[0].ptr<const kel::HALF>();
    const float* floats = inputs[1].ptr<const float>();
    for (std::int64_t i = 0; i < inputs[0].numel(); ++i) outputs[0].ptr<float>()[i] = halves[i];
    for (std::int64_t i = 0; i < inputs[1].numel(); ++i) outputs[1].ptr<kel::HALF>()[i] = kel::HALF(floats[i]);
}
"""

VECTOR = """#include "kel.h"
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream) {
    kel::HALF* __restrict halves = inputs[0].ptr<kel::HALF>();
    float* __restrict floats = outputs[0].ptr<float>();
    const std::int64_t n = inputs[0].numel();
    for (std::int64_t i = 0; i < n; ++i) STATEMENT;
}
"""


def run(source: str, cache: Path, inputs: list[abi.Tensor], outputs: list[abi.Tensor], threads: int = 3) -> None:
    build = CPP.build(source, resolve("cpu"), cache)
    assert build.ok, build.diagnostics
    abi.load(build.artifact)(abi.array(inputs), abi.array(outputs), abi.Stream(None, threads, 7))


def view(array: np.ndarray, dtype: str | None = None) -> abi.Tensor:
    return abi.tensor(array.ctypes.data, array.shape, dtype or str(array.dtype))


def offsets(struct: type[ctypes.Structure]) -> list[int]:
    return [getattr(struct, name).offset for name, _ in struct._fields_]


def test_both_sides_agree_on_every_offset_and_value(tmp_path: Path) -> None:
    out, data = np.zeros(21, np.int64), np.zeros((4, 5, 6), np.float32)
    strided = abi.tensor(data.ctypes.data, (4, 6), "bfloat16", strides=(30, 1))
    run(PROBE, tmp_path, [view(data), strided], [view(out)])
    layout = [ctypes.sizeof(abi.Tensor), *offsets(abi.Tensor), ctypes.sizeof(abi.Stream), *offsets(abi.Stream)]
    assert out.tolist() == [*layout, 4, 6, 30, 1, 24, 2, 0, abi.DTYPES["bfloat16"], 3, 7, 1]


def test_the_dtype_codes_are_the_headers() -> None:
    enum = re.search(r"enum class DType[^{]*{(.*?)};", HEADER.read_text(), re.S)[1]
    codes = {name.replace("boolean", "bool"): int(value) for name, value in re.findall(r"(\w+) = (\d+)", enum)}
    assert codes == abi.DTYPES and abi.ITEMSIZE.keys() == codes.keys()


def test_scalars_empty_and_contiguous_tensors() -> None:
    assert abi.contiguous_strides((2, 3, 4)) == (12, 4, 1) and abi.contiguous_strides(()) == ()
    scalar = abi.tensor(0, (), "float32")
    assert scalar.ndim == 0 and list(scalar.sizes) == [0] * 8
    assert len(abi.array([])) == 1
    with pytest.raises(ValueError, match="at most 8"):
        abi.tensor(0, (1,) * 9, "float32")
    with pytest.raises(ValueError, match="no dtype complex64"):
        abi.tensor(0, (1,), "complex64")


def interesting_floats() -> np.ndarray:
    generator = np.random.default_rng(0)
    random = generator.integers(0, 2**32, 2_000_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    near = np.concatenate([np.nextafter(halves, np.float32(np.inf)), np.nextafter(halves, np.float32(-np.inf)), halves])
    with np.errstate(invalid="ignore", over="ignore"):
        ties = (halves[:-1] + halves[1:]) / 2
    return np.concatenate([random, near, ties, np.float32([65504, 65519.99, 65520, 1e-8, 2**-24, 2**-25, np.inf, -np.inf, np.nan, -0.0])])


@pytest.mark.filterwarnings("ignore")
def test_f16_agrees_with_numpy_on_every_half_and_on_many_floats(tmp_path: Path) -> None:
    halves, floats = np.arange(65536, dtype=np.uint16), interesting_floats()
    wide, narrow = np.zeros(65536, np.float32), np.zeros(floats.shape, np.uint16)
    run(CONVERT.replace("HALF", "f16"), tmp_path, [view(halves, "float16"), view(floats)], [view(wide), view(narrow, "float16")])
    np.testing.assert_array_equal(wide, halves.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(narrow.view(np.float16), floats.astype(np.float16))
    kept = ~np.isnan(floats)
    np.testing.assert_array_equal(np.signbit(narrow.view(np.float16))[kept], np.signbit(floats)[kept])


@pytest.mark.filterwarnings("ignore")
def test_bf16_agrees_with_torch_on_every_value_and_on_many_floats(tmp_path: Path) -> None:
    import torch

    halves, floats = np.arange(65536, dtype=np.uint16), interesting_floats()
    wide, narrow = np.zeros(65536, np.float32), np.zeros(floats.shape, np.uint16)
    run(CONVERT.replace("HALF", "bf16"), tmp_path, [view(halves, "bfloat16"), view(floats)], [view(wide), view(narrow, "bfloat16")])
    np.testing.assert_array_equal(wide, torch.from_numpy(halves.view(np.int16)).view(torch.bfloat16).float().numpy())
    expected = torch.from_numpy(floats).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal((narrow.astype(np.uint32) << 16).view(np.float32), expected)


@pytest.mark.parametrize("half", ["f16", "bf16"])
@pytest.mark.parametrize("statement", ["floats[i] = halves[i] * 2.0f", "halves[i] = kel::HALF(floats[i] * 2.0f)"])
def test_conversions_vectorise(half: str, statement: str, tmp_path: Path) -> None:
    cpu = resolve("cpu")
    if cpu.arch != "x86_64":
        pytest.skip("static metrics are read for x86-64 only")
    source = VECTOR.replace("STATEMENT", statement).replace("HALF", half)
    metrics = CPP.build(source, cpu, tmp_path).metrics
    assert metrics["hot_loop_vector_bits"] == cpu.simd_bits and metrics["hot_loop_scalar_fp"] == 0


def test_the_header_is_light() -> None:
    assert set(re.findall(r"#include <(\w+)>", HEADER.read_text())) == {"cstddef", "cstdint"}
