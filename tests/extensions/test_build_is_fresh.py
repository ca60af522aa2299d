"""The committed build of the labextension was made from the sources beside it."""

import hashlib
from pathlib import Path

EXTENSIONS = Path(__file__).parents[2] / "extensions"


def test_build_was_made_from_these_sources() -> None:
    root = EXTENSIONS / "labextension"
    names = ["package.json", "tsconfig.json", "yarn.lock"]
    names += [f"{folder}/{path.name}" for folder in ("src", "style") for path in (root / folder).iterdir()]
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\0".encode())
        digest.update((root / name).read_bytes())
    built = (EXTENSIONS / "kernelevolve_jupyter" / "labextension" / "source.sha256").read_text().strip()
    assert digest.hexdigest() == built, "run `jlpm build` in extensions/labextension"
