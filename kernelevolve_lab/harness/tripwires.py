"""What in a candidate's source makes a person look twice, by rules in a file.

A rule is matched against the tokens of the source, so that what stands in a comment or a string trips nothing (but for rules about
strings). What is tripped is told beside the source and may flag a candidate; it is never a ground for a verdict: behaviour is.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, lru_cache
from pathlib import Path

from kernelevolve_lab.languages.base import Language
from kernelevolve_lab.records import Diagnostic

EMBEDDED = re.compile(r"#\s*include\b|__global__\b|\bextern\s+\"C\"")
"""How C++ or CUDA in a string of a Python module is known."""


class Tier(IntEnum):
    """How much a rule weighs; the greater, the more severe."""

    NOTICE = 1
    SUSPICIOUS = 2


@dataclass(frozen=True)
class Rule:
    """One rule of the file; see its head."""

    name: str
    tier: Tier
    languages: tuple[str, ...]
    message: str
    trips: str
    passes: str
    code: re.Pattern[str] | None = None
    text: re.Pattern[str] | None = None

    def covers(self, name: str, binding: str) -> bool:
        """Whether the rule is about this language."""
        return name in self.languages or f"*{binding}" in self.languages


@dataclass(frozen=True)
class Tripped:
    """A rule that a source tripped, and where first (`line` counts from 1)."""

    rule: Rule
    line: int
    source_line: str

    def __str__(self) -> str:
        return f"it {self.rule.message} (line {self.line})"

    def diagnostic(self) -> Diagnostic:
        """It, to be shown beside the source."""
        severity = "warning" if self.rule.tier is Tier.SUSPICIOUS else "note"
        return Diagnostic(severity=severity, message=f"it {self.rule.message}", line=self.line, source_line=self.source_line)


@cache
def rules() -> tuple[Rule, ...]:
    """The rules of `tripwires.toml`, in order."""
    table = tomllib.loads(Path(__file__).with_name("tripwires.toml").read_text())

    def pattern(rule: dict, key: str) -> re.Pattern[str] | None:
        return re.compile(rule[key], re.MULTILINE) if key in rule else None

    return tuple(
        Rule(
            name=r["name"],
            tier=Tier[r["tier"].upper()],
            languages=tuple(r["languages"]),
            message=r["message"],
            trips=r["trips"],
            passes=r["passes"],
            code=pattern(r, "code"),
            text=pattern(r, "text"),
        )
        for r in table["rule"]
    )


def tripped(source: str, language: Language) -> tuple[Tripped, ...]:
    """The rules of the most severe tier that the source trips, each once, in the order of the file; empty where it trips none."""
    found = [hit for rule in rules() if (hit := first_hit(rule, source, language.name, language.binding, language.lexer)) is not None]
    worst = max((hit.rule.tier for hit in found), default=None)
    return tuple(hit for hit in found if hit.rule.tier is worst)


def suspicion(hits: Sequence[Tripped]) -> str:
    """Why a candidate that tripped these is flagged as suspicious; empty where nothing that severe was tripped."""
    told = "; ".join(str(hit) for hit in hits if hit.rule.tier is Tier.SUSPICIOUS)
    return f"a rule about its source asks a person to look: {told}" if told else ""


def first_hit(rule: Rule, source: str, name: str, binding: str, lexer: str) -> Tripped | None:
    """Where a source of the language trips the rule first, or None. In a Python module, C++ and CUDA in strings are looked at, too."""
    views = [(_view(source, lexer), 0)] if rule.covers(name, binding) else []
    if binding == "python" and rule.covers("cuda", "native"):
        views += [(_view(text, "cuda"), before) for text, before in _embedded(source, lexer)]
    lines = source.split("\n")
    for view, before in views:
        for line in view.hits(rule):
            return Tripped(rule, before + line, lines[before + line - 1].strip() if before + line <= len(lines) else "")
    return None


@dataclass(frozen=True)
class _View:
    """A source with comments blanked and strings emptied, line breaks kept, and its strings with the lines they begin in."""

    code: str
    strings: tuple[tuple[str, int], ...]

    def hits(self, rule: Rule) -> Iterator[int]:
        """The lines that a rule matches."""
        if rule.code is not None:
            yield from (self.code.count("\n", 0, match.start()) + 1 for match in rule.code.finditer(self.code))
        if rule.text is not None:
            yield from (line for text, line in self.strings if rule.text.search(text))


@lru_cache(maxsize=8)
def _view(source: str, lexer: str) -> _View:
    from pygments.lexers import get_lexer_by_name
    from pygments.token import Comment, String, Whitespace

    code: list[str] = []
    strings: list[tuple[str, int]] = []
    line, open_string, touching = 1, False, False
    for kind, text in get_lexer_by_name(lexer, stripnl=False, ensurenl=False).get_tokens(source):
        lines = text.count("\n")
        if kind in Comment and kind not in Comment.Preproc and kind not in Comment.PreprocFile:
            code.append(" " + "\n" * lines)
        elif kind in String.Doc:
            code.append('""' + "\n" * lines)
        elif kind in String and kind not in String.Interpol:
            if not open_string:
                code.append('""')
                if not touching:  # literals with nothing but space between them are one
                    strings.append(("", line))
            code.append("\n" * lines)
            if kind not in String.Affix and kind not in String.Delimiter and text.strip("\"'"):
                strings[-1] = (strings[-1][0] + text, strings[-1][1])
            open_string, touching, line = True, True, line + lines
            continue
        else:
            code.append(text)
            touching = touching and (kind in Whitespace or text.isspace())
        open_string, line = False, line + lines
    return _View("".join(code), tuple(strings))


def _embedded(source: str, lexer: str) -> Sequence[tuple[str, int]]:
    return [(text, line - 1) for text, line in _view(source, lexer).strings if EMBEDDED.search(text)]
