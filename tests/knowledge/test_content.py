"""The shipped pages: whole, linked, sourced, found by what a diagnosis would ask, and with examples that build and compute."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from kernelevolve_lab.knowledge.page import TAGS
from kernelevolve_lab.knowledge.retrieval import CONTENT, KnowledgeBase, Query
from kernelevolve_lab.languages import abi
from kernelevolve_lab.languages.base import Build
from kernelevolve_lab.languages.cpp import CPP
from kernelevolve_lab.targets import resolve

BASE = KnowledgeBase.load([CONTENT])
PAGES = {name: page for name, page in BASE.pages.items() if name != "index"}
CPP_EXAMPLE = re.compile(r"^```cpp kernel (?P<name>\w+)\n(?P<source>.*?)^```$", re.MULTILINE | re.DOTALL)
TRITON_EXAMPLE = re.compile(r"^```python triton (?P<name>\w+)\n(?P<source>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE_NAME = re.compile(r"`((?:guidance|hardware|languages|constraints)/[\w/]+)`")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MACHINE = re.compile(r"(?<![\w.])/(?:home|work|root|tmp|opt|mnt)/|site-packages|[A-Z]:\\")

Tensors = tuple[torch.Tensor, ...]


def examples(pattern: re.Pattern[str]) -> dict[str, str]:
    found = [(match["name"], match["source"]) for page in PAGES.values() for match in pattern.finditer(page.body)]
    assert len({name for name, _ in found}) == len(found), "two examples share a name"
    return dict(found)


CPP_EXAMPLES, TRITON_EXAMPLES = examples(CPP_EXAMPLE), examples(TRITON_EXAMPLE)


# --- pages ---------------------------------------------------------------------------------------------------------------------------


def test_every_platform_and_language_is_served():
    assert len(PAGES) >= 60
    for platform in TAGS["platform"]:
        own = [name for name, page in PAGES.items() if name.startswith(f"hardware/{platform}/")]
        assert len(own) >= 7, platform
        assert all(PAGES[name].platform == {platform} for name in own), platform
    for language in TAGS["language"]:
        assert any(page.language == {language} for name, page in PAGES.items() if name.startswith("languages/")), language


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(name):
    page, text = PAGES[name], (CONTENT / f"{name}.md").read_text("utf-8")
    assert len(text.splitlines()) <= 200
    assert page.sources, "no source in its head"
    assert "\nSources:\n- " in page.body, "no list of sources at its end"
    assert len(page.title) < 80 and 20 < len(page.summary) < 200
    assert not MACHINE.search(text), MACHINE.search(text)
    assert text.count("```") % 2 == 0
    missing = [link for link in PAGE_NAME.findall(text) if link not in BASE.pages]
    missing += [
        link
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", FENCED.sub("", text))
        if not (CONTENT / name).parent.joinpath(link).is_file()
    ]
    assert not missing, f"links to pages that there are not: {missing}"


def test_index_lists_every_page_once():
    listed = re.findall(r"`([\w/]+)`:", BASE.page("index").body)
    assert sorted(listed) == sorted(PAGES)


def test_no_page_repeats_another():
    def shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return set(zip(*(words[i:] for i in range(4)), strict=False))

    made = {name: shingles(FENCED.sub("", page.body).split("\nSources:\n")[0]) for name, page in PAGES.items()}
    for (one, first), (other, second) in itertools.combinations(made.items(), 2):
        assert len(first & second) < 0.2 * min(len(first), len(second)), f"{one} and {other} say the same"


def test_constraints_leave_room_in_the_prompt():
    for platform, language in (("cpu", "cpp"), ("nvidia", "triton"), ("amd", "flydsl"), ("mtia", "mtia_cpp")):
        assert sum(len(page.body) for page in BASE.constraints(platform, language)) < 8000


# --- retrieval -----------------------------------------------------------------------------------------------------------------------

ASKED = [
    (
        Query("cpu", "cpp", "memory", "improve", "row", "memory-bound row reduction on cpu, write-allocate traffic of the output"),
        {"hardware/cpu/streaming_stores", "hardware/cpu/row_kernels"},
    ),
    (
        Query("cpu", "cpp", "compute", "improve", "elementwise", "calls_in_loops expf tanhf, the hot loop is scalar, GELU"),
        {"hardware/cpu/vector_math", "guidance/tanh_gelu_erf"},
    ),
    (
        Query("cpu", "cpp", "compute", "improve", "gemm", "compute-bound matrix product, register tile, accumulators, fused multiply-add"),
        {"hardware/cpu/gemm_microkernel", "hardware/cpu/packing"},
    ),
    (
        Query("cpu", "cpp", "latency", "improve", "", "It keeps half of the threads busy, starting parallel regions"),
        {"hardware/cpu/openmp_overheads"},
    ),
    (
        Query("cpu", "cpp", "memory", "improve", "jagged", "lengths, offsets, prefix sum, uneven users"),
        {"hardware/cpu/jagged_kernels", "guidance/prefix_sums_jagged"},
    ),
    (
        Query("cpu", "cpp", "latency", "draft", "search", "binary search of ids in a sorted table, bucketize"),
        {"guidance/branch_free_search", "hardware/cpu/gathers"},
    ),
    (
        Query("cpu", "cpp", "numerics", "repair", "row", "shifted inputs, variance error, cancellation of the mean"),
        {"guidance/welford_variance"},
    ),
    (Query("cpu", "cpp", "crash", "repair", "", "segmentation fault, aligned load at a tail"), {"guidance/crashes_and_timeouts"}),
    (
        Query("cpu", "cpp", "compute", "draft", "chain", "X (Xᵀ Y) chain of products, association, FLOPs"),
        {"guidance/algebraic_reassociation"},
    ),
    (
        Query("nvidia", "triton", "memory", "improve", "row", "uncoalesced loads, sectors per request, vector width"),
        {"hardware/nvidia/coalescing"},
    ),
    (
        Query("nvidia", "cuda", "compute", "improve", "gemm", "H100 tensor cores wgmma pipeline warp specialization"),
        {"hardware/nvidia/wgmma", "hardware/nvidia/warp_specialization"},
    ),
    (
        Query("nvidia", "cuda", "occupancy", "improve", "", "register spills, local memory, 255 registers"),
        {"hardware/nvidia/register_pressure"},
    ),
    (
        Query("nvidia", "triton", "launch", "improve", "", "kernel launch overhead of small problems, CUDA graph"),
        {"hardware/nvidia/launch_overhead"},
    ),
    (Query("amd", "hip", "compute", "improve", "gemm", "MFMA matrix cores accumulators AGPR"), {"hardware/amd/mfma"}),
    (
        Query("amd", "triton", "memory", "stalled", "gemm", "L2 hit rate, XCD, workgroup order, Infinity Cache"),
        {"hardware/amd/xcd_swizzle", "hardware/amd/infinity_cache"},
    ),
    (
        Query("mtia", "triton", "memory", "improve", "", "circular buffer stalls, DMA and compute overlap"),
        {"hardware/mtia/circular_buffers", "hardware/mtia/dma"},
    ),
    (Query("nvidia", "triton", "build", "repair", "", "make_block_ptr removed, tensor descriptor"), {"languages/triton_versions"}),
]


@pytest.mark.parametrize(("query", "wanted"), ASKED, ids=lambda value: "-".join(sorted(value))[:60] if isinstance(value, set) else "")
def test_diagnosis_finds_its_pages(query, wanted):
    found = [hit.page.name for hit in BASE.search(query, limit=3)]
    assert wanted & set(found), found


@pytest.mark.parametrize("platform", sorted(TAGS["platform"]))
@pytest.mark.parametrize("bottleneck", sorted(TAGS["bottleneck"] - {"cheating"}))
def test_every_bottleneck_finds_something_particular(platform, bottleneck):
    found = BASE.search(Query(platform, "", bottleneck))
    assert found and bottleneck in found[0].page.bottleneck


# --- examples in C++ -----------------------------------------------------------------------------------------------------------------


def _segment_mean(lengths: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return torch.stack(
        [part.double().mean() if len(part) else torch.zeros((), dtype=torch.double) for part in values.split(lengths.tolist())]
    )


def _rms_norm_bf16(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> Tensors:
    hidden = x + residual
    return F.rms_norm(hidden.double(), (hidden.shape[-1],), weight.double(), 1e-6), hidden


def _rows(generator: torch.Generator, *more: tuple[int, ...]) -> Tensors:
    return tuple(torch.randn(size, generator=generator) for size in ((37, 203), *more))


CPP_CHECKS: dict[str, tuple[Callable[[torch.Generator], Tensors], Callable[..., torch.Tensor | Tensors]]] = {
    "row_sum": (lambda g: (torch.randn(1, 100_003, generator=g),), lambda x: x.double().sum(1)),
    "matmul": (lambda g: (torch.randn(45, 301, generator=g), torch.randn(301, 77, generator=g)), lambda a, b: a.double() @ b.double()),
    "bucketize": (lambda g: (torch.randn(1003, generator=g), torch.randn(57, generator=g).sort().values), torch.bucketize),
    "conv1d": (
        lambda g: (torch.randn(3, 5, 70, generator=g), torch.randn(7, 5, 3, generator=g), torch.randn(7, generator=g)),
        lambda x, w, bias: F.conv1d(x.double(), w.double(), bias.double(), padding=1),
    ),
    "scale_bias": (lambda g: _rows(g, (203,), (203,)), lambda x, w, b: x.double() * w + b),
    "layer_norm": (
        lambda g: (10 + torch.randn(37, 203, generator=g), torch.randn(203, generator=g), torch.randn(203, generator=g)),
        lambda x, w, b: F.layer_norm(x.double(), (203,), w.double(), b.double()),
    ),
    "segment_mean": (
        lambda g: ((lengths := torch.randint(0, 40, (300,), generator=g)), torch.randn(int(lengths.sum()), generator=g)),
        _segment_mean,
    ),
    "transpose": (lambda g: _rows(g), lambda x: x.T.contiguous()),
    "rms_norm_bf16": (lambda g: tuple(t.bfloat16() for t in _rows(g, (37, 203), (203,))), _rms_norm_bf16),
    "bias_gelu": (lambda g: _rows(g, (203,)), lambda x, b: F.gelu(x.double() + b, approximate="tanh")),
}
"""By example: its inputs, and what it must compute."""


@pytest.fixture(scope="module")
def builds(tmp_path_factory) -> dict[str, Build]:
    cpu, cache = resolve("cpu"), tmp_path_factory.mktemp("cpp")
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda source: CPP.build(source, cpu, cache), CPP_EXAMPLES.values())
        return dict(zip(CPP_EXAMPLES, made, strict=True))


def test_every_cpp_example_is_checked():
    assert CPP_EXAMPLES.keys() == CPP_CHECKS.keys()


def described(tensors: Tensors):
    return abi.array([abi.tensor(t.data_ptr(), tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in tensors])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", CPP_CHECKS)
def test_cpp_example_builds_and_computes(builds, name, threads):
    build = builds[name]
    assert build.ok, build.diagnostics
    assert build.diagnostics == (), "an example should build without warnings"
    draw, reference = CPP_CHECKS[name]
    inputs = draw(torch.Generator().manual_seed(7))
    wanted = reference(*inputs)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    kind = inputs[-1].dtype
    outputs = tuple(torch.full(w.shape, 77, dtype=kind if w.dtype.is_floating_point else w.dtype) for w in wanted)
    abi.load(build.artifact)(described(inputs), described(outputs), abi.Stream(None, threads, 0))
    for got, want in zip(outputs, wanted, strict=True):
        tolerance = {torch.float32: 5e-5, torch.bfloat16: 1.6e-2}.get(got.dtype, 0)
        torch.testing.assert_close(got.double(), want.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CPP_EXAMPLES)
def test_no_thread_allocates_in_every_call(name):
    for region in re.findall(r"#pragma omp parallel num_threads.*?\n(.*?)#pragma omp for", CPP_EXAMPLES[name], re.DOTALL):
        assert not re.search(r"^ *std::vector", region, re.MULTILINE), "a buffer of a thread is kept: `static thread_local`"


def test_a_kept_buffer_does_not_show(builds):
    """The margins of the convolution's buffer are zero again for another length."""
    kernel, generator = abi.load(builds["conv1d"].artifact), torch.Generator().manual_seed(3)
    for length in (150, 33, 64):
        x, w, bias = (torch.randn(size, generator=generator) for size in ((3, 5, length), (7, 5, 3), (7,)))
        y = torch.empty(3, 7, length)
        kernel(described((x, w, bias)), described((y,)), abi.Stream(None, 2, 0))
        torch.testing.assert_close(y, F.conv1d(x, w, bias, padding=1), rtol=5e-5, atol=5e-5)


# --- examples in Triton --------------------------------------------------------------------------------------------------------------

DRIVER = Path(__file__).with_name("triton_examples.py")


def run_driver(action: str, folder: Path, **environment: str) -> dict[str, str]:
    """What `triton_examples.py` reports by example, run in a process of its own, because Triton decides at import how it works."""
    for name, source in TRITON_EXAMPLES.items():
        (folder / f"{name}.py").write_text(source)
    variables = os.environ | {"TRITON_CACHE_DIR": str(folder / "cache"), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, str(DRIVER), action, str(folder)]
    ran = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("action", ["compile", "run"])
def test_triton_examples_compile_and_compute(action, tmp_path):
    pytest.importorskip("triton")
    told = run_driver(action, tmp_path, **({"TRITON_INTERPRET": "1"} if action == "run" else {}))
    assert told == dict.fromkeys(TRITON_EXAMPLES, "ok")
