"""Applies a model's edits to its parent's source: search/replace blocks, and unified diffs read as such blocks.

Line numbers of a diff are ignored, because models count badly; each hunk must instead be found, once, by its text. A block is looked for
exactly first, then with trailing blanks and indentation ignored line by line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BLOCK = re.compile(
    r"^<{5,9} ?SEARCH[^\n]*\n(?P<search>.*?)^={5,9}[ \t]*\n(?P<replace>.*?)^>{5,9} ?REPLACE[^\n]*$",
    re.MULTILINE | re.DOTALL,
)
_HUNK = re.compile(r"^@@[^\n]*\n(?P<body>(?:[ +\-\\][^\n]*(?:\n|\Z)|\n)*)", re.MULTILINE)


class EditError(ValueError):
    """An edit cannot be applied; the message says which and why, for the model."""


@dataclass(frozen=True)
class Edit:
    """Replace `search`, which must occur once, by `replace`."""

    search: str
    replace: str


def search_replace_blocks(text: str) -> list[Edit]:
    """The `<<<<<<< SEARCH` / `=======` / `>>>>>>> REPLACE` blocks of a text, in order."""
    return [Edit(match["search"], match["replace"]) for match in BLOCK.finditer(text)]


def diff_hunks(text: str) -> list[Edit]:
    """The hunks of a unified diff, as edits."""
    edits = []
    for match in _HUNK.finditer(text):
        before: list[str] = []
        after: list[str] = []
        for line in match["body"].splitlines():
            mark, rest = (line[0], line[1:]) if line else (" ", "")
            if mark in " -":
                before.append(rest)
            if mark in " +":
                after.append(rest)
        while before and after and not before[-1].strip() and not after[-1].strip():
            before.pop()
            after.pop()
        edits.append(Edit("".join(f"{line}\n" for line in before), "".join(f"{line}\n" for line in after)))
    return edits


def apply(source: str, edits: list[Edit]) -> str:
    """The source after all edits, in order; raises `EditError` where one is empty, missing, or found more than once."""
    for number, edit in enumerate(edits, 1):
        if not edit.search.strip():
            raise EditError(f"edit {number} searches for nothing; quote the lines to replace")
        start, end = _find(source, edit.search, number)
        replacement = edit.replace
        if replacement and not replacement.endswith("\n") and end < len(source):
            replacement += "\n"
        source = source[:start] + replacement + source[end:]
    return source


def _find(source: str, search: str, number: int) -> tuple[int, int]:
    exact = [match.start() for match in re.finditer(re.escape(search), source)]
    if len(exact) == 1:
        return exact[0], exact[0] + len(search)
    if len(exact) > 1:
        raise EditError(f"the text that edit {number} searches for occurs {len(exact)} times; quote more lines around it")
    lines = source.splitlines(keepends=True)
    wanted = [line.strip() for line in search.strip("\n").splitlines()]
    stripped = [line.strip() for line in lines]
    found = [i for i in range(len(lines) - len(wanted) + 1) if stripped[i : i + len(wanted)] == wanted]
    if len(found) != 1:
        first = next((line for line in wanted if line), "")
        how_often = "does not occur in the parent" if not found else f"occurs {len(found)} times"
        raise EditError(f"the text that edit {number} searches for (it begins `{first[:80]}`) {how_often}")
    start = sum(len(line) for line in lines[: found[0]])
    return start, start + sum(len(line) for line in lines[found[0] : found[0] + len(wanted)])
