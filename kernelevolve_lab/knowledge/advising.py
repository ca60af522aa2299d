"""What to try next: advice from the rules in `advice.toml`, ranked by what speaks for it.

What a kernel's own numbers point at comes first: the judge's findings, then rules whose conditions hold. Advice that the numbers contradict
is not given. What was tried around this kernel without a clear gain goes to the end and is said to have been tried; after a second try in
vain it is left out.
"""

from __future__ import annotations

import operator as operators
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kernelevolve_lab.knowledge import floors, outcomes
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import CaseResult, Evaluation, Finding, Flag, TargetSpec
from kernelevolve_lab.records.run_state import Entry, RunState

ROOF_RULES = frozenset(
    {
        "near the roof",
        "more time than its bytes take",
        "its bytes take little of its time",
        "far below the compute roof",
    }
)
"""The judge's rules that say where a kernel stands under its roof; a diagnosis says that itself, for every case and for a calm machine."""

MOST = 4
TRIED_OUT = 2

_COMPARE = {"<": operators.lt, "<=": operators.le, ">": operators.gt, ">=": operators.ge}


@cache
def _rules() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "advice.toml").read_text("utf-8"))


def inclinations(phase: str, bottleneck: str = "", advised: bool = True) -> tuple[str, ...]:
    """Directions among which parallel requests of a phase are spread, so that they do not all bring the same kernel; none for repairs.
    None contradicts the bottleneck, and where there is no advice, none points to it."""
    lines = _rules()["inclinations"].get(phase, ())
    found = tuple(line["say"] for line in lines if bottleneck not in line.get("unless", ()))
    return found if advised else tuple(line for line in found if "advice" not in line)


def by_bottleneck(bottleneck: str, phase: str) -> tuple[str, ...]:
    """What holds in general for a bottleneck in a phase, before there is a kernel or while it is wrong."""
    rules = _rules().get(bottleneck, {})
    return tuple(rules.get(phase, ()) or rules.get("any", ()))


def by_evidence(
    operator: Operator,
    target: TargetSpec,
    state: RunState,
    entry: Entry,
    evaluation: Evaluation,
    findings: Sequence[Finding],
    bottleneck: str,
    phase: str,
    shares: Mapping[str, tuple[CaseResult, float, float]],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What to try on a correct kernel, best founded first, and what was tried out. `findings` are the judge's, the weightiest first;
    `shares` gives by case the result, its seconds and the share of them that its roof allows."""
    known = _quantities(operator, target, entry, evaluation, shares)
    offered = [finding.advice for finding in findings if finding.advice]
    offered += by_bottleneck(bottleneck, phase) if phase == "stalled" else ()
    offered += [rule["say"] for rule in _rules()["improve"] if _holds(rule, known, bottleneck)]
    attempts = _attempts(state, entry)
    fresh, again, spent = [], [], []
    for advice in dict.fromkeys(offered):
        topics = [topic["name"] for topic in _rules()["topic"] if re.search(topic["words"], advice, re.IGNORECASE)]
        vain = {id for topic in topics[:1] for id in _in_vain(attempts, topic)}
        if not vain:
            fresh.append(advice)
        elif len(vain) < TRIED_OUT:
            again.append(f"{advice} (Tried in {', '.join(sorted(vain))}, without a clear gain.)")
        else:
            spent.append(f"{topics[0].capitalize()}: tried in {', '.join(sorted(vain))}, without a clear gain.")
    return tuple([*fresh, *again][:MOST]), tuple(dict.fromkeys(spent))[:MOST]


def _quantities(
    operator: Operator,
    target: TargetSpec,
    entry: Entry,
    evaluation: Evaluation,
    shares: Mapping[str, tuple[CaseResult, float, float]],
) -> dict[str, float]:
    """The numbers that conditions may ask for: see the head of `advice.toml`."""
    known = {name: float(value) for name, value in evaluation.metrics.items() if isinstance(value, int | float)}
    known["streams"] = float("_stream_" in entry.source or "movnt" in entry.source or known.get("hot_loop_streaming_stores", 0) > 0)
    if target.simd_bits and known.get("hot_loop_vector_bits"):
        known["narrow"] = target.simd_bits / known["hot_loop_vector_bits"]
    if shares:
        result, _, share = max(shares.values(), key=lambda found: found[1] * (1 - min(1.0, found[2])))
        known["share"] = share
        known["memory_side"] = float(floors.is_memory(result.roofline.bound_by))
        known["bytes"] = operator.work(result.case).bytes
        if target.caches:
            known["beyond_caches"] = known["bytes"] / max(level.bytes for level in target.caches)
    return known


def _holds(rule: Mapping[str, Any], known: Mapping[str, float], bottleneck: str) -> bool:
    if bottleneck not in rule.get("bottleneck", (bottleneck,)):
        return False
    return all(name in known and _COMPARE[how](known[name], value) for name, how, value in rule["when"])


def _attempts(state: RunState, entry: Entry) -> list[tuple[Entry, str]]:
    """What was tried around a kernel, with what came of it: its children, itself, and its siblings."""
    near = {entry.id: entry} | {child.id: child for child in state.children(entry.id)}
    for parent in entry.candidate.parents:
        near |= {sibling.id: sibling for sibling in state.children(parent)}
    return [(other, outcomes.outcome(state, other)) for other in near.values()]


def _in_vain(attempts: Sequence[tuple[Entry, str]], topic: str) -> set[str]:
    """Ids of the attempts at that topic that brought no clear gain, which noise cannot show; none where any attempt did."""
    (words,) = [found["words"] for found in _rules()["topic"] if found["name"] == topic]
    # The title says what is special about an attempt; its plan speaks of much else.
    about = [(entry, outcome) for entry, outcome in attempts if re.search(words, entry.candidate.title, re.IGNORECASE)]
    if any(outcome == "faster" for _, outcome in about):
        return set()
    return {
        entry.id for entry, outcome in about if outcome == "slower" or (outcome == "unclear" and Flag.NOISY not in entry.evaluation.flags)
    }
