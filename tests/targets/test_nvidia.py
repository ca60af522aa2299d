"""The NVIDIA cards of a machine, from what `nvidia-smi` and the driver say; none is needed here."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernelevolve_lab import targets
from kernelevolve_lab.errors import LabError, UnknownName
from kernelevolve_lab.records import Evidence
from kernelevolve_lab.targets import nvidia, roofline
from kernelevolve_lab.targets.ceilings import cuda as ceilings

# As an H200 answered, driver 580.159.04.
H200 = "0, NVIDIA H200, GPU-db2ab84d-d2ea-5ed7-5d6b-31d649f0d15a, 143771, 9.0, 580.159.04, 1980, 700.00"
UNKNOWN = "0, NVIDIA RTX A2000 12GB, GPU-0d6a7f0e, 12282, 8.6, 550.54.15, 1200, [N/A]"


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str, int], None]]:
    """Makes an `nvidia-smi` that prints a text and ends with a status."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def install(text: str, status: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n")
        program.chmod(0o755)
        nvidia.devices.cache_clear()

    nvidia.devices.cache_clear()
    yield install
    nvidia.devices.cache_clear()


def test_a_published_card_is_found_and_its_driver_believed(smi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "_driver", lambda: [{"units": 132, "l2_bytes": 60 << 20}])
    smi(H200)
    assert targets.resolve("nvidia") == targets.resolve("nvidia:h200")
    spec = targets.resolve("nvidia:h200")
    assert spec.present and spec.memory_bytes == 143771 << 20 and spec.caches[-1].bytes == 60 << 20
    assert not targets.resolve("nvidia:h100").present
    assert [c.evidence for c in spec.ceilings] == [Evidence.MODELLED] * len(spec.ceilings)


def test_a_card_without_a_published_specification_is_a_target_of_its_own(smi) -> None:
    smi(UNKNOWN)
    spec = targets.resolve("nvidia")
    assert spec.name == "nvidia:rtx-a2000-12gb" and spec.name in targets.names() and spec.present
    assert spec.arch == "sm_86" and spec.ceilings == () and {"bfloat16", "cp.async"} <= set(spec.features)
    assert nvidia.devices()[0].power_watts == 0.0


@pytest.mark.parametrize(("text", "status"), [("No devices were found", 6), ("", 0), ("one, two", 0)])
def test_a_program_that_finds_nothing_is_no_card(smi, text: str, status: int) -> None:
    smi(text, status)
    assert nvidia.devices() == () and not targets.resolve("nvidia:h200").present
    with pytest.raises(UnknownName, match="there is none"):
        targets.resolve("nvidia")


def test_without_the_program_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    nvidia.devices.cache_clear()
    try:
        with pytest.raises(UnknownName, match=r"no nvidia-smi.*to compile for it.*'nvidia:"):
            targets.resolve("nvidia")
        assert nvidia.state() == {}
    finally:
        nvidia.devices.cache_clear()


def test_two_cards_are_two_devices(smi) -> None:
    smi(H200 + "\n" + H200.replace("0, NVIDIA", "1, NVIDIA", 1))
    assert [device.index for device in nvidia.devices()] == [0, 1]


@pytest.mark.parametrize(
    ("capability", "arch", "feature"),
    [("8.9", "sm_89", "float8"), ("9.0", "sm_90a", "wgmma"), ("10.0", "sm_100a", "tcgen05"), ("12.0", "sm_120a", "tma")],
)
def test_the_architecture_comes_from_the_capability(smi, capability: str, arch: str, feature: str) -> None:
    smi(UNKNOWN.replace("8.6", capability))
    spec = targets.resolve("nvidia")
    assert spec.arch == arch and feature in spec.features


# A part of what the program wrote on an H200.
RESULTS = [
    {"kind": "bandwidth", "name": "memory", "pattern": "read", "rate": 4.358e12},
    {"kind": "bandwidth", "name": "memory", "pattern": "copy", "rate": 4.083e12},
    {"kind": "bandwidth", "name": "memory", "pattern": "read", "rate": 4.210e12},
    {"kind": "bandwidth", "name": "l2", "pattern": "read", "rate": 7.958e12},
    {"kind": "compute", "name": "float32", "pattern": "multiply-adds", "rate": 62.2e12},
    {"kind": "compute", "name": "tf32-tensor", "pattern": "8192 x 8192 x 8192", "rate": 411e12},
    {"kind": "compute", "name": "bfloat16-tensor", "pattern": "8192 x 8192 x 8192", "rate": 787.8e12},
    {"name": "float64-tensor", "skipped": "no such unit"},
    {"name": "state", "clocks.sm": 1965, "clocks.mem": 3201, "power.draw": 315.06, "temperature.gpu": 46,
     "clocks_event_reasons.active": "0x4", "max_mhz": 1980, "power_watts": 700.0, "driver": "580.159.04"},
]  # fmt: skip


