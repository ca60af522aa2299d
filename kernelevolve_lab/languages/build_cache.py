"""Finished builds on disk: one folder each, named by the content address of what went in, put there in one step."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kernelevolve_lab.languages.base import Build
from kernelevolve_lab.records import Diagnostic, Scalar


def address(*parts: str) -> str:
    """A name for what these texts, in this order, determine."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


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
