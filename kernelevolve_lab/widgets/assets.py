"""The JavaScript and CSS of a view as strings.

The files in `static/` are ordinary ES modules that import each other, so that a browser (or a bundler) can load them as they are. A widget
needs one string: `bundle` joins the modules that an entry point reaches, dependencies first, and drops the import and export words. All
top-level names therefore share one scope and must differ; a test holds that.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from kernelevolve_lab.rendering.report import stylesheet

STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r'^import\s[^;]*?from\s+"\./([\w-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class|let)\b)", re.MULTILINE)


@cache
def bundle(entry: str) -> str:
    """One module with all that `entry` imports."""
    parts: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        text = (STATIC / name).read_text("utf-8")
        for needed in _IMPORT.findall(text):
            visit(needed)
        parts.append(_EXPORT.sub("", _IMPORT.sub("", text)))

    visit(entry)
    return "\n".join(parts)


@cache
def styles() -> str:
    """All style sheets in one string: the colours and fragments that reports use as well, and the live view's own."""
    return "\n".join((stylesheet("theme", "fragments"), (STATIC / "view.css").read_text("utf-8")))
