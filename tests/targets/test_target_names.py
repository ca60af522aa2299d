import tomllib
from pathlib import Path

import pytest

from kernelevolve_lab import targets
from kernelevolve_lab.errors import UnknownName
from kernelevolve_lab.records import Evidence
from kernelevolve_lab.targets import amd, published


def test_this_cpu_comes_first_and_every_name_resolves() -> None:
    names = targets.names()
    assert names[0] == "cpu"
    assert {"nvidia:h100", "amd:mi300x", "amd:mi350x", "mtia:2i", "mtia:300"} <= set(names)
    for name in names:
        spec = targets.resolve(name)
        assert spec.name == name and spec.vendor == name.partition(":")[0] and spec.title and spec.units > 0 and spec.memory_bytes > 0


@pytest.mark.parametrize(
    ("name", "near"),
    [("nvidia:h10", "'nvidia:h100'"), ("mi300x", "'amd:mi300x'"), ("zzzz", "known: cpu, "), ("", "known: "), ("cpu:0", "'cpu'")],
)
def test_an_unknown_name_is_answered_with_near_ones(name: str, near: str) -> None:
    with pytest.raises(UnknownName) as raised:
        targets.resolve(name)
    assert f"no target named '{name}'" in str(raised.value) and near in str(raised.value)


@pytest.mark.parametrize("name", [name for name in targets.names() if name != "cpu"])
def test_published_numbers_have_sources_and_hang_together(name: str) -> None:
    spec = targets.resolve(name)
    ceilings = {(c.kind, c.name): c for c in spec.ceilings}
    assert len(ceilings) == len(spec.ceilings)
    for c in spec.ceilings:
        assert c.source and c.evidence is Evidence.MODELLED and c.threads == 0 and c.value > 1e9
    memory = [c for (kind, level), c in ceilings.items() if kind == "bandwidth" and level in {"hbm", "lpddr", "gddr"}]
    assert len(memory) == 1
    assert all(c.value >= memory[0].value for (kind, _), c in ceilings.items() if kind == "bandwidth")
    assert ("compute", "float32") in ceilings
    narrower = [c.value for (kind, unit), c in ceilings.items() if kind == "compute" and unit.startswith(("float16-", "bfloat16-"))]
    assert narrower and min(narrower) > ceilings["compute", "float32"].value


def test_the_fields_of_the_data_files_are_all_used() -> None:
    known = {"title", "match", "arch", "units", "memory_gb", "features", "caches", "facts", "ceilings"}
    for file in published.SPECS.glob("*.toml"):
        for entry in tomllib.loads(file.read_text()).values():
            assert set(entry) <= known


def test_an_amd_gpu_is_found_by_what_the_driver_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for node, properties, memory in (
        ("0", "simd_count 0\ngfx_target_version 0\n", 1 << 38),
        ("1", "simd_count 1216\nsimd_per_cu 4\ngfx_target_version 90402\n", 206_141_652_992),
    ):
        (tmp_path / node / "mem_banks/0").mkdir(parents=True)
        (tmp_path / node / "properties").write_text(properties)
        (tmp_path / node / "mem_banks/0/properties").write_text(f"heap_type 1\nsize_in_bytes {memory}\n")
    monkeypatch.setattr(amd, "NODES", tmp_path)
    assert amd.devices(tmp_path) == ({"gfx_target_version": 90402, "units": 304, "memory_bytes": 206_141_652_992},)
    assert targets.resolve("amd:mi300x").present and not targets.resolve("amd:mi350x").present
    assert amd.devices(tmp_path / "none") == ()


def test_measuring_what_is_not_here_changes_nothing(tmp_path: Path) -> None:
    spec = targets.resolve("mtia:2i")
    assert not spec.present and targets.measure(spec, tmp_path) is spec
    assert list(tmp_path.iterdir()) == []
