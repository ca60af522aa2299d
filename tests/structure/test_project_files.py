"""The project files agree with each other."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()}


def test_every_dependency_is_pinned_to_a_version_that_it_admits() -> None:
    pinned = pins()
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name in pinned, f"{name} is not pinned"
        assert requirement.specifier.contains(pinned[name]), f"{name} {pinned[name]} does not satisfy {requirement.specifier}"


def test_torch_is_pinned() -> None:
    assert pins()["torch"] == "2.13.0"


def test_environment_installs_this_project_with_the_same_python_and_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    plain = [item for item in environment["dependencies"] if isinstance(item, str)]
    (by_pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert f"python {PROJECT['requires-python']}" in plain
    assert by_pip == ["-c constraints.txt", "-e .[dev]"]


def test_no_file_names_an_index_or_carries_a_hash_of_one() -> None:
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile", ".ci/run"):
        assert not re.search(r"https?://|--(extra-)?index-url|file:/", (ROOT / name).read_text()), name
