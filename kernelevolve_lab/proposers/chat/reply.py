"""Reads a candidate out of a model's reply.

A usable reply holds either a whole source in a fenced block, or edits against the parent (search/replace blocks or a unified diff).
Anything else is a `ReplyProblem` whose message is written for the model: it goes back in a repair turn, and into the log of the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from kernelevolve_lab.proposers.chat import edits

MAX_SOURCE_BYTES = 256 * 1024

ProblemKind = Literal["empty", "refusal", "truncated", "no_code", "wrong_language", "bad_edit", "unusable", "duplicate"]

_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
_FENCE = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*(?P<tag>[\w+#.-]*)[^\n]*$", re.MULTILINE)
_TITLE = re.compile(r"^[#*\s]*TITLE\s*:[*\s]*(?P<title>[^\n]+)$", re.MULTILINE | re.IGNORECASE)
_REFUSAL = re.compile(
    r"^\W*(?:i['’]?m sorry|sorry,|i (?:can['’]?t|cannot|can not|won['’]?t|am unable|am not able)|as an ai\b)", re.IGNORECASE
)
_NATIVE_ENTRY = re.compile(r"\bvoid\s+kernel\s*\(")
_EXTERN_C = re.compile(r'extern\s+"C"')
_PYTHON_ENTRY = re.compile(r"^(?:def\s+kernel\s*\(|class\s+ModelNew\b|kernel\s*=)", re.MULTILINE)
_PYTHON_TAGS = {"python", "py", "python3", "triton"}
_NATIVE_TAGS = {"cpp", "c++", "cc", "cxx", "c", "cuda", "cu", "hip"}


class ReplyProblem(Exception):
    """There is no candidate in the reply; the message says why and what is expected."""

    def __init__(self, kind: ProblemKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Parsed:
    """A candidate's source as read from a reply; `title` is one line, `notes` the words around the code."""

    source: str
    how: Literal["file", "edits", "diff"]
    title: str = ""
    notes: str = ""


@dataclass(frozen=True)
class _Block:
    tag: str
    text: str
    closed: bool


def parse(
    text: str,
    *,
    binding: Literal["native", "python"],
    parent: str | None = None,
    finish_reason: str = "stop",
    refusal: str = "",
) -> Parsed:
    """Read a reply. `parent` is the source that edits apply to, None where there is nothing to edit."""
    if refusal or finish_reason == "content_filter":
        raise ReplyProblem("refusal", f"the model refused: {refusal or 'its content filter stopped the reply'}"[:500])
    body = _THINKING.sub("", text).strip()
    truncated = finish_reason in ("length", "max_tokens")
    if not body:
        if truncated:
            raise ReplyProblem("truncated", "the reply reached its length limit before any answer; think less and answer sooner")
        raise ReplyProblem("empty", "the reply was empty")
    title, notes, blocks = _title(body), _notes(body), _blocks(body)
    if truncated and _whole([block for block in blocks if block.closed], binding) is None:
        raise ReplyProblem(
            "truncated", "the reply was cut off at its length limit; write less around the code, or send edits instead of the file"
        )
    found = edits.search_replace_blocks(body)
    if found or "<<<<<<< SEARCH" in body:
        return Parsed(_edited(found, parent, "search/replace edits"), "edits", title, notes)
    diffs = [block for block in blocks if block.tag in ("diff", "patch") or re.search(r"^@@ .*@@", block.text, re.MULTILINE)]
    whole = _whole(blocks, binding)
    if whole is None and diffs:
        hunks = [hunk for block in diffs for hunk in edits.diff_hunks(block.text)]
        return Parsed(_edited(hunks, parent, "a diff"), "diff", title, notes)
    if whole is None and not blocks and _is_entry(body, binding) and _looks_like_code(body):
        whole = body + "\n"
    if whole is None:
        raise _why_no_source(body, blocks, binding)
    if blocks and not blocks[-1].closed and whole == blocks[-1].text and not _balanced(whole):
        raise ReplyProblem("truncated", "the code block is not closed and the code in it is incomplete; send the whole file again")
    return Parsed(_sane(whole), "file", title, notes)


