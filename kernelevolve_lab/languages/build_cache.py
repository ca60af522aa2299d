"""Finished builds on disk: one folder each, named by the content address of what went in, put there in one step."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.languages.base import Build
from kernelevolve_lab.records import Diagnostic, Scalar


def address(*parts: str) -> str:
    """A name for what these texts, in this order, determine."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Made:
    """What a compiler made: the files and folders to keep, none when it failed, and what it said. What is not `lasting` is not cached."""

    contents: Sequence[Path]
    messages: Sequence[Diagnostic]
    metrics: Mapping[str, Scalar]
    lasting: bool = True


def encoded(source: str, language: str) -> bytes:
    """The source as UTF-8; raises `BadInput` where it cannot be (a lone surrogate)."""
    try:
        return source.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"The {language} source is not UTF-8 text: {error.reason} at character {error.start}. Save it as UTF-8.") from error


def through(place: Path, artifact_name: str, make: Callable[[Path], Made]) -> Build:
    """The build that is kept at `place`; where there is none, what `make` makes in an empty folder, which is kept if it lasts."""
    started = time.perf_counter()
    cached = read(place, artifact_name)
    if cached is not None:
        return replace(cached, seconds=time.perf_counter() - started)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=place.parent, ignore_cleanup_errors=True) as folder:
        made = make(Path(folder))
        if not made.lasting:
            return Build(None, tuple(made.messages), time.perf_counter() - started)
        keep(place, made.contents, made.messages, made.metrics)
    found = read(place, artifact_name)
    assert found is not None
    return replace(found, seconds=time.perf_counter() - started, cached=False)


def read(place: Path, artifact_name: str) -> Build | None:
    """The build kept at `place` (one that failed has no file `artifact_name`), or None when there is none."""
    try:
        kept = json.loads((place / "build.json").read_text())
    except (OSError, ValueError):
        return None
    artifact = place / artifact_name
    messages = tuple(Diagnostic(**d) for d in kept["diagnostics"])
    return Build(artifact if artifact.is_file() else None, messages, seconds=0.0, cached=True, metrics=kept["metrics"])


def keep(place: Path, contents: Sequence[Path], messages: Sequence[Diagnostic], metrics: Mapping[str, Scalar]) -> None:
    """Move files and folders of a finished build, read-only, to `place`; when another builder was first, its build stays."""
    ready = Path(tempfile.mkdtemp(prefix="ready-", dir=place.parent))
    try:
        for path in contents:
            if path.is_file():
                os.chmod(path, 0o555)
            os.replace(path, ready / path.name)
        (ready / "build.json").write_text(json.dumps({"diagnostics": [d.model_dump() for d in messages], "metrics": dict(metrics)}))
        os.chmod(ready, 0o755)
        os.rename(ready, place)
    except OSError:
        shutil.rmtree(ready, ignore_errors=True)
        if not place.is_dir():
            raise
