import itertools
import threading
from pathlib import Path

import pytest

from kernelevolve_lab import targets
from kernelevolve_lab.records import CacheLevel, Evidence, TargetSpec
from kernelevolve_lab.targets.ceilings import cpu as ceilings

SHORT = ceilings.Plan(rounds=1, milliseconds=3, dram_bytes=64 << 20)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[TargetSpec, Path, list[str]]:
    """This machine, measured once for real."""
    cache, said = tmp_path_factory.mktemp("cache"), []
    return ceilings.measure(targets.resolve("cpu"), cache, progress=said.append, plan=SHORT), cache, said


def value(spec: TargetSpec, kind: str, name: str, threads: int = 0) -> float:
    found = spec.ceiling(kind, name, threads)
    assert found is not None and found.evidence is Evidence.MEASURED and found.source
    return found.value


def test_the_hierarchy_is_plausible(measured: tuple[TargetSpec, Path, list[str]]) -> None:
    spec = measured[0]
    levels = [name for name in ("l1", "l2", "l3", "dram") if spec.ceiling("bandwidth", name)]
    assert "dram" in levels and len(levels) >= 2
    for threads in (0, 1):
        rates = [value(spec, "bandwidth", name, threads) for name in levels]
        # On a busy machine a short measurement may be off; the order of the levels holds by factors, not by percents.
        assert all(nearer > 0.7 * farther for nearer, farther in itertools.pairwise(rates)), rates
        assert 1e8 < rates[-1] < rates[0] < 1e14


def test_arithmetic_is_plausible(measured: tuple[TargetSpec, Path, list[str]]) -> None:
    spec = measured[0]
    for threads in (0, 1):
        single, double = (value(spec, "compute", name, threads) for name in ("float32", "float64"))
        assert 1e9 < double < single < 1e14
        assert 1.3 < single / double < 3
    if spec.units > 1:
        assert value(spec, "compute", "float32", 0) > value(spec, "compute", "float32", 1)
    has_amx = {"amx_tile", "amx_bf16", "amx_int8"} <= set(spec.features)
    assert has_amx or spec.ceiling("compute", "bfloat16-amx") is None


def test_sources_say_what_was_done_and_progress_was_told(measured: tuple[TargetSpec, Path, list[str]]) -> None:
    spec, _, said = measured
    dram = spec.ceiling("bandwidth", "dram")
    assert "64 MiB" in dram.source and "GB/s by pattern" in dram.source and "rounds" in dram.source
    assert "building the program" in said[0] and f"(1 of {len(ceilings.plan_tests(targets.resolve('cpu'), SHORT))})" in said[1]


def test_a_second_measurement_comes_from_the_cache_until_refreshed(measured: tuple[TargetSpec, Path, list[str]]) -> None:
    spec, cache, _ = measured
    said: list[str] = []
    again = ceilings.measure(targets.resolve("cpu"), cache, progress=said.append, plan=SHORT)
    assert said == [] and again == spec

    class Stop(Exception):
        pass

    def stop(text: str) -> None:
        if "of" in text and text[-1] == ")":
            raise Stop

    with pytest.raises(Stop):
        ceilings.measure(targets.resolve("cpu"), cache, refresh=True, progress=stop, plan=SHORT)
    assert ceilings.measure(targets.resolve("cpu"), cache, plan=SHORT) == spec


def test_a_damaged_cache_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def instead(*arguments) -> list[dict]:
        calls.append(arguments)
        return [{"round": 0, "pattern": "read", "name": "dram", "threads": 1, "bytes": 1 << 26, "rate": 1e10}]

    monkeypatch.setattr(ceilings, "_measure", instead)
    spec = targets.resolve("cpu")
    ceilings.measure(spec, tmp_path)
    next((tmp_path / "ceilings").glob("*.json")).write_text("{ torn")
    ceilings.measure(spec, tmp_path)
    assert len(calls) == 2


def test_two_at_once_measure_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def slowly(*arguments) -> list[dict]:
        calls.append(arguments)
        threading.Event().wait(0.2)
        return []

    monkeypatch.setattr(ceilings, "_measure", slowly)
    spec = targets.resolve("cpu")
    workers = [threading.Thread(target=ceilings.measure, args=(spec, tmp_path)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(calls) == 1


def machine(l2: int, l3: int, units: int, shared_by: int) -> TargetSpec:
    caches = (CacheLevel(level=1, bytes=48 << 10), CacheLevel(level=2, bytes=l2), CacheLevel(level=3, bytes=l3, shared_by=shared_by))
    return TargetSpec(name="cpu", title="", vendor="cpu", arch="", units=units, caches=caches, memory_bytes=64 << 30, present=True)


def test_working_sets_stay_in_their_level() -> None:
    server = ceilings.working_sets(machine(2 << 20, 480 << 20, 2, 2), 2, ceilings.Plan())
    assert server == {"l1": 48 << 10, "l2": 2 << 20, "l3": 16 << 20, "dram": 512 << 20}
    desktop = ceilings.working_sets(machine(1 << 20, 32 << 20, 8, 8), 8, ceilings.Plan())
    assert desktop == {"l1": 192 << 10, "l2": 4 << 20, "l3": 16 << 20, "dram": 256 << 20}
    # Where all the L2 together are as large as L3, no working set would show L3 alone.
    assert "l3" not in ceilings.working_sets(machine(2 << 20, 30 << 20, 16, 16), 16, ceilings.Plan())


def test_the_usable_part_of_a_shared_cache_is_found() -> None:
    spec = machine(2 << 20, 480 << 20, 2, 2)

    def result(name: str, total: int, rate: float) -> dict:
        return {"round": 0, "pattern": "read", "name": name, "threads": 2, "bytes": total // 2, "rate": rate}

    found = [result("l3", 16 << 20, 60e9), result("dram", 512 << 20, 31e9)]
    found += [result("knee", size << 20, rate) for size, rate in ((32, 60e9), (64, 59e9), (128, 45e9), (256, 32e9))]
    cut = ceilings._apply(spec, found, ceilings.Plan())
    assert cut.caches[-1].bytes == 256 << 20 and "less than 256 MiB were usable" in cut.facts[0]
    whole = ceilings._apply(spec, [*found[:-1], result("knee", 256 << 20, 58e9)], ceilings.Plan())
    assert whole.caches == spec.caches and whole.facts == ()
