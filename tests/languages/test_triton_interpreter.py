import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernelevolve_lab.languages import triton_interpreter

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def probes() -> dict[str, list]:
    script = Path(__file__).with_name("interpreter_probes.py")
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


# What is left is rounding: of a bfloat16 operation and its sum (2^-7 of values up to 8), of TF32 operands (2^-11 each, 32 products), of
# float32 elsewhere.
LEFT = {"bf16_arithmetic": 2**-4, "bf16_reduce": 2**-4, "tf32_dot": 2e-2, "bf16_cast": 0.0}
LEFT |= {"fp8_e4m3_cast": 0.0, "fp8_e5m2_cast": 0.0, "fp8_saturates": 0.0, "autotune": 0.0}
NAMES = (*LEFT, "bf16_dot", "fp8_dot", "exact_fp32_dot", "libdevice_functions")


@pytest.mark.parametrize("name", NAMES)
def test_corrected_the_interpreter_agrees_with_pytorch(name: str, probes: dict[str, list]) -> None:
    error = probes[name][1]
    assert isinstance(error, float) and error <= LEFT.get(name, 2e-5), error


@pytest.mark.parametrize(
    "name", ["bf16_arithmetic", "bf16_reduce", "bf16_cast", "bf16_dot", "fp8_e4m3_cast", "fp8_e5m2_cast", "fp8_saturates"]
)
def test_upstream_is_still_wrong(name: str, probes: dict[str, list]) -> None:
    """Fails when upstream is mended for every supported version: then its correction can go."""
    error = probes[name][0]
    assert isinstance(error, str) or not error <= LEFT.get(name, 2e-5), f"upstream computes {name} rightly now: remove its correction"


@pytest.mark.parametrize("name", ["autotune", "libdevice_functions"])
def test_upstream_still_cannot(name: str, probes: dict[str, list]) -> None:
    """Fails when upstream is mended for every supported version: then its correction can go."""
    assert isinstance(probes[name][0], str), f"upstream can do {name} now: remove its correction"


def test_upstream_still_computes_tf32_products_exactly(probes: dict[str, list]) -> None:
    upstream, corrected = probes["tf32_dot"]
    assert upstream < 2e-5 and corrected > 1e-4


def test_it_refuses_a_process_that_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        triton_interpreter.install({})


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_narrowing_rounds_as_pytorch_does(values: list[float]) -> None:
    array = np.array(values, np.float32)
    expected = torch.from_numpy(array).bfloat16().float().numpy()
    np.testing.assert_array_equal(triton_interpreter.widen(triton_interpreter.narrow(array)), expected)


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_tf32_keeps_ten_bits_of_fraction(values: list[float]) -> None:
    array = np.array(values, np.float32)
    rounded = triton_interpreter.to_tf32(array)
    finite = np.isfinite(array) & np.isfinite(rounded)
    assert not (rounded[finite].view(np.uint32) & 0x1FFF).any()
    wide = array[finite].astype(np.float64)
    assert (np.abs(rounded[finite] - wide) <= np.maximum(np.abs(wide) * 2.0**-11, 2.0**-137)).all()
    np.testing.assert_array_equal(rounded[~np.isfinite(array)], array[~np.isfinite(array)])
