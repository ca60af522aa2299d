"""Why does a kernel take the time it takes? From its timings, its place under the roofline and its build's metrics, by rules in a file."""

from __future__ import annotations

import math
import operator
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kernelevolve_lab.records import CaseResult, Diagnosis, Finding, Scalar

LATENCY_SECONDS = 5e-6
"""A case whose roof allows less than this is bound by starting and waiting, not by work."""
FAR_BELOW = 0.3
"""Below this fraction of its roof a kernel is limited by neither memory nor arithmetic."""

_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Rule:
    """One rule of the file; see its head."""

    name: str
    when: tuple[tuple[str, str, float], ...]
    what: str
    advice: str
    fires: Mapping[str, float]
    silent: Mapping[str, float]

    def holds(self, quantities: Mapping[str, Any]) -> bool:
        """Whether all conditions hold; False where a quantity is unknown or no number."""
        known = {name: value for name, value in quantities.items() if isinstance(value, (int, float))}
        return all(name in known and _COMPARE[how](known[name], value) for name, how, value in self.when)


@cache
def rules() -> tuple[Rule, ...]:
    """The rules of `diagnosis_rules.toml`, in order."""
    table = tomllib.loads(Path(__file__).with_name("diagnosis_rules.toml").read_text())
    return tuple(
        Rule(r["name"], tuple((n, h, float(v)) for n, h, v in r["when"]), r["what"], r["advice"], r["fires"], r["silent"])
        for r in table["rule"]
    )


def diagnose(
    results: Sequence[CaseResult], threads: int, threads_used: Mapping[str, float], main: str, metrics: Mapping[str, Scalar]
) -> Diagnosis | None:
    """The diagnosis of a correct, timed candidate from its visible cases; None where no roofline is known.

    `threads_used` gives by case name the share of the threads' time that was spent computing.
    """
    placed = [result for result in results if result.roofline is not None and "candidate" in result.times]
    if not placed:
        return None
    most = max(placed, key=lambda r: r.times["candidate"].median * (1 - min(1.0, r.roofline.fraction)))
    point, seconds = most.roofline, most.times["candidate"].median
    assert point is not None
    roof_seconds = seconds * point.fraction
    memory_side = _is_memory(point.bound_by)
    ratios = {r.case.name: s.value for r in placed for s in r.speedups if s.baseline == main}
    quantities: dict[str, Any] = {
        **metrics,
        "seconds": seconds,
        "ms": seconds * 1e3,
        "roof_ms": roof_seconds * 1e3,
        "passes": 1 / point.fraction if point.fraction > 0 else math.inf,
        "level": _level(point.bound_by),
        "fraction": point.fraction,
        "intensity": point.intensity,
        "gain": seconds - roof_seconds,
        "roof_seconds": roof_seconds,
        "roof_seconds_us": roof_seconds * 1e6,
        "memory_side": float(memory_side),
        "threads": float(threads),
        "spread": (most.times["candidate"].high - most.times["candidate"].low) / seconds,
    }
    if most.case.name in threads_used:
        quantities["threads_used"] = threads_used[most.case.name]
    if metrics.get("hot_loop_fma"):
        quantities["loads_per_fma"] = metrics.get("hot_loop_loads", 0) / metrics["hot_loop_fma"]
    if ratios:
        quantities["case_ratio_spread"] = max(ratios.values()) / min(ratios.values())
        quantities["worst_case"] = min(ratios, key=lambda name: ratios[name])
        quantities["against_main"] = ratios.get(most.case.name, 0.0)
    findings = tuple(Finding(what=r.what.format(**quantities), advice=r.advice, rule=r.name) for r in rules() if r.holds(quantities))
    bound = "latency" if roof_seconds < LATENCY_SECONDS else "memory" if memory_side else "compute"
    if bound != "latency" and point.fraction < FAR_BELOW:
        bound = "unknown"
    return Diagnosis(bound=bound, summary=_summary(bound, most), findings=findings)


def _summary(bound: str, result: CaseResult) -> str:
    point, seconds = result.roofline, result.times["candidate"].median
    assert point is not None
    if _is_memory(point.bound_by):
        reached = f"{point.fraction:.0%} of {_level(point.bound_by)} bandwidth ({point.bytes_per_second / 1e9:.1f} GB/s)"
    else:
        reached = f"{point.fraction:.0%} of {point.bound_by} peak ({point.flops_per_second / 1e9:.1f} GFLOP/s)"
    lead = {"latency": "latency-bound", "unknown": "far below its roof", "memory": "memory-bound", "compute": "compute-bound"}[bound]
    return f"{lead} at {reached}, {seconds * 1e3:.3g} ms in '{result.case.name}'"


def _level(bound_by: str) -> str:
    return bound_by.upper() if _is_memory(bound_by) else bound_by


def _is_memory(name: str) -> bool:
    return name in ("dram", "gddr", "hbm", "lpddr") or (name[:1] == "l" and name[1:].isdigit())
