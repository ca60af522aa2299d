"""Published specifications: the TOML files of `specs/`, one a vendor, every number with its source.

A published peak was not measured by this package, so as a ceiling its evidence is `modelled`; `unverified` in a source means that it was
not checked against the vendor's own document.
"""

import tomllib
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kernelevolve_lab.records import CacheLevel, Ceiling, Evidence, TargetSpec

SPECS = Path(__file__).with_name("specs")


@cache
def _table(vendor: str) -> MappingProxyType[str, Any]:
    return MappingProxyType(tomllib.loads((SPECS / f"{vendor}.toml").read_text()))


def names(vendor: str) -> tuple[str, ...]:
    """The full names of a vendor's targets, as `nvidia:h100`."""
    return tuple(f"{vendor}:{key}" for key in _table(vendor))


def match(name: str) -> Any:
    """What tells that a device is this target; its form is the vendor's own. None where there is no way to tell."""
    vendor, _, key = name.partition(":")
    return _table(vendor)[key].get("match")


def spec(name: str, present: bool) -> TargetSpec:
    """The specification of one target, without anything measured."""
    vendor, _, key = name.partition(":")
    entry = _table(vendor)[key]
    return TargetSpec(
        name=name,
        title=entry["title"],
        vendor=vendor,
        arch=entry["arch"],
        units=entry["units"],
        features=tuple(entry["features"]),
        caches=tuple(CacheLevel(level=c["level"], bytes=c["kib"] << 10, shared_by=c["shared_by"]) for c in entry["caches"]),
        memory_bytes=entry["memory_gb"] * 10**9,
        ceilings=tuple(Ceiling(**ceiling, evidence=Evidence.MODELLED) for ceiling in entry["ceilings"]),
        present=present,
        facts=tuple(entry["facts"]),
    )
