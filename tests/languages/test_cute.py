"""What of CuTe DSL needs neither its package nor a GPU."""

import importlib.metadata
import re
from collections.abc import Callable

import pytest
from cute_sources import PLAIN

from kernelevolve_lab import doctor, registry
from kernelevolve_lab.errors import MissingTool
from kernelevolve_lab.languages import cute
from kernelevolve_lab.languages.cute_ahead import sentences
from kernelevolve_lab.languages.python import check
from kernelevolve_lab.targets import resolve


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[[str], str] = importlib.metadata.version

    def version(name: str) -> str:
        if name == cute.PACKAGE:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_it_is_registered() -> None:
    assert registry.load("languages", "cute") is cute.CUTE


def test_without_its_package_it_says_how_to_get_it(without: None, tmp_path) -> None:
    for attempt in (cute.CUTE.toolchain, lambda: cute.CUTE.build(PLAIN, resolve("nvidia:h100"), tmp_path)):
        with pytest.raises(MissingTool, match=r"^CuTe DSL is not installed\. Install it with: pip install 'nvidia-cutlass-dsl>=4\.8'"):
            attempt()


def test_the_doctor_calls_it_absent_and_not_missing(without: None) -> None:
    (told,) = (check for check in doctor._languages() if check.name == "language cute")
    assert told.state == "absent" and "pip install" in told.found + told.mend


def test_which_targets() -> None:
    assert cute.CUTE.supports(resolve("nvidia:h100")) and cute.CUTE.supports(resolve("nvidia:a100"))
    assert not cute.CUTE.supports(resolve("cpu"))


def test_the_guides_examples_are_candidates() -> None:
    examples = [block for block in re.findall(r"```python\n(.*?)```", cute.CUTE.guide(), re.S) if "@cute.kernel" in block]
    assert len(examples) == 2 and all(check(example) is None for example in examples)


REPORT = """
\x1b[91m\x1b[1merror[INTERNAL]:\x1b[0m The compiler could not build valid IR for this code.

  --> /somewhere/candidate.py:9:4
      in function `\x1b[92mk\x1b[0m(...)`:
   |
   7 | def k(a: cute.Tensor, b: cute.Tensor):
>  9 |     b[t, 0] = a[t]
     |    ^
  \x1b[91merror:\x1b[0m IR verification failed: 'cute.memref.store' op expects coordinate to be weakly congruent to
         the layout, but got '!cute.coord<"(?,0)">'
  \x1b[92msuggestion:\x1b[0m Check the source location above for invalid primitive arguments, types, or address
              spaces. If the code looks valid, report this with the snippet above and your kernel.
  \x1b[92msuggestion:\x1b[0m Re-run with CUTE_DSL_SHOW_STACKTRACE=1 to include the full technical detail.
"""


def test_a_report_becomes_one_line() -> None:
    assert sentences(re.sub(r"\x1b\[[0-9;]*m", "", REPORT)) == (
        "error[INTERNAL]: The compiler could not build valid IR for this code. IR verification failed: 'cute.memref.store' op expects "
        "coordinate to be weakly congruent to the layout, but got '!cute.coord<\"(?,0)\">'"
    )