def _edited(found: list[edits.Edit], parent: str | None, what: str) -> str:
    if parent is None:
        raise ReplyProblem("bad_edit", f"the reply holds {what}, but there is no parent to edit; send a whole file in one fenced block")
    if not found:
        raise ReplyProblem("bad_edit", f"the reply begins {what} but none is complete; each needs SEARCH, =======, and REPLACE lines")
    try:
        return _sane(edits.apply(parent, found))
    except edits.EditError as error:
        raise ReplyProblem("bad_edit", f"{error}; quote the parent's lines exactly, or send the whole file") from None


def _whole(blocks: list[_Block], binding: str) -> str | None:
    """The last block that defines the entry point: models that show several versions end with the one they mean."""
    wrong = _NATIVE_TAGS if binding == "python" else _PYTHON_TAGS
    complete = [block for block in blocks if block.tag not in wrong and _is_entry(block.text, binding)]
    return complete[-1].text if complete else None


def _is_entry(text: str, binding: str) -> bool:
    if binding == "native":
        return bool(_NATIVE_ENTRY.search(text)) and bool(_EXTERN_C.search(text))
    return bool(_PYTHON_ENTRY.search(text))


def _why_no_source(body: str, blocks: list[_Block], binding: str) -> ReplyProblem:
    entry = 'extern "C" void kernel(…)' if binding == "native" else "def kernel(…)"
    other = "python" if binding == "native" else "native"
    if any(_is_entry(block.text, other) for block in blocks) or (not blocks and _is_entry(body, other) and _looks_like_code(body)):
        wanted = "C++" if binding == "native" else "Python"
        return ReplyProblem("wrong_language", f"the code is not in the language asked for; write {wanted} that defines `{entry}`")
    if not blocks and _REFUSAL.match(body):
        return ReplyProblem("refusal", f"the model refused: {body[:300]}")
    if not blocks:
        return ReplyProblem("no_code", "the reply holds no fenced code block; send the whole source in one")
    return ReplyProblem("no_code", f"no code block defines `{entry}`; send the whole source in one fenced block")


def _blocks(text: str) -> list[_Block]:
    """Fenced blocks, by CommonMark's rule: a fence closes with at least as many of the same marks and nothing after them."""
    blocks = []
    position = 0
    while opening := _FENCE.search(text, position):
        fence = opening["fence"]
        closing = re.compile(rf"^[ \t]*{fence[0]}{{{len(fence)},}}[ \t]*$", re.MULTILINE).search(text, opening.end())
        end = closing.start() if closing else len(text)
        blocks.append(_Block(opening["tag"].lower(), text[opening.end() + 1 : end], closing is not None))
        position = closing.end() if closing else len(text)
    return blocks


def _notes(text: str) -> str:
    """The words outside code, for people and for later prompts; at most 2000 characters."""
    kept = edits.BLOCK.sub("", text)
    for block in _blocks(kept):
        kept = kept.replace(block.text, "")
    kept = re.sub(r"^[ \t]*(?:`{3,}|~{3,}).*$", "", kept, flags=re.MULTILINE)
    kept = _TITLE.sub("", kept)
    return re.sub(r"\n{3,}", "\n\n", kept).strip()[:2000]


def _title(text: str) -> str:
    match = _TITLE.search(text)
    return " ".join(match["title"].replace("*", "").split())[:120] if match else ""


def _looks_like_code(text: str) -> bool:
    return text.lstrip().startswith(("#include", "#pragma", "//", "/*", "import ", "from ", '"""', "extern"))


def _balanced(code: str) -> bool:
    return all(code.count(opening) <= code.count(closing) for opening, closing in ("{}", "()"))


def _sane(source: str) -> str:
    """The source, ended by one newline; raises where no compiler should see it."""
    source = source.replace("\r\n", "\n").strip("\n") + "\n"
    if "\0" in source:
        raise ReplyProblem("unusable", "the source holds NUL characters")
    try:
        size = len(source.encode("utf-8"))
    except UnicodeEncodeError:
        raise ReplyProblem("unusable", "the source is not valid Unicode") from None
    if size > MAX_SOURCE_BYTES:
        raise ReplyProblem("unusable", f"the source has {size} bytes; at most {MAX_SOURCE_BYTES} are accepted")
    return source
