"""What a Python candidate may have PyTorch do: the rules of `policy.toml`, and what to say to whoever breaks them."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.harness.sampling import Library, Samples
from kernelevolve_lab.records import OperatorRef

Mode = Literal["forbid", "replace", "allow"]
_SHOWN = 6
_FEWEST_SAMPLES, _FOREIGN_SHARE, _ALL_FOREIGN = 6, 0.25, 0.9
"""Of the moments at which a candidate computes, so many at least and such a share must be in others' code before that is held against it:
a share where all computing must be its own, and where part of it must."""


@dataclass(frozen=True)
class Traced:
    """What a trace of one call saw: how often each operator ran, and whether something was used that no operator made. `reached` counts
    what PyTorch's dispatcher was asked for meanwhile, None where nobody counts that; `returned` says whether there are outputs."""

    counts: Mapping[str, int]
    made_outside: bool
    reached: Mapping[str, int] | None = None
    returned: bool = True


@dataclass(frozen=True)
class Policy:
    """The rules for one operator."""

    mode: Mode
    allowed: frozenset[str]
    namespaces: frozenset[str]
    libraries: tuple[Library, ...] = ()

    def computing(self, counts: Mapping[str, int]) -> Counter[str]:
        """PyTorch's operators among these that compute something."""
        return Counter({name: count for name, count in counts.items() if self._computes(name)})

    def _computes(self, name: str) -> bool:
        namespace, _, operator = name.partition("::")
        return namespace in self.namespaces and operator not in self.allowed

    def offence(self, found: Traced, reference: Mapping[str, int]) -> str:
        """What to say of a candidate that breaks the rules, nothing of one that keeps them. `reference` is what the operator's own
        reference ran."""
        used = self.computing(found.counts)
        if self.mode == "allow" or not used:
            return ""
        if self.mode == "forbid":
            return f"PyTorch computes for it ({listed(used)}); a kernel may have PyTorch allocate, view, cast and copy, and nothing else"
        if not found.made_outside:
            return f"it is a wrapper: PyTorch computes all of it ({listed(used)})"
        wanted = self.computing(reference)
        if wanted and all(used[name] >= count for name, count in wanted.items()):
            return f"it is a wrapper: PyTorch does all that it does for the reference ({listed(wanted)}), and its own code adds to that"
        return ""

    def offence_in(self, samples: Samples, operators: Mapping[str, int]) -> str:
        """What to say of where a candidate was found at random moments, with the operators that were called in those visits;
        nothing where that is all right. What such operators compute is not held against it here, since `offence` has judged that."""
        foreign = samples.foreign.total()
        share = foreign / max(1, foreign + samples.own)
        if foreign < _FEWEST_SAMPLES or self.mode == "allow" or self.computing(operators):
            return ""
        if share < (_FOREIGN_SHARE if self.mode == "forbid" else _ALL_FOREIGN):
            return ""
        most = samples.foreign.most_common(1)[0][0][:60]
        return f"a library computes for it ({most}): at {foreign} of {foreign + samples.own} moments its threads were in code of others"

    def told(self) -> str:
        """The rule in a sentence, for whoever writes a kernel."""
        lists = "allocation, views, casts and copies"
        return {
            "forbid": f"PyTorch may be used for {lists} only: any operator that computes (matmul, sum, exp, softmax, +, …) is cheating.",
            "replace": f"Beside {lists} PyTorch may compute part of the model, but at least one of its computing operators must be done by "
            "code of your own, whose results are used; a wrapper around PyTorch alone is cheating.",
            "allow": "PyTorch may compute anything.",
        }[self.mode]


def policy_for(operator: OperatorRef, mode: str = "") -> Policy:
    """The rules for an operator; `mode` overrides what the file says. Raises `BadInput` for a mode that there is not."""
    rules = _rules()
    chosen = mode or rules["operators"].get(operator.text if operator.kind == "registered" else "", rules["mode"][operator.kind])
    if chosen not in get_args(Mode):
        raise BadInput(f"There is no policy '{chosen}'; choose one of {', '.join(get_args(Mode))}.")
    allowed = frozenset(name for names in rules["allowed"].values() for name in names)
    libraries = tuple(Library(*(re.compile(rule[key]) for key in ("files", "computing", "harmless"))) for rule in rules["library"])
    return Policy(chosen, allowed, torch_namespaces(), libraries)


def torch_namespaces() -> frozenset[str]:
    """The namespaces of PyTorch's own operators."""
    return frozenset(_rules()["torch"]["namespaces"])


@cache
def _rules() -> dict:
    return tomllib.loads(Path(__file__).with_name("policy.toml").read_text())


def listed(found: Iterable[str]) -> str:
    """Names for people, the first few of many."""
    names = sorted(found)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
