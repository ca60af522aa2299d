"""Applies a model's edits to its parent's source: search/replace blocks, and unified diffs read as such blocks.

Line numbers of a diff are ignored, because models count badly; each hunk must instead be found, once, by its text. A block is looked for
exactly first, then with trailing blanks and indentation ignored line by line, then as a text that ends within a line.
"""

from __future__ import annotations

import difflib
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
        # A text that breaks off within a line is followed by a line end that the parent does not have there.
        within = Edit(edit.search.rstrip("\n"), edit.replace.rstrip("\n"))
        source = _exactly(source, edit, number) or _by_lines(source, edit, number, within)
    return source


def _exactly(source: str, edit: Edit, number: int) -> str | None:
    """The source after an edit whose text occurs as it stands; None where it does not, or where it only lacks indentation."""
    found = [match.start() for match in re.finditer(re.escape(edit.search), source)]
    if len(found) > 1:
        raise EditError(f"the text that edit {number} searches for occurs {len(found)} times; quote more lines around it")
    if not found:
        return None
    start, end = found[0], found[0] + len(edit.search)
    before = source[source.rfind("\n", 0, start) + 1 : start]
    if before and not before.strip():
        return None
    replacement = edit.replace
    if replacement and edit.search.endswith("\n") and not replacement.endswith("\n"):
        replacement += "\n"
    return source[:start] + replacement + source[end:]


def _by_lines(source: str, edit: Edit, number: int, within: Edit) -> str:
    """The source after an edit whose lines occur but for blanks at their ends; the replacement is indented as the source is. Else after the
    edit that ends within a line."""
    lines = source.splitlines(keepends=True)
    searched = edit.search.strip("\n").splitlines()
    wanted = [line.strip() for line in searched]
    stripped = [line.strip() for line in lines]
    found = [i for i in range(len(lines) - len(wanted) + 1) if stripped[i : i + len(wanted)] == wanted]
    if not found and (changed := _exactly(source, within, number)):
        return changed
    if len(found) != 1:
        first = next(line for line in wanted if line)
        how_often = f"does not occur in the parent{_nearest(wanted, stripped)}" if not found else f"occurs {len(found)} times"
        raise EditError(f"the text that edit {number} searches for (it begins `{first[:80]}`) {how_often}")
    start, end = found[0], found[0] + len(wanted)
    missing = _indent(lines[start]).removesuffix(_indent(searched[0]))
    replacement = [f"{missing}{line}\n" if line.strip() else "\n" for line in edit.replace.splitlines()]
    return "".join((*lines[:start], *replacement, *lines[end:]))


def _nearest(wanted: list[str], lines: list[str]) -> str:
    """The first wanted line that is not in the source, with the line there that is most like it, as the end of a sentence."""
    missing = next((line for line in wanted if line and line not in lines), "")
    like = difflib.get_close_matches(missing, [line for line in lines if line], n=1, cutoff=0.5) if missing else []
    return f"; it has no line `{missing[:120]}`, the nearest is `{like[0][:120]}`" if like else ""


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
