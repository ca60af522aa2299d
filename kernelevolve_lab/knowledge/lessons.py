"""Lessons: what runs found out, kept as files that people can read, edit and delete, and retrieved by later runs.

A lesson is one markdown file in `<data folder>/lessons`: a head of `key: value` lines and a text; a winner's text ends with its source in a
fenced block. What a file says is what later runs are told, so an edit is enough to correct a lesson. Texts may come from a language model:
they are data, never instructions.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from kernelevolve_lab import paths
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.records import TargetSpec

Kind = Literal["helped", "hurt", "pitfall", "winner"]
KINDS: tuple[Kind, ...] = ("helped", "hurt", "pitfall", "winner")
MOST_EVIDENCE = 6

_FILE = re.compile(r"\A---[ \t]*\n(?P<head>.*?)\n---[ \t]*\n(?P<body>.*)\Z", re.DOTALL)
_GAIN = re.compile(r"(?P<value>[\d.e+-]+)\s*\[\s*(?P<low>[\d.e+-]+)\s*,\s*(?P<high>[\d.e+-]+)\s*\]\Z")
_SOURCE = re.compile(r"^(?P<fence>`{3,})[\w+-]*\n(?P<source>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class Gain:
    """A measured ratio with its interval: above 1 is faster. Against the parent, for a winner against the main baseline."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Lesson:
    """One lesson. `helped` and `hurt` are changes with their measured gain, `pitfall` a way to fail that came up more than once, `winner`
    the best kernel of a run with its `source`. `seen` counts how often it was found; `evidence` names runs and candidates."""

    kind: Kind
    operator: str
    family: str
    target: str
    language: str
    text: str
    gain: Gain | None = None
    seen: int = 1
    evidence: tuple[str, ...] = ()
    source: str = field(default="", repr=False)

    @property
    def id(self) -> str:
        """The first 10 hexadecimal digits of the SHA-256 of what the lesson says and where it holds; the file's name."""
        said = "\0".join((self.kind, self.operator, self.target, self.language, " ".join(_words(self.text))))
        return hashlib.sha256(said.encode()).hexdigest()[:10]

    def as_markdown(self) -> str:
        """The file's content."""
        head = {
            "kind": self.kind,
            "operator": self.operator,
            "family": self.family,
            "target": self.target,
            "language": self.language,
            "gain": str(self.gain) if self.gain else "",
            "seen": str(self.seen),
            "evidence": "; ".join(self.evidence),
        }
        lines = [f"{key}: {' '.join(value.split())}" for key, value in head.items() if value]
        body = self.text.strip()
        if self.source:
            longest = max((len(run) for run in re.findall(r"`+", self.source)), default=0)
            fence = "`" * max(3, longest + 1)
            body += f"\n\n{fence}\n{self.source.rstrip(chr(10))}\n{fence}"
        return "\n".join(("---", *lines, "---", body, ""))


