"""KernelEvolve Lab: an interactive workbench for kernel search.

    import kernelevolve_lab as kel

    run = kel.search("rms_norm", target="cpu", max_candidates=200)   # returns at once; the search runs in a thread
    run                                                              # live view in a notebook, a table of text elsewhere
    await run
    run.export("out/", format="module")

Public names load on first use, so that importing the package loads neither torch nor Jupyter.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernelevolve_lab.api import Run, evaluate, operator, recordings, replay, runs, search, use_key
    from kernelevolve_lab.api import open_run as open
    from kernelevolve_lab.errors import LabError
    from kernelevolve_lab.widgets.workbench import Workbench

__version__ = "0.1.0"

_PUBLIC = {
    "LabError": ("kernelevolve_lab.errors", "LabError"),
    "Run": ("kernelevolve_lab.api", "Run"),
    "Workbench": ("kernelevolve_lab.widgets.workbench", "Workbench"),
    "evaluate": ("kernelevolve_lab.api", "evaluate"),
    "open": ("kernelevolve_lab.api", "open_run"),
    "operator": ("kernelevolve_lab.api", "operator"),
    "recordings": ("kernelevolve_lab.api", "recordings"),
    "replay": ("kernelevolve_lab.api", "replay"),
    "runs": ("kernelevolve_lab.api", "runs"),
    "search": ("kernelevolve_lab.api", "search"),
    "use_key": ("kernelevolve_lab.api", "use_key"),
}

__all__ = [
    "LabError", "Run", "Workbench", "__version__", "evaluate", "open", "operator", "recordings", "replay", "runs", "search", "use_key",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module 'kernelevolve_lab' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext kernelevolve_lab`: the cell magic `%%kernel` (see `widgets.magic`)."""
    from kernelevolve_lab.widgets.magic import register

    register(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
