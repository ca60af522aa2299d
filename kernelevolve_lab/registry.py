"""Named things that packages register: operators, targets, languages, proposers, policies, exporters.

A thing is registered by an entry point `kernelevolve_lab.<kind>` in any installed package, so adding one is adding one file and one line;
nothing in this package knows the names. Values are loaded only when asked for, so that listing names imports nothing.
"""

import difflib
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from kernelevolve_lab.errors import BadInput, UnknownName

KINDS = ("operators", "targets", "languages", "proposers", "policies", "exporters")


@cache
def _entries(kind: str) -> dict[str, EntryPoint]:
    if kind not in KINDS:
        raise ValueError(f"no such kind of thing: {kind}")
    return {entry.name: entry for entry in sorted(entry_points(group=f"kernelevolve_lab.{kind}"), key=lambda entry: entry.name)}


_added: dict[str, dict[str, Callable[[], Any]]] = {kind: {} for kind in KINDS}


def register(kind: str, name: str, load: Callable[[], Any]) -> None:
    """Register a thing for this process alone (notebooks, tests); `load` is called each time the name is looked up."""
    _added[kind][name] = load


def names(kind: str) -> tuple[str, ...]:
    """All registered names of a kind, sorted."""
    return tuple(sorted({*_entries(kind), *_added[kind]}))


def load(kind: str, name: str) -> Any:
    """Return the registered thing; raise `UnknownName` with near names when there is none."""
    if name in _added[kind]:
        return _added[kind][name]()
    entry = _entries(kind).get(name)
    if entry is None:
        raise UnknownName(unknown(kind, name))
    try:
        return entry.load()
    except ImportError as error:
        raise BadInput(f"'{name}' of the registered {kind} cannot be loaded: {error}. Install what it needs, or choose another.") from error


def unknown(kind: str, name: str) -> str:
    """The sentence for a name that is not registered, with the nearest names first."""
    known = names(kind)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    singular = {"policies": "policy"}.get(kind, kind[:-1])
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(known)}."
    return f"There is no {singular} named '{name}'; {hint}"
