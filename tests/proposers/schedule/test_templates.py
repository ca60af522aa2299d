"""Every kernel template: it renders, compiles and computes its operator, with settings that cover the values of its knobs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from kernel_runner import check

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.languages.cpp import CPP
from kernelevolve_lab.proposers.schedule.space import Setting, Space
from kernelevolve_lab.proposers.schedule.templates import Template, first_settings, read, templates, tidy
from kernelevolve_lab.targets import resolve

CPU = resolve("cpu")
SERVED = [(template, operator) for template in templates() if template.language == "cpp" for operator in template.operators]
EACH = pytest.mark.parametrize(("template", "operator"), SERVED, ids=[f"{template.name}-{operator}" for template, operator in SERVED])
SETTINGS = {"gemm": 2, "chain": 2}  # how many are built, by family; these have tests of their own that go deeper


def covering(space: Space, first: list[Setting], count: int, random: Random) -> list[Setting]:
    """Of the given settings and random ones, `count` that show as many different values of knobs as possible, the first always."""
    chosen, seen = first[:1], set(first[0].items())
    pool = [*first[1:], *(setting for _ in range(40) if (setting := space.sample(random)) is not None)]
    while len(chosen) < count:
        best = max(pool, key=lambda setting: len(setting.items() - seen))
        if not best.items() - seen:
            break
        chosen.append(best)
        seen |= best.items()
    return chosen


@pytest.fixture(scope="module")
def judge_apart() -> Iterator[Callable[[str, str], list[str]]]:
    """Runs `check` in a process of its own; a kernel that crashes breaks that process, and the next call gets a new one."""
    pool: list[ProcessPoolExecutor] = []

    def run(operator: str, artifact: str) -> list[str]:
        if not pool:
            pool.append(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
        try:
            return pool[0].submit(check, operator, artifact).result(timeout=60)
        except Exception:
            pool.pop().shutdown(wait=False, cancel_futures=True)
            raise

    yield run
    for executor in pool:
        executor.shutdown()


@EACH
def test_settings_of_a_template_compute_its_operator(
    template: Template, operator: str, judge_apart: Callable[[str, str], list[str]], tmp_path: Path
) -> None:
    space = template.space(CPU)
    chosen = covering(space, first_settings(template, space), SETTINGS.get(registry.load("operators", operator).family, 5), Random(5))
    with ThreadPoolExecutor(2) as builders:
        builds = list(builders.map(lambda setting: CPP.build(template.render(setting, operator, CPU), CPU, tmp_path), chosen))
    for setting, build in zip(chosen, builds, strict=True):
        assert build.ok, (setting, build.diagnostics)
        assert not build.diagnostics, (setting, build.diagnostics)
        assert judge_apart(operator, str(build.artifact)) == [], setting


@EACH
def test_rendering_is_deterministic_and_tidy(template: Template, operator: str) -> None:
    space = template.space(CPU)
    for seed in range(12):
        setting = space.sample(Random(seed))
        assert setting is not None
        source = template.render(setting, operator, CPU)
        assert source == template.render(dict(setting), operator, CPU)
        assert "\n\n\n" not in source and source.endswith("}\n")
        assert max(map(len, source.splitlines())) <= 200
        assert not [line for line in source.splitlines() if line != line.rstrip() or "{%" in line or ("{{" in line and "}}" in line)]


@EACH
def test_front_matter_makes_sense(template: Template, operator: str) -> None:
    assert operator in registry.names("operators")
    space = template.space(CPU)
    assert space.default() is not None
    for partial in template.drafts:
        assert space.default(partial) is not None, partial
    assert template.idea
    for knob in template.knobs:
        assert knob.help, f"{knob.name} has no help"
    titles = [template.describe(setting) for setting in first_settings(template, space)]
    assert len(set(titles)) == len(titles), "drafts must differ in their titles"


@EACH
def test_narrower_cpus_get_settings_too(template: Template, operator: str) -> None:
    for bits, features in ((256, ("avx", "avx2", "fma")), (128, ("asimd",))):
        narrow = CPU.model_copy(update={"simd_bits": bits, "features": features})
        setting = template.space(narrow).default()
        assert setting is not None
        source = template.render(setting, operator, narrow)
        assert "_mm512" not in source
        if bits == 128:
            assert "immintrin" not in source


def test_every_registered_operator_has_a_template() -> None:
    assert {operator for _, operator in SERVED} >= set(registry.names("operators"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("int main() {}\n", "must begin with"),
        ('{#\ntitle = "t"\n#}\nx\n', "lacks dtypes, operators"),
        ('{#\ntitle = "t"\noperators = []\ndtypes = []\ncolour = 1\n#}\nx\n', "unknown keys in the front matter: colour"),
        ('{#\ntitle = "t"\noperators = []\ndtypes = []\n[knobs.a]\n#}\nx\n', "either 'values' or 'range'"),
        ('{#\ntitle = "t"\noperators = []\ndtypes = []\n[knobs.a]\nvalues = [1, 2]\ndefault = 3\n#}\nx\n', "default 3 of knob 'a'"),
        ('{#\ntitle = "t"\noperators = []\ndtypes = []\n[knobs.a]\nvalues = [1, 1]\n#}\nx\n', "distinct values"),
        ("{#\ntitle = \n#}\nx\n", "Invalid value"),
    ],
)
def test_a_bad_template_file_is_named_with_its_fault(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "cpp" / "broken.cpp.j2"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(BadInput, match=r"template cpp/broken\.cpp\.j2: ") as raised:
        read(path)
    assert part in str(raised.value)


def test_includes_are_gathered_and_neighbouring_namespaces_joined() -> None:
    text = '#include "kel.h"\n#include <vector>\n\n// why\n#include <bit>\n'
    text += "namespace {\n\nint a;\n\n}  // namespace\n\n\nnamespace {\nint b;\n}  // namespace"
    joined = "namespace {\n\nint a;\n\nint b;\n}  // namespace\n"
    assert tidy(text) == '#include "kel.h"\n\n#include <bit>\n#include <vector>\n\n// why\n' + joined
    assert tidy("import torch\n\n\n\nx = 1   \n") == "import torch\n\nx = 1\n"
    assert tidy("x = 1\n\n\n\n\ny = 2\n", blank_lines=2) == "x = 1\n\n\ny = 2\n"


def test_a_new_file_is_a_new_template(tmp_path: Path) -> None:
    path = tmp_path / "cpp" / "new.cpp.j2"
    path.parent.mkdir()
    (tmp_path / "cpp" / "_piece.h.j2").write_text("// piece of {{ operator }}\n")
    path.write_text(
        '{#\ntitle = "new"\noperators = ["softmax"]\ndtypes = ["float32"]\n[knobs.n]\nrange = [1, 8]\nlog = true\nlabel = "{} a time"\n#}\n'
        '{% include "_piece.h.j2" %}\nconstexpr int kN = {{ n }};\n\n\n\n{% if n > 2 %}\n// many   \n{% endif %}\n'
    )
    (template,) = templates(tmp_path)
    assert template.name == "cpp/new" and template.serves("softmax", CPU, "cpp")
    assert template.serves("softmax", CPU, "cpp", ["float32"]) and not template.serves("softmax", CPU, "cpp", ["float32", "float16"])
    assert not template.serves("softmax", CPU, "triton") and not template.serves("matmul", CPU, "cpp")
    assert template.knobs[0].values == (1, 2, 4, 8)
    assert template.render({"n": 4}, "softmax", CPU) == "// piece of softmax\nconstexpr int kN = 4;\n\n// many\n"
    assert template.describe({"n": 4}) == "new, 4 a time"
    assert template.difference({"n": 1}, {"n": 4}) == "n 1 → 4"
    with pytest.raises(BadInput, match="'n' is undefined"):
        template.render({}, "softmax", CPU)
