"""Renders the prompt templates in `prompt/`, and quotes text that others wrote so that it cannot pose as ours."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import jinja2

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kernelevolve_lab.proposers.chat", "prompt"),
        autoescape=False,  # markdown for a model, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,  # a run's prompts do not change under its feet
    )
    environment.globals["fenced"] = fenced
    environment.filters.update(bytes=size, oneline=oneline)
    return environment


def render(template: str, **values: Any) -> str:
    """The text of `prompt/<template>.md.j2`, without blank edges and with at most one blank line in a row outside fences."""
    return _squeeze(_environment().get_template(f"{template}.md.j2").render(values).strip())


def fenced(text: str, tag: str = "") -> str:
    """The text in a fenced block that nothing in it can close; control characters and those that reorder text are shown as `?`."""
    text = _CONTROL.sub("?", text.replace("\r\n", "\n"))
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{tag}\n{text.rstrip(chr(10))}\n{fence}"


def oneline(text: str, length: int = 120) -> str:
    """Text on one line, without back-ticks, cut to `length` characters."""
    text = " ".join(_CONTROL.sub("?", text.replace("`", "'")).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def duration(seconds: float) -> str:
    """Seconds with a unit that suits them, in three digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def size(count: float) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def rate(value: float, unit: str) -> str:
    """A rate with a decimal prefix, e.g. `41.3 GB/s`."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(value) < 1000:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} P{unit}"


def _squeeze(text: str) -> str:
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        mark = re.match(r"`{3,}", line)
        if mark and not fence:
            fence = mark[0]
        elif fence and line.rstrip() == fence:
            fence = ""
        if fence or line.strip() or (lines and lines[-1].strip()):
            lines.append(line if fence else line.rstrip())
    return "\n".join(lines)