class LessonBook:
    """The lessons in a folder (default: `<data folder>/lessons`), which is made when the first one is written."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or paths.data_dir() / "lessons"

    def all(self) -> dict[str, Lesson]:
        """All lessons by file name without suffix, sorted; raises `BadInput` for a file that cannot be read as one."""
        if not self.folder.is_dir():
            return {}
        return {path.stem: _read(path) for path in sorted(self.folder.glob("*.md"))}

    def add(self, lessons: Iterable[Lesson]) -> dict[str, Lesson]:
        """Write lessons; one that says what another already says is merged into it. Returns what was written, by file name."""
        known = self.all()
        written: dict[str, Lesson] = {}
        for lesson in lessons:
            name = next((name for name, other in known.items() if _same(lesson, other)), lesson.id)
            merged = _merged(known[name], lesson) if name in known else lesson
            if name in known and merged == known[name]:
                continue
            self._write(name, merged)
            known[name] = written[name] = merged
        return written

    def remove(self, name: str) -> None:
        """Delete a lesson; raises `BadInput` when there is none of that name."""
        path = self.folder / f"{name}.md"
        if not re.fullmatch(r"[\w-]+", name) or not path.is_file():
            raise BadInput(f"There is no lesson '{name}' in {self.folder}; known: {', '.join(self.all()) or 'none'}.")
        path.unlink()

    def search(self, operator: Operator, target: TargetSpec, language: str, limit: int = 8) -> tuple[Lesson, ...]:
        """What may help with that operator there; see `most_useful`."""
        return most_useful(self.all(), operator, target, language, limit)

    def _write(self, name: str, lesson: Lesson) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=self.folder, prefix=f".{name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(lesson.as_markdown())
        os.replace(scratch, self.folder / f"{name}.md")


def most_useful(lessons: Mapping[str, Lesson], operator: Operator, target: TargetSpec, language: str, limit: int) -> tuple[Lesson, ...]:
    """Lessons of the same operator before those of its family, the same target before the same vendor, winners first, then larger effects.
    Other families, languages and vendors are left out."""
    fitting = []
    for name, lesson in lessons.items():
        same_operator, same_family = lesson.operator == operator.name, lesson.family == operator.family
        if lesson.language != language or lesson.target.split(":")[0] != target.vendor or not (same_operator or same_family):
            continue
        effect = max(lesson.gain.value, 1 / lesson.gain.value) if lesson.gain else 1.0
        rank = (not same_operator, lesson.target != target.name, lesson.kind != "winner", -effect * lesson.seen**0.5, name)
        fitting.append((rank, lesson))
    return tuple(lesson for _, lesson in sorted(fitting, key=lambda pair: pair[0])[:limit])


def _read(path: Path) -> Lesson:
    try:
        text = path.read_text("utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"The lesson {path} cannot be read: {error}. Mend it or delete it.") from None
    match = _FILE.match(text)
    head = dict(_pair(line) for line in match["head"].splitlines() if ":" in line) if match else {}
    missing = [key for key in ("kind", "operator", "family", "target", "language") if not head.get(key)]
    if match is None or missing or head["kind"] not in KINDS:
        what = f"no '{missing[0]}' in its head" if match and missing else "no head that says what it is"
        raise BadInput(f"The lesson {path} has {what}; mend it or delete it.")
    gain = _GAIN.match(head.get("gain", ""))
    source = _SOURCE.search(match["body"]) if head["kind"] == "winner" else None
    body = match["body"][: source.start()] if source else match["body"]
    seen = head.get("seen", "1")
    return Lesson(
        kind=head["kind"],
        operator=head["operator"],
        family=head["family"],
        target=head["target"],
        language=head["language"],
        text=body.strip(),
        gain=Gain(float(gain["value"]), float(gain["low"]), float(gain["high"])) if gain else None,
        seen=int(seen) if seen.isdigit() else 1,
        evidence=tuple(filter(None, (part.strip() for part in head.get("evidence", "").split(";")))),
        source=source["source"] if source else "",
    )


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _same(one: Lesson, other: Lesson) -> bool:
    """Whether two lessons say the same: same scope, same numbers, and at least 80 % of their words in common. A winner replaces the one
    before it."""
    scope = ("kind", "operator", "target", "language")
    if any(getattr(one, name) != getattr(other, name) for name in scope):
        return False
    if one.kind == "winner":
        return True
    first, second = set(_words(one.text)), set(_words(other.text))
    if any(character.isdigit() for word in first ^ second for character in word):
        return False
    return bool(first | second) and len(first & second) / len(first | second) >= 0.8


def _merged(old: Lesson, new: Lesson) -> Lesson:
    """Old evidence with the new added; of two winners the faster. The text stays as it is, because a person may have edited it."""
    if set(new.evidence) <= set(old.evidence):
        return old
    evidence = tuple(dict.fromkeys((*old.evidence, *new.evidence)))[-MOST_EVIDENCE:]
    if old.kind == "winner":
        faster = new if new.gain and (old.gain is None or new.gain.value > old.gain.value) else old
        return replace(faster, seen=old.seen + 1, evidence=evidence)
    gain = old.gain or new.gain
    if old.gain and new.gain:
        value = (old.gain.value**old.seen * new.gain.value) ** (1 / (old.seen + 1))
        gain = Gain(value, min(old.gain.low, new.gain.low), max(old.gain.high, new.gain.high))
    return replace(old, gain=gain, seen=old.seen + 1, evidence=evidence)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
