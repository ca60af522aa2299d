"""An exported package is installed by pip into an empty folder and used from there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from exported import KERNEL, PYTHON_KERNEL, request, run_alone

from kernelevolve_lab.export import package


@pytest.mark.parametrize(("language", "source", "file"), [("cpp", KERNEL, "kernel.cpp"), ("python", PYTHON_KERNEL, "candidate.py")])
def test_package_installs_and_passes_its_self_test(tmp_path: Path, language: str, source: str, file: str) -> None:
    folder, *files = package.export(request(tmp_path / "out", source, language=language))
    assert all(path.is_file() for path in files)
    target = tmp_path / "site"
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--disable-pip-version-check"]
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(folder)], capture_output=True, text=True
    )
    assert installed.returncode == 0, installed.stderr
    name = folder.name
    assert (target / name / file).read_text() == source
    code = f"""
import runpy, torch, {name}
assert {name}.__file__.startswith({str(target)!r})
x, w, b = torch.randn(4, 33), torch.randn(33), torch.randn(33)
torch.testing.assert_close(torch.ops.kernelevolve.{name}(x, w, b), torch.nn.functional.layer_norm(x, (33,), w, b))
torch.testing.assert_close({name}.kernel(x.double(), w.double(), b.double()).float(), {name}.op(x, w, b))
runpy.run_module("{name}")
"""
    ran = run_alone(target / "anything", code, tmp_path / "cache")
    assert ran.returncode == 0, ran.stderr
    assert "odd: right, largest error" in ran.stdout
    evidence = json.loads((target / name / "evidence.json").read_text())
    assert evidence["verdict"] == "correct" and evidence["speedup"]["low"] == 1.21
    assert "interval 1.21 to 1.29" in (folder / "README.md").read_text()
