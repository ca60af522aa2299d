"""Kernel templates: finding the files, reading their front matter, rendering them. The format is told in `templates/README.md`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.languages import occupancy
from kernelevolve_lab.proposers.schedule.space import Knob, Setting, Space
from kernelevolve_lab.records import Scalar, TargetSpec

TEMPLATES = Path(__file__).parent / "templates"
_FRONT_MATTER = re.compile(r"\A\{#\n(.*?)\n#\}\n", re.DOTALL)
_KEYS = {"title", "operators", "targets", "dtypes", "idea", "constraints", "knobs", "drafts"}
_KNOB_KEYS = {"values", "range", "step", "log", "default", "structural", "when", "label", "labels", "help"}


@dataclass(frozen=True)
class Template:
    """One template file, read. `name` is `<language>/<stem>`; `dtypes` are those of the cases that it computes; `drafts` are partial
    settings worth trying early."""

    name: str
    language: str
    title: str
    operators: tuple[str, ...]
    targets: tuple[str, ...]
    dtypes: tuple[str, ...]
    idea: str
    knobs: tuple[Knob, ...]
    constraints: tuple[str, ...]
    drafts: tuple[Mapping[str, Scalar], ...]
    path: Path

    def serves(self, operator: str, target: TargetSpec, language: str, dtypes: Iterable[str] = ()) -> bool:
        """Whether this template computes that operator in that language for that target, in all of these dtypes."""
        vendors = self.targets or (target.vendor,)
        return self.language == language and operator in self.operators and target.vendor in vendors and set(dtypes) <= {*self.dtypes}

    def space(self, target: TargetSpec) -> Space:
        """The settings that this target allows."""
        return Space(self.knobs, self.constraints, {"target": target, "shared_memory": _shared_memory(target)})

    def render(self, setting: Mapping[str, Scalar], operator: str, target: TargetSpec) -> str:
        """The kernel's source under that setting, the same text every time; raise `BadInput` where the template cannot be rendered."""
        try:
            text = _environment(self.path.parent).get_template(self.path.name).render(**setting, operator=operator, target=target)
        except TemplateError as error:
            raise BadInput(f"template {self.name} cannot be rendered with {dict(setting)}: {error}") from error
        return tidy(text, blank_lines=2 if self.path.name.endswith(".py.j2") else 1)

    def describe(self, setting: Mapping[str, Scalar]) -> str:
        """A short title in words: what the template is, and the choices worth a word."""
        words = (knob.say(setting[knob.name]) for knob in self.knobs if knob.name in setting)
        return ", ".join([self.title, *filter(None, words)])

    def difference(self, before: Mapping[str, Scalar], after: Mapping[str, Scalar]) -> str:
        """What changed from one setting to the other, in one line."""
        changes = []
        for knob in self.knobs:
            old, new = before.get(knob.name), after.get(knob.name)
            if old != new:
                changes.append(f"{knob.name} {'–' if old is None else old} → {'–' if new is None else new}")
        return ", ".join(changes)


def templates(folder: Path = TEMPLATES) -> Iterator[Template]:
    """Every template below a folder, sorted by name."""
    for path in sorted(folder.glob("*/*.j2")):
        if not path.name.startswith("_"):
            yield read(path)


@cache
def read(path: Path) -> Template:
    """Read one template file; raise `BadInput` naming the file where its front matter is wrong."""
    try:
        return _parse(path, path.read_text(encoding="utf-8"))
    except (BadInput, TypeError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"template {path.parent.name}/{path.name}: {error}") from error


def _parse(path: Path, text: str) -> Template:
    match = _FRONT_MATTER.match(text)
    if match is None:
        raise BadInput("it must begin with '{#', its front matter in TOML, and '#}', each mark on a line of its own")
    data = tomllib.loads(match[1])
    if unknown := data.keys() - _KEYS:
        raise BadInput(f"unknown keys in the front matter: {', '.join(sorted(unknown))}")
    if missing := {"title", "operators", "dtypes"} - data.keys():
        raise BadInput(f"the front matter lacks {', '.join(sorted(missing))}")
    return Template(
        name=f"{path.parent.name}/{path.name.partition('.')[0]}",
        language=path.parent.name,
        title=data["title"],
        operators=tuple(data["operators"]),
        targets=tuple(data.get("targets", ())),
        dtypes=tuple(data["dtypes"]),
        idea=" ".join(data.get("idea", "").split()),
        knobs=tuple(_knob(name, knob) for name, knob in data.get("knobs", {}).items()),
        constraints=tuple(data.get("constraints", ())),
        drafts=tuple(data.get("drafts", ())),
        path=path,
    )


def _knob(name: str, data: dict[str, Any]) -> Knob:
    if unknown := data.keys() - _KNOB_KEYS:
        raise BadInput(f"unknown keys of knob '{name}': {', '.join(sorted(unknown))}")
    if ("values" in data) == ("range" in data):
        raise BadInput(f"knob '{name}' needs either 'values' or 'range'")
    values = tuple(data["values"]) if "values" in data else _ranged(name, data)
    rest = {key: data[key] for key in ("structural", "when", "label", "labels", "help") if key in data}
    return Knob(name, values, data.get("default", values[0]), **rest)


def _ranged(name: str, data: dict[str, Any]) -> tuple[int, ...]:
    low, high = data["range"]
    if data.get("log"):
        if low < 1:
            raise BadInput(f"knob '{name}': a log range must begin at 1 or above")
        values = []
        while low <= high:
            values.append(low)
            low *= 2
        return tuple(values)
    return tuple(range(low, high + 1, data.get("step", 1)))


def _shared_memory(target: TargetSpec) -> int:
    """Bytes of shared memory that one block of threads may have; 0 where there is no such thing."""
    return occupancy.limits(target.arch).shared_block if target.vendor == "nvidia" else 0


@cache
def _environment(folder: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )


def tidy(text: str, blank_lines: int = 1) -> str:
    """The text as a person would have written it: C++ includes gathered at the top, neighbouring unnamed namespaces joined, no trailing
    blanks, at most `blank_lines` empty lines in a row, one newline at the end."""
    text = "\n".join(line.rstrip() for line in text.splitlines())
    includes = list(dict.fromkeys(re.findall(r"^#include .*$", text, re.MULTILINE)))
    if includes:
        own = [line for line in includes if '"' in line]
        system = sorted(line for line in includes if '"' not in line)
        text = re.sub(r"^#include .*\n", "", text, flags=re.MULTILINE).lstrip()
        text = "\n".join([*own, "", *system, "", text])
    text = re.sub(r"\n}  // namespace\s+namespace {\n", "\n", text)
    return re.sub(rf"\n{{{blank_lines + 2},}}", "\n" * (blank_lines + 1), text).strip() + "\n"


def first_settings(template: Template, space: Space) -> list[Setting]:
    """The settings to try first: the default, then the drafts that the template names, each moved to the nearest allowed one."""
    found: list[Setting] = []
    for partial in ({}, *template.drafts):
        setting = space.default(partial)
        if setting is not None and setting not in found:
            found.append(setting)
    return found