def test_measured_ceilings_come_first_and_say_how() -> None:
    spec = ceilings.apply(targets.resolve("nvidia:h200"), RESULTS)
    memory = spec.ceiling("bandwidth", "hbm")
    assert memory.value == 4.358e12 and memory.evidence is Evidence.MEASURED and "copy 4083" in memory.source and "2 runs" in memory.source
    assert ceilings.copy_bandwidth(spec) == 4.083e12
    assert any("1965 of 1980 MHz" in fact and "315.06 of 700.0 W" in fact for fact in spec.facts)
    assert any("float64-tensor was not measured" in fact for fact in spec.facts)
    assert ceilings.copy_bandwidth(targets.resolve("nvidia:h200")) is None


def test_the_roof_of_each_dtype_is_its_own() -> None:
    spec = ceilings.apply(targets.resolve("nvidia:h200"), RESULTS)
    assert roofline.roof(spec, "bfloat16").compute == 787.8e12
    single = roofline.roof(spec, "float32")
    assert (single.unit, single.compute) == ("float32-tf32x3", 137e12)
    # A product of 4096 cubed in 1.2 ms: 115 TFLOP/s, which multiply-adds alone could not reach.
    assert 0.8 < roofline.place(spec, 2 * 4096.0**3, 3 * 4 * 4096.0**2, 1.2e-3, "float32").fraction < 0.9


def test_the_program_is_kept_per_card_and_driver() -> None:
    device = nvidia.Device(0, "NVIDIA H200", "GPU-1", 143771 << 20, "9.0", "580.159.04", 1980, 700.0)
    keys = {ceilings._key(dataclasses.replace(device, **change)) for change in ({}, {"uuid": "GPU-2"}, {"driver": "590.1"})}
    assert len(keys) == 3


def test_a_machine_without_a_device_fails_in_one_sentence() -> None:
    device = nvidia.Device(0, "NVIDIA H200", "GPU-1", 143771 << 20, "9.0", "580.159.04", 1980, 700.0)
    with pytest.raises(LabError) as raised:
        list(ceilings._measured(device, lambda text: None))
    assert "\n" not in str(raised.value)


def test_the_program_compiles_to_a_kernel_for_every_generation() -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from kernelevolve_lab.targets.ceilings import cuda_program as program

    def compiled(kernel, signature: dict[str, str], constants: dict[str, int], arch: int):
        source = ASTSource(fn=kernel, signature={**signature, **dict.fromkeys(constants, "constexpr")}, constexprs=constants)
        return triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 4})

    for arch in (80, 90):
        block = {"BLOCK": 1024}
        moved = {"x": "*fp32", "y": "*fp32", "n": "i32", "loops": "i32"}
        for kernel in (program.read_kernel, program.copy_kernel):
            assert compiled(kernel, moved, block, arch).asm["cubin"]
        chain = {"y": "*fp32", "a": "fp32", "b": "fp32", "n": "i32"}
        assert "fma.rn" in compiled(program.fma_kernel, chain, {**block, "UNROLL": 16}, arch).asm["ptx"]


def test_the_doctor_tells_of_each_card(smi, monkeypatch: pytest.MonkeyPatch) -> None:
    from kernelevolve_lab import doctor

    monkeypatch.setattr(nvidia, "state", lambda index: {"clocks.sm": 345})
    smi(H200)
    told = {check.name: check for check in doctor._gpu()}
    assert "NVIDIA H200, 140 GiB, sm_90a, driver 580.159.04, 345 of 1980 MHz" in told["GPU 0"].found
    assert {"torch for CUDA", "nvcc", "ncu", "compute-sanitizer"} <= set(told)
    smi("", 9)
    assert [check.state for check in doctor._gpu()] == ["absent"]
