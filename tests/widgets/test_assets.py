"""The JavaScript is one string made of small modules."""

import re
import shutil
import subprocess

import pytest

from kernelevolve_lab.widgets import assets

MODULES = sorted(path.name for path in assets.STATIC.glob("*.js"))


def test_the_bundle_holds_every_module_once_and_imports_nothing():
    text = assets.bundle("view.js")
    assert "import " not in re.sub(r"//.*", "", text)
    assert re.findall(r"^export .*", text, re.MULTILINE) == ["export default { render: ({ model, el }) => mount(model, el) };"]
    for name in MODULES:
        first = (assets.STATIC / name).read_text("utf-8").split("\n", 1)[0]
        assert text.count(first) == 1, f"{name} is missing or there twice"


def test_top_level_names_differ():
    names = re.findall(r"^(?:const|let|class|function|async function)\s+(\w+)", assets.bundle("view.js"), re.MULTILINE)
    assert len(names) == len(set(names)), sorted({n for n in names if names.count(n) > 1})


@pytest.mark.skipif(not shutil.which("node"), reason="no node here to parse it with")
def test_the_bundle_parses(tmp_path):
    path = tmp_path / "bundle.mjs"
    path.write_text(assets.bundle("view.js"), "utf-8")
    checked = subprocess.run(["node", "--check", path], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_nothing_is_fetched_from_anywhere():
    for text in (assets.bundle("view.js"), assets.styles()):
        assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg"}
        assert "@import" not in text and "fetch(" not in text


def test_markup_is_placed_in_one_known_spot_only():
    spots = [
        name
        for name in MODULES
        for _ in re.findall(r"innerHTML|insertAdjacentHTML|outerHTML|document\.write", (assets.STATIC / name).read_text("utf-8"))
    ]
    assert spots == ["inspector.js"]


def test_a_view_costs_little_to_open():
    assert len(assets.bundle("view.js")) + len(assets.styles()) < 145_000


def test_modules_are_short():
    for name in MODULES:
        assert len((assets.STATIC / name).read_text("utf-8").split("\n")) <= 420, name
