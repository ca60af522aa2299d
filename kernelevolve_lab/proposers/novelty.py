"""Whether a source says what another one says already, so that the same code is not judged twice.

Two sources are twins when they are the same but for blanks, comments and the names that they give to things. Only names that a source
itself introduces may differ; `_mm512_min_ps` and `_mm512_max_ps` are not the same. Comments that declare constants to be tuned, pragmas and
the numbers in the code count.
"""

from __future__ import annotations

import ast
import hashlib
import io
import keyword
import re
import tokenize
from collections.abc import Iterable, Iterator
from functools import lru_cache

from kernelevolve_lab.records.run_state import Entry

_TUNE = re.compile(r"tune:\s*[A-Za-z_]\w*\s+in\s+\{[^}\n]*\}")
_COMMENT = re.compile(r'//[^\n]*|/\*.*?\*/|(?P<text>R"\(.*?\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\')', re.DOTALL)
_TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|[A-Za-z_]\w*|\d(?:[\w.]|(?<=[eEpP])[+-])*|\S')
_NAME = re.compile(r"[A-Za-z_]\w*")

_NO_TYPES = frozenset(
    {"return", "else", "case", "goto", "new", "delete", "throw", "sizeof", "alignof", "typename", "operator", "co_return", "co_yield"}
    | {"using", "namespace", "and", "or", "not", "if", "while", "do"}
)
"""C++ words after which a name is used, not introduced."""
_FOLLOWERS = frozenset(["=", ";", ",", ")", "[", "(", "{", ":"])


@lru_cache(maxsize=4096)
def fingerprint(language: str, source: str) -> str:
    """The same for twins. `language` is the registered name: sources of different languages are never twins."""
    try:
        words = _python_words(source)
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError):
        words = _native_words(source)
    return hashlib.sha256("\0".join((language, *words)).encode("utf-8", "replace")).hexdigest()


def twin(language: str, source: str, entries: Iterable[Entry]) -> Entry | None:
    """The first candidate that says the same as this source, or None."""
    wanted = fingerprint(language, source)
    for entry in entries:
        if entry.candidate.language == language and fingerprint(language, entry.candidate.source) == wanted:
            return entry
    return None


def _python_words(source: str) -> list[str]:
    """Raises `SyntaxError` for what is not Python."""
    own = set(_introduced(ast.parse(source)))
    names: dict[str, str] = {}
    words = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            words += _TUNE.findall(token.string)
        elif token.type == tokenize.INDENT:
            words.append("<indent>")
        elif token.type == tokenize.DEDENT:
            words.append("<dedent>")
        elif token.type not in (tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER):
            words.append(_renamed(token.string.strip(), own, names))
    return words


def _introduced(tree: ast.AST) -> Iterator[str]:
    """Names that a module gives to variables, parameters and functions, but for those by which it is called."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) if name != "kernel" and not keyword.iskeyword(name):
                yield name


def _native_words(source: str) -> list[str]:
    tuned = _TUNE.findall(source)
    code = _COMMENT.sub(lambda match: match["text"] or " ", source)
    tokens = _TOKEN.findall(code)
    own = set(_declared(tokens))
    names: dict[str, str] = {}
    return [*(_renamed(token, own, names) for token in tokens), *tuned]


def _declared(tokens: list[str]) -> Iterator[str]:
    """Names that stand where C++ introduces one: after a type and before what follows a declarator. Names in capitals and those that begin
    with an underscore are left alone, since they mostly come from headers."""
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if after not in _FOLLOWERS or not _NAME.fullmatch(token) or token == "kernel" or token.startswith("_") or token.isupper():
            continue
        if before in ("*", "&", ">") or (_NAME.fullmatch(before) and before not in _NO_TYPES):
            yield token


def _renamed(token: str, own: set[str], names: dict[str, str]) -> str:
    """A name of one's own as the number of its first occurrence; anything else as it stands."""
    return names.setdefault(token, f"${len(names)}") if token in own else token
