"""Constants that a candidate declares to be tuned: read from its source, drawn from their space, written back. It costs no tokens.

A declaration stands in a comment on the line that defines the constant:

    constexpr int TILE = 64;  // tune: TILE in {32, 64, 128}

Candidates that differ in nothing but these values are one family; what was tried in it steers the next draw.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.proposers.base import Proposal, ProposalRequest
from kernelevolve_lab.proposers.schedule.space import Knob, Setting, Space
from kernelevolve_lab.records import Candidate, Scalar
from kernelevolve_lab.records.run_state import Entry, RunState

MOST_CONSTANTS, MOST_VALUES = 4, 8
PATIENCE = 4
"""After so many settings of a family in a row that brought no better kernel, the family is tuned no further."""
DRAWS = 12

_DECLARED = re.compile(r"(?://|#)\s*tune:\s*(?P<name>[A-Za-z_]\w*)\s+in\s+\{(?P<values>[^}\n]*)\}")
_LITERAL = r"(?:true|false|True|False|[-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?f?|\d+(?:[eE][-+]?\d+f?)?))"


@dataclass(frozen=True)
class Tunable:
    """A source with declared constants: `space` of their values, `setting` the values that stand in it, and the source in pieces between
    the values, `names` saying which constant stands at each joint."""

    space: Space
    setting: Setting
    pieces: tuple[str, ...]
    names: tuple[str, ...]
    spellings: dict[tuple[str, Scalar], str]

    @property
    def family(self) -> tuple[str, ...]:
        """The same for all sources that differ only in the values."""
        return self.pieces

    def source(self, setting: Setting) -> str:
        """The source with these values."""
        text = [self.pieces[0]]
        for name, piece in zip(self.names, self.pieces[1:], strict=True):
            text += [self.spellings[name, setting[name]], piece]
        return "".join(text)


def tunable(source: str) -> Tunable | None:
    """What a source declares, or None where it declares nothing that can be used: a declaration counts when its line defines the constant
    with a value that is among those listed, and its values are numbers or booleans."""
    knobs: list[Knob] = []
    pieces, names, setting, spellings = [""], [], {}, {}
    for line in source.splitlines(keepends=True):
        found = _definition(line) if len(knobs) < MOST_CONSTANTS else None
        if found is None or found[0] in setting:
            pieces[-1] += line
            continue
        name, start, end, values = found
        knobs.append(Knob(name, tuple(values), _value(line[start:end])))
        setting[name] = _value(line[start:end])
        spellings |= {(name, value): spelling for value, spelling in values.items()}
        pieces[-1] += line[:start]
        pieces.append(line[end:])
        names.append(name)
    if not knobs:
        return None
    return Tunable(Space(tuple(knobs)), setting, tuple(pieces), tuple(names), spellings)


def _definition(line: str) -> tuple[str, int, int, dict[Scalar, str]] | None:
    """Name, place of the value, and the listed values with their spelling."""
    declared = _DECLARED.search(line)
    if declared is None:
        return None
    name = declared["name"]
    defined = re.search(rf"\b{name}\s*(?:=\s*|\{{\s*|(?<=\s))(?P<value>{_LITERAL})\b", line[: declared.start()])
    spellings = [part.strip() for part in declared["values"].split(",")]
    if defined is None or not all(re.fullmatch(_LITERAL, spelling) for spelling in spellings):
        return None
    values = {_value(spelling): spelling for spelling in spellings[:MOST_VALUES]}
    if len(values) < 2 or _value(defined["value"]) not in values:
        return None
    return name, *defined.span("value"), values


def _value(spelling: str) -> Scalar:
    if spelling.lower() in ("true", "false"):
        return spelling.lower() == "true"
    number = spelling.rstrip("f")
    return int(number) if re.fullmatch(r"[-+]?\d+", number) else float(number)


class Tuner:
    """Proposes other values of the constants that a parent declares."""

    name = "tuning"

    def room(self, state: RunState, parent: str) -> int:
        """How many settings of the parent's family are worth trying: those that nobody has tried, none where it declares none or where the
        last tries brought nothing."""
        found = tunable(state.entries[parent].candidate.source)
        if found is None:
            return 0
        family = [entry for entry, _ in _family(state, found)]
        best = max(family, key=lambda entry: entry.fitness)
        if sum(entry.order > best.order for entry in family) >= PATIENCE:
            return 0
        return max(0, found.space.bound - len(family))

    def propose(self, request: ProposalRequest) -> Proposal:
        """A candidate of the first parent's family with values that were not tried; none where all were."""
        parent = request.state.entries[request.parents[0]]
        found = tunable(parent.candidate.source)
        if found is None:
            raise BadInput(f"Candidate {parent.candidate.id} declares no constants to be tuned.")
        for setting in _settings(request, found):
            source = found.source(setting)
            candidate = Candidate(
                language=request.language,
                source=source,
                parents=(parent.candidate.id,),
                proposer=self.name,
                title=f"{_bare(parent.candidate.title)} [{', '.join(f'{name}={value}' for name, value in setting.items())}]",
                notes="Declared constants, tuned without asking the model.",
                knobs=setting,
            )
            if candidate.id not in request.state.entries:
                return Proposal(candidate)
        return Proposal(None, f"All values of the constants that {parent.candidate.id} declares were tried.", exhausted=True)


def _settings(request: ProposalRequest, found: Tunable) -> Iterator[Setting]:
    """Settings drawn from what did well in the family, then all the others."""
    from kernelevolve_lab.proposers.schedule.study import Observation, Study

    seen = [
        Observation("candidate", other.setting, entry.fitness if entry.evaluation else None, bool(entry.evaluation) and not entry.correct)
        for entry, other in _family(request.state, found)
    ]
    random = Random(request.seed)
    study = Study({"candidate": None}, {"candidate": found.space}, seen)
    for _ in range(DRAWS):
        yield study.draw(random.getrandbits(32), "candidate")[1]
    yield from found.space.settings()


def _family(state: RunState, found: Tunable) -> Iterator[tuple[Entry, Tunable]]:
    for entry in state.entries.values():
        other = tunable(entry.candidate.source)
        if other is not None and other.family == found.family:
            yield entry, other


def _bare(title: str) -> str:
    return re.sub(r"\s*\[[^\]]*\]\Z", "", title) or "untitled"
