"""A page of the knowledge base: markdown with a head that says what it is about.

The head is the flat subset of YAML that needs no YAML library: lines `key: text` and `key: [a, b]` between two lines `---`. Keys: `title`
and `summary` (one line each, required); the tags `platform`, `language`, `bottleneck`, `phase`, `family` and `dtype`, each a list
(default: any); `sources`, a list of URLs or titles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kernelevolve_lab.errors import BadInput

ANY = frozenset({"any"})
TAGS = {
    "platform": frozenset({"cpu", "nvidia", "amd", "mtia"}),
    "language": frozenset({"cpp", "triton", "cute", "cuda", "hip", "flydsl", "mtia_cpp"}),
    "bottleneck": frozenset({"memory", "compute", "latency", "occupancy", "launch", "build", "numerics", "crash", "timeout", "cheating"}),
    "phase": frozenset({"draft", "repair", "improve", "stalled"}),
    "family": frozenset({"row", "elementwise", "gemm", "chain", "search", "jagged"}),
    "dtype": frozenset({"float64", "float32", "bfloat16", "float16", "float8", "int8"}),
}
"""The values that each tag may take, beside `any`."""

_HEAD = re.compile(r"\A---[ \t]*\n(?P<head>.*?)\n---[ \t]*\n(?P<body>.*)\Z", re.DOTALL)
_TESTED = re.compile(r"^(```(?:cpp|python)) (?:kernel|triton) \w+[ \t]*$", re.MULTILINE)
_SOURCES = re.compile(r"\n(?:#+[ \t]*)?\**Sources:?\**:?[ \t]*\n(?:[ \t]*[-*][^\n]*\n?|\s+)*\Z")
_LINE = re.compile(r"(?P<key>[a-z]+):[ \t]*(?P<value>.*?)[ \t]*\Z")


@dataclass(frozen=True)
class Page:
    """`name` is the path below its root without suffix, e.g. `hardware/cpu/streaming_stores`; tags not given are `{"any"}`."""

    name: str
    title: str
    summary: str
    body: str
    platform: frozenset[str] = ANY
    language: frozenset[str] = ANY
    bottleneck: frozenset[str] = ANY
    phase: frozenset[str] = ANY
    family: frozenset[str] = ANY
    dtype: frozenset[str] = ANY
    sources: tuple[str, ...] = ()

    @property
    def teaching(self) -> str:
        """The body for a model: without the list of sources at its end, and without the marks by which examples are tested."""
        return _TESTED.sub(r"\1", _SOURCES.sub("", self.body)).rstrip()

    def serves(self, tag: str, value: str) -> bool:
        """Whether the page is for that value of a tag, in particular or in general."""
        return value in getattr(self, tag) or "any" in getattr(self, tag)


def read(path: Path, name: str) -> Page:
    """The page in a file; raises `BadInput` that names the file and what is wrong with its head."""
    try:
        text = path.read_text("utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"The knowledge page {path} cannot be read: {error}.") from None
    match = _HEAD.match(text)
    if match is None:
        raise BadInput(f"The knowledge page {path} must begin with a head between two lines '---' that gives its title and summary.")
    fields: dict[str, str] = {}
    for line in filter(str.strip, match["head"].splitlines()):
        parsed = _LINE.match(line)
        if parsed is None or parsed["key"] not in ("title", "summary", "sources", *TAGS):
            raise BadInput(
                f"The knowledge page {path} has a line in its head that is not 'key: value' with a known key: {line.strip()[:80]}"
            )
        fields[parsed["key"]] = parsed["value"]
    for key in ("title", "summary"):
        if not fields.get(key):
            raise BadInput(f"The knowledge page {path} has no '{key}' in its head.")
    tags = {}
    for key, allowed in TAGS.items():
        values = frozenset(_list(fields.get(key, ""))) or ANY
        if wrong := sorted(values - allowed - ANY):
            raise BadInput(f"The knowledge page {path} has the {key} '{wrong[0]}'; known: any, {', '.join(sorted(allowed))}.")
        tags[key] = values
    return Page(name, fields["title"], fields["summary"], match["body"].strip(), sources=tuple(_list(fields.get("sources", ""))), **tags)


def _list(text: str) -> list[str]:
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    return [item for part in inner.split(",") if (item := part.strip().strip("\"'"))]
