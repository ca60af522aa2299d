"""Source text as escaped HTML: highlighted, numbered, with diagnostics under the lines they point at; and side-by-side differences.

Candidates are untrusted: every character of them passes through Pygments' or `html`'s escaping before it reaches a page.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import lru_cache
from html import escape

from pygments import lex
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

from kernelevolve_lab.records import Diagnostic

MAX_LINES = 3000
# The kinds of token that `styles/fragments.css` gives a colour; all others stay plain text, which makes a listing half the size.
STYLED = frozenset((
    "k", "kc", "kd", "kn", "kp", "kr", "kt", "ow", "s", "s1", "s2", "sb", "sc", "sd", "se", "si", "sr", "ss", "cpf", "c", "c1", "ch", "cm",
    "cs", "m", "mb", "mf", "mh", "mi", "mo", "il", "nf", "nc", "nd", "fm", "cp",
))  # fmt: skip
_LEXERS = {"cpp": "cpp", "mtia_cpp": "cpp", "cuda": "cuda", "hip": "cuda", "triton": "python", "cute": "python", "flydsl": "python"}


@lru_cache
def _lexer(language: str) -> Lexer:
    try:
        return get_lexer_by_name(_LEXERS.get(language, language), stripnl=False, ensurenl=False)
    except ClassNotFound:
        return get_lexer_by_name("text", stripnl=False, ensurenl=False)


def split_lines(source: str) -> list[str]:
    """The lines of a source as Pygments sees them: only carriage returns and newlines end one."""
    return source.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def highlight_lines(source: str, language: str) -> list[str]:
    """Each line of `split_lines` as HTML with Pygments' short class names; balanced within a line, so that lines can be cut apart."""
    lines: list[list[str]] = [[]]
    for kind, text in lex("\n".join(split_lines(source)), _lexer(language)):
        while kind not in STANDARD_TYPES:
            kind = kind.parent
        name = STANDARD_TYPES[kind] if STANDARD_TYPES[kind] in STYLED else ""
        for number, piece in enumerate(text.split("\n")):
            if number:
                lines.append([])
            if piece:
                lines[-1].append(f'<span class="{name}">{escape(piece)}</span>' if name else escape(piece))
    return ["".join(line) for line in lines]


def source_html(source: str, language: str, diagnostics: Sequence[Diagnostic] = ()) -> str:
    """A numbered listing; each diagnostic stands under its line, those without a line above the listing."""
    by_line: dict[int, list[Diagnostic]] = {}
    for item in diagnostics:
        by_line.setdefault(item.line, []).append(item)
    lines = highlight_lines(source, language)
    rows = [_diagnostic_row(item) for item in by_line.pop(0, [])]
    for number, line in enumerate(lines[:MAX_LINES], 1):
        here = by_line.pop(number, [])
        mark = f' class="kl-line-{_severity(here)}"' if here else ""
        rows.append(f'<tr{mark}><td class="kl-n">{number}</td><td class="kl-c">{line or " "}</td></tr>')
        rows.extend(_diagnostic_row(item) for item in here)
    rows.extend(_diagnostic_row(item) for left in by_line.values() for item in left)
    if len(lines) > MAX_LINES:
        rows.append(f'<tr><td class="kl-n">…</td><td class="kl-c">{len(lines) - MAX_LINES} more lines are not shown</td></tr>')
    return f'<table class="kl-code" role="presentation"><tbody>{"".join(rows)}</tbody></table>'


def _severity(items: Sequence[Diagnostic]) -> str:
    return "error" if any("error" in item.severity for item in items) else "warning"


def _diagnostic_row(item: Diagnostic) -> str:
    where = f"line {item.line}" + (f", column {item.column}" if item.column else "") if item.line else item.file
    return (
        f'<tr class="kl-diagnostic kl-{_severity([item])}"><td class="kl-n"></td>'
        f'<td class="kl-c"><b>{escape(item.severity)}</b> {escape(item.message)} <span class="kl-where">{escape(where)}</span></td></tr>'
    )


def diff_html(before: str, after: str, language: str, titles: tuple[str, str], context: int = 3) -> str:
    """Two sources side by side; runs of equal lines longer than twice the context fold into a `<details>` that opens without scripts."""
    left, right = split_lines(before), split_lines(after)
    left_html, right_html = highlight_lines(before, language), highlight_lines(after, language)
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    bodies: list[str] = []
    added = removed = 0
    opcodes = matcher.get_opcodes()
    for position, (tag, a0, a1, b0, b1) in enumerate(opcodes):
        if tag == "equal":
            head = 0 if position == 0 else context
            tail = 0 if position == len(opcodes) - 1 else context
            rows = [_pair(a0 + k, b0 + k, left_html, right_html, "") for k in range(a1 - a0)]
            hidden = len(rows) - head - tail
            if hidden > 1:
                middle = rows[head : len(rows) - tail]
                bodies.append(_table(rows[:head]))
                bodies.append(f"<details class='kl-fold'><summary>{hidden} equal lines</summary>{_table(middle)}</details>")
                bodies.append(_table(rows[len(rows) - tail :]))
            else:
                bodies.append(_table(rows))
            continue
        removed, added = removed + a1 - a0, added + b1 - b0
        rows = []
        for k in range(max(a1 - a0, b1 - b0)):
            at, bt = (a0 + k if a0 + k < a1 else None), (b0 + k if b0 + k < b1 else None)
            rows.append(_pair(at, bt, left_html, right_html, "kl-changed"))
        bodies.append(_table(rows))
    summary = f"+{added} −{removed} lines" if added or removed else "the same source"
    head = (
        f'<div class="kl-diff-head"><span>{escape(titles[0])}</span><span>{escape(titles[1])}</span>'
        f'<span class="kl-diff-count">{summary}</span></div>'
    )
    return f'<div class="kl-diff">{head}{"".join(b for b in bodies if b)}</div>'


def _pair(a: int | None, b: int | None, left: list[str], right: list[str], mark: str) -> str:
    def side(number: int | None, lines: list[str], changed: str) -> str:
        if number is None:
            return '<td class="kl-n"></td><td class="kl-c kl-none"></td>'
        return f'<td class="kl-n">{number + 1}</td><td class="kl-c{changed}">{lines[number] or " "}</td>'

    return f"<tr>{side(a, left, ' kl-del' if mark else '')}{side(b, right, ' kl-add' if mark else '')}</tr>"


def _table(rows: list[str]) -> str:
    return f'<table class="kl-code kl-two" role="presentation"><tbody>{"".join(rows)}</tbody></table>' if rows else ""
