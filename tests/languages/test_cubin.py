"""Static metrics of cubins, held against `ptxas -v` and NVIDIA's published occupancies."""

import re
import subprocess
from pathlib import Path

import pytest
from cuda_sources import HALVES, SCALE, SPILLING
from hypothesis import given
from hypothesis import strategies as st

from kernelevolve_lab.languages import cubin, nvcc
from kernelevolve_lab.languages.cuda import HEADER
from kernelevolve_lab.languages.occupancy import capability, limits, occupancy

needs_nvcc = pytest.mark.skipif(not nvcc.available(), reason="there is no nvcc")
SAID = re.compile(
    r"entry function '(\S+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
    r"ptxas info +: Used (\d+) registers(?:.*?(\d+) bytes smem)?",
    re.S,
)


@needs_nvcc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_100a"])
def test_resources_are_those_that_ptxas_says(arch: str, tmp_path: Path) -> None:
    source, machine = tmp_path / "all.cu", tmp_path / "all.cubin"
    body = [re.sub(r'(?s)extern "C".*', "", text).replace('#include "kel.h"', "") for text in (SCALE, HALVES, SPILLING)]
    instances = "template __global__ void widen<kel::bf16, 64>(const kel::bf16*, float*, long);\n"
    source.write_text('#include "kel.h"\n' + "".join(body) + instances)
    options = ["-std=c++20", f"-I{HEADER.parent}", f"-arch={arch}", "-Xptxas=-v", "-cubin", str(source), "-o", str(machine)]
    ran = subprocess.run([nvcc.find_nvcc().path, *options], capture_output=True, text=True, check=True)
    said = {name: numbers for name, *numbers in SAID.findall(ran.stderr)}
    found = cubin.resources(machine.read_bytes(), arch)
    mixes = cubin.mixes(machine, tmp_path)
    assert found.keys() == said.keys() and len(found) == 3
    for name, (stack, stores, loads, registers, shared) in said.items():
        own = found[name]
        assert (own.stack, own.registers, own.shared) == (int(stack), int(registers), int(shared or 0))
        assert (mixes[name].kinds["local_stores"] > 0) == (int(stores) > 0)
        assert (mixes[name].kinds["local_loads"] > 0) == (int(loads) > 0)
    threads = {re.search(r"scale|widen|spill", name)[0]: own.threads for name, own in found.items()}
    assert threads == {"scale": 256, "spill": 1024, "widen": 0}


SASS = """
\t.section\t.text.mm,"ax",@progbits
.text.mm:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0020*/                   LDGSTS.E.BYPASS.128 [R5], desc[UR4][R2.64] ;
        /*0030*/              @UP1 UTMALDG.2D [UR8], [UR6], desc[UR4] ;
        /*0040*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], R24 ;
        /*0050*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], R24 ;
        /*0060*/                   STG.E.U16 desc[UR4][R2.64], R4 ;
        /*0070*/                   STL [R1+0x8], R3 ;
        /*0080*/                   NOP;
"""


def test_the_mix_of_a_disassembly() -> None:
    mix = cubin.of_disassembly(SASS)["mm"]
    assert mix.instructions == 8 and mix.tensor_shapes == {"HGMMA.64x128x16.F32.BF16": 2}
    counts = {"global_loads": 1, "async_copies": 1, "tma": 1, "tensor": 2, "global_stores": 1, "local_stores": 1}
    assert {kind: n for kind, n in mix.kinds.items() if n} == counts
    assert (mix.widest_load, mix.widest_store) == (128, 16)


def test_what_is_no_cubin_is_refused() -> None:
    for bytes_ in (b"", b"\x7fELF\x02", b"\x7fELF\x02" + bytes(100), b"text"):
        with pytest.raises(ValueError, match="not a cubin"):
            cubin.resources(bytes_, "sm_90a")


@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "blocks", "limiter"),
    [
        # CUDA C++ Best Practices Guide, 10.1.1: 37 registers and blocks of 128 threads, compute capability 7.0 and later.
        ("sm_80", 128, 37, 0, 12, "registers"),
        ("sm_90a", 256, 32, 0, 8, "threads"),
        ("sm_90a", 128, 168, 232448, 1, "shared memory"),
        ("sm_90a", 1024, 64, 0, 1, "registers"),
        ("sm_90a", 32, 16, 0, 32, "blocks"),
        ("sm_80", 256, 32, 41 << 10, 3, "shared memory"),
        ("sm_89", 512, 40, 0, 3, "threads"),
        ("sm_90", 1024, 65, 0, 0, "registers"),
    ],
)
def test_occupancy(arch: str, threads: int, registers: int, shared: int, blocks: int, limiter: str) -> None:
    found = occupancy(arch, threads, registers, shared)
    assert (found.blocks, found.limiter) == (blocks, limiter)
    assert found.fraction == pytest.approx(blocks * threads / limits(arch).threads, abs=1e-4)


@given(
    st.sampled_from(["sm_75", "sm_80", "sm_86", "sm_90a", "sm_100a", "sm_120"]),
    st.integers(1, 32),
    st.integers(16, 255),
    st.integers(0, 60 << 10),
)
def test_more_of_anything_never_raises_occupancy(arch: str, warps: int, registers: int, shared: int) -> None:
    blocks = occupancy(arch, 32 * warps, registers, shared).blocks
    assert occupancy(arch, 32 * warps, registers + 8, shared).blocks <= blocks
    assert occupancy(arch, 32 * warps, registers, shared + 1024).blocks <= blocks
    assert 0.0 <= occupancy(arch, 32 * warps, registers, shared).fraction <= 1.0


def test_names_of_architectures() -> None:
    assert [capability(arch) for arch in ("sm_80", "sm_90a", "sm_100f", "sm_121")] == [80, 90, 100, 121]
    with pytest.raises(ValueError, match="gfx942"):
        capability("gfx942")
