"""Compiler messages as diagnostics: errors first, a bounded number, and no path of this machine in them.

g++, clang and LLVM print `file:line:column: severity: message`, nvcc's front end `file(line): severity: message`, and the tools behind it
`tool severity : message`; those forms are read, for every version. What they print is made from the candidate, so it is untrusted text.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from kernelevolve_lab.languages.process import Finished
from kernelevolve_lab.records import Diagnostic

MAX_DIAGNOSTICS = 12
MAX_MESSAGE = 600
MAX_SOURCE_LINE = 200

_LOCATED = re.compile(
    r"^(?P<file>[^\s:][^:\n]*):(?P<line>\d+):(?:(?P<column>\d+):)? (?P<severity>fatal error|error|warning|note): (?P<message>.*)$"
)
_LOCATED_NVCC = re.compile(
    r"^(?P<file>[^\s(][^(\n]*)\((?P<line>\d+)\): (?:catastrophic )?(?P<severity>error|warning)(?: #[\w-]+)?: (?P<message>.*)$"
)
_CUDA_TOOL = re.compile(r"^(?:ptxas|nvlink|nvcc)\b[^:]*?\b(?P<severity>error|fatal|warning)\s*: (?P<message>.*)$")
_LINKER = re.compile(r"(?P<what>undefined (?:reference|symbol)[^\n]*|required symbol [^\n]*|multiple definition of [^\n]*)")
_UNLOCATED = re.compile(r"^(?:[\w+./-]+: )?(?P<severity>fatal error|error|internal compiler error): (?P<message>.*)$")
_PATH = re.compile(r"(?<![\w.<])/(?:[\w.+@-]+/)+([\w.+@-]*)")
_ORDER = {"error": 0, "warning": 1, "note": 2}


def parse(text: str, source: str, candidate_file: str = "candidate.cpp") -> tuple[Diagnostic, ...]:
    """The diagnostics in a compiler's and linker's messages, errors first, at most twelve, each with the source line it points at.

    A note stays behind the error or warning that it explains. Messages about other headers keep only the header's name.
    """
    lines = source.splitlines()
    groups: list[list[Diagnostic]] = []
    for found in _messages(text, lines, candidate_file):
        if found.severity == "note" and groups:
            if len(groups[-1]) < 3:
                groups[-1].append(found)
        elif all(found != group[0] for group in groups):
            groups.append([found])
    groups.sort(key=lambda group: _ORDER[group[0].severity])
    return tuple(d for group in groups for d in group)[:MAX_DIAGNOSTICS]


def _messages(text: str, lines: list[str], candidate_file: str) -> Iterator[Diagnostic]:
    for raw in text.splitlines():
        if match := _LOCATED.match(raw) or _LOCATED_NVCC.match(raw):
            file = PurePosixPath(match["file"]).name
            number, in_candidate = int(match["line"]), file == candidate_file
            yield Diagnostic(
                severity=match["severity"].removeprefix("fatal "),
                message=clean(match["message"]),
                file="candidate" if in_candidate else file[:80],
                line=number,
                column=int(match.groupdict().get("column") or 0),
                source_line=lines[number - 1][:MAX_SOURCE_LINE] if in_candidate and 0 < number <= len(lines) else "",
            )
        elif match := _CUDA_TOOL.match(raw):
            severity = match["severity"].replace("fatal", "error")
            yield Diagnostic(severity=severity, message=clean(match["message"]), file="compiler")
        elif match := _LINKER.search(raw):
            yield Diagnostic(severity="error", message=_linker_message(clean(match["what"])), file="linker")
        elif match := _UNLOCATED.match(raw):
            message = clean(match["message"])
            if not message.startswith("ld returned"):
                yield Diagnostic(severity="error", message=message, file="compiler")


def _linker_message(what: str) -> str:
    if "kernel" in what and what.startswith(("required symbol", "undefined symbol: kernel")):
        return 'the source does not define extern "C" void kernel(const kel::Tensor*, kel::Tensor*, kel::Stream)'
    return what


def of_compiler(outcome: Finished, source: str, candidate_file: str, timeout: float) -> tuple[Diagnostic, ...]:
    """The diagnostics of a compiler that ended, or was stopped after `timeout` seconds; with an error whenever it failed."""
    found = parse(outcome.errors, source, candidate_file)
    if outcome.timed_out:
        return (Diagnostic(severity="error", message=f"the compiler was stopped after {timeout:g} s", file="compiler"), *found)
    if outcome.status != 0 and not any(d.severity == "error" for d in found):
        last = clean((outcome.errors.strip().splitlines() or ["no message"])[-1])
        return (Diagnostic(severity="error", message=f"the compiler ended with status {outcome.status}: {last}", file="compiler"), *found)
    return found


def clean(message: str) -> str:
    """The message with absolute paths cut to their last part, and bounded in length."""
    message = _PATH.sub(lambda match: match[1], message).strip()
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def of_python(source: str) -> Diagnostic | None:
    """Why the text is no Python module, or None."""
    try:
        ast.parse(source)
    except SyntaxError as error:
        shown = (error.text or "").rstrip("\n")[:MAX_SOURCE_LINE]
        message = clean(f"SyntaxError: {error.msg}")
        return Diagnostic(severity="error", message=message, line=error.lineno or 0, column=error.offset or 0, source_line=shown)
    except (ValueError, RecursionError, MemoryError) as error:
        return Diagnostic(severity="error", message=clean(f"the module cannot be parsed: {error}"))
    return None
