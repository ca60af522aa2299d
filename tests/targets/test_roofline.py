import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kernelevolve_lab import targets
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.records import CacheLevel, Ceiling, Evidence, TargetSpec
from kernelevolve_lab.targets.roofline import main_memory, place, roof


def ceiling(kind: str, name: str, value: float, threads: int = 0) -> Ceiling:
    return Ceiling(kind=kind, name=name, value=value, threads=threads, evidence=Evidence.MEASURED, source="made up for this test")


MACHINE = TargetSpec(
    name="cpu",
    title="four cores",
    vendor="cpu",
    arch="x86_64",
    units=4,
    caches=(
        CacheLevel(level=1, bytes=32_000),
        CacheLevel(level=2, bytes=1_000_000, shared_by=2),
        CacheLevel(level=3, bytes=16_000_000, shared_by=4),
    ),
    ceilings=(
        *(ceiling("bandwidth", *pair) for pair in (("l1", 800e9), ("l2", 400e9), ("l3", 100e9), ("dram", 40e9))),
        *(ceiling("bandwidth", name, value, 1) for name, value in (("l1", 200e9), ("l2", 100e9), ("l3", 40e9), ("dram", 16e9))),
        *(
            ceiling("compute", *pair)
            for pair in (("float32", 400e9), ("float64", 200e9), ("bfloat16", 300e9), ("bfloat16-amx", 4000e9), ("int8", 900e9))
        ),
        ceiling("compute", "float32", 100e9, 1),
    ),
    present=True,
)

amount = st.floats(1, 1e15)
duration = st.floats(1e-9, 1e4)
dtypes = st.sampled_from(["float32", "float64", "float16", "bfloat16", "int8", "int64"])


@given(amount, amount, duration, st.floats(1.01, 100), dtypes)
def test_the_fraction_falls_as_time_grows(flops: float, bytes: float, seconds: float, slower: float, dtype: str) -> None:
    fast, slow = (place(MACHINE, flops, bytes, t, dtype) for t in (seconds, seconds * slower))
    assert fast.fraction == pytest.approx(slow.fraction * slower)
    assert fast.bound_by == slow.bound_by and fast.intensity == slow.intensity


@given(amount, amount, dtypes, st.sampled_from([0, 1, 2, 4, 9]))
def test_a_run_as_fast_as_the_roof_has_fraction_one(flops: float, bytes: float, dtype: str, threads: int) -> None:
    seconds = roof(MACHINE, dtype, threads).seconds(flops, bytes)
    assert place(MACHINE, flops, bytes, seconds, dtype, threads).fraction == pytest.approx(1)


@given(amount, dtypes, st.floats(1.001, 1e4))
def test_both_bounds_meet_at_the_ridge(bytes: float, dtype: str, factor: float) -> None:
    bound = roof(MACHINE, dtype)
    at = bound.ridge * bytes
    assert at / bound.compute == pytest.approx(bytes / bound.bandwidth)
    assert place(MACHINE, at * factor, bytes, 1.0, dtype).bound_by == bound.unit
    assert place(MACHINE, at / factor, bytes, 1.0, dtype).bound_by == bound.memory == "dram"


@given(amount, amount, duration, st.floats(1, 1e9), st.floats(1, 1e9))
def test_a_smaller_working_set_never_raises_the_fraction(flops: float, bytes: float, seconds: float, a: float, b: float) -> None:
    small, large = (place(MACHINE, flops, bytes, seconds, "float32", working_set=size) for size in sorted((a, b)))
    assert small.fraction <= large.fraction * (1 + 1e-9)


@given(st.integers(1, 6), st.integers(1, 6))
def test_more_threads_never_lower_the_roof(a: int, b: int) -> None:
    assume(a < b)
    few, many = (roof(MACHINE, "float32", threads) for threads in (a, b))
    assert few.compute <= many.compute <= 400e9 and few.bandwidth <= many.bandwidth <= 40e9


@pytest.mark.parametrize(
    ("working_set", "threads", "level"),
    [
        (32_000, 1, "l1"),
        (128_000, 0, "l1"),
        (1_000_000, 1, "l2"),
        (2_000_000, 0, "l2"),
        (16_000_000, 0, "l3"),
        (1e9, 0, "dram"),
        (None, 0, "dram"),
    ],
)
def test_the_level_that_holds_the_working_set_bounds_it(working_set: float | None, threads: int, level: str) -> None:
    assert roof(MACHINE, "float32", threads, working_set).memory == level


def test_a_working_set_in_one_level_has_its_bandwidth_and_a_larger_one_a_blend() -> None:
    assert roof(MACHINE, "float32", 0, 100_000).bandwidth == pytest.approx(800e9)
    assert roof(MACHINE, "float32", 0, None).bandwidth == 40e9
    # Of 4 MB, L1 holds 128 kB, L2 the next 1872 kB and L3 the last 2000 kB.
    seconds = 128e3 / 800e9 + 1872e3 / 400e9 + 2000e3 / 100e9
    assert roof(MACHINE, "float32", 0, 4e6).bandwidth == pytest.approx(4e6 / seconds)


@given(st.floats(1, 1e12), st.floats(1.0001, 1.01))
def test_the_bandwidth_has_no_step_where_a_level_is_outgrown(working_set: float, grown: float) -> None:
    before, after = (roof(MACHINE, "float32", 0, size).bandwidth for size in (working_set, working_set * grown))
    assert before * (1 + 1e-9) >= after >= before * 0.8 and 40e9 * (1 - 1e-9) <= after <= 800e9 * (1 + 1e-9)


def test_the_fastest_unit_for_the_dtype_is_the_roof_and_narrow_types_may_widen() -> None:
    assert roof(MACHINE, "bfloat16").unit == "bfloat16-amx"
    assert roof(MACHINE, "float16").unit == "float32"
    assert roof(MACHINE, "float64").unit == "float64"
    assert roof(MACHINE, "int64").unit == "float32"
    without = MACHINE.model_copy(update={"ceilings": tuple(c for c in MACHINE.ceilings if c.name != "bfloat16-amx")})
    assert roof(without, "bfloat16").unit == "float32"


def test_no_arithmetic_is_bound_by_memory_and_no_bytes_by_arithmetic() -> None:
    copy = place(MACHINE, 0, 40e9, 2.0, "int64")
    assert (copy.intensity, copy.bound_by, copy.fraction) == (0, "dram", 0.5)
    spin = place(MACHINE, 400e9, 0, 2.0, "float32")
    assert (spin.intensity, spin.bound_by, spin.fraction) == (math.inf, "float32", 0.5)


@pytest.mark.parametrize("numbers", [(1, 1, 0), (1, 1, -1), (1, 1, math.nan), (1, 1, math.inf), (-1, 1, 1), (0, 0, 1)])
def test_impossible_numbers_are_refused(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(BadInput, match="positive time"):
        place(MACHINE, *numbers, "float32")


def test_a_target_without_ceilings_says_to_measure_first() -> None:
    with pytest.raises(BadInput, match="measure the target first"):
        place(MACHINE.model_copy(update={"ceilings": ()}), 1, 1, 1, "float32")


def test_published_targets_have_a_roof_for_every_common_dtype() -> None:
    for name in targets.names():
        if name != "cpu":
            spec = targets.resolve(name)
            for dtype in ("float32", "float16", "bfloat16", "int64"):
                assert roof(spec, dtype).memory == main_memory(spec) in {"hbm", "lpddr", "gddr"}
    assert roof(targets.resolve("nvidia:h100"), "float32").unit == "float32"
