"""`%%kernel`: a cell that is a kernel.

    %load_ext kernelevolve_lab

    %%kernel run --title "two rows at once" --parent 3f2a
    #include "kel.h"
    …

puts the cell's text into a live search, named by a variable, a run's id, or not at all (the newest one that goes on); the cell's output
then says what the judge found. With `--operator` there is no search: the text is judged alone, and the cell waits for it.
"""

from __future__ import annotations

import argparse
import shlex
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from kernelevolve_lab.errors import BadInput, LabError, UnknownName

LOOK_EVERY = 0.25
USAGE = "%%kernel [RUN] [--language L] [--title T] [--parent ID]   or   %%kernel --operator NAME [--target T] [--language L]"


def register(shell: InteractiveShell) -> None:
    """Teach a shell the magic."""
    shell.register_magic_function(lambda line, cell: kernel(shell, line, cell), "cell", "kernel")


def kernel(shell: InteractiveShell, line: str, cell: str) -> Any:
    """Do what a `%%kernel` cell asks for. What is wrong with it is one sentence, as `UsageError`, of which IPython shows no traceback."""
    try:
        asked = _asked(line)
        if not cell.strip():
            raise BadInput("The cell is empty below its first line: write the kernel there.")
        return _alone(asked, cell) if asked.operator else _into(_run(shell, asked.run), asked, cell)
    except LabError as error:
        raise UsageError(str(error)) from None
    except KeyboardInterrupt:
        raise UsageError("Interrupted: the kernel was not judged.") from None


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as an exception instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message[0].upper()}{message[1:]}. Write: {USAGE}.")


def _asked(line: str) -> argparse.Namespace:
    parser = _Parser(prog="%%kernel", add_help=False, allow_abbrev=False)
    parser.add_argument("run", nargs="?")
    for option in ("language", "title", "parent", "operator", "target"):
        parser.add_argument(f"--{option}")
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise BadInput(f"The line of %%kernel cannot be read: {error}.") from None
    asked = parser.parse_args(words)
    alien = ["run", "title", "parent"] if asked.operator else ["target"]
    for name in alien:
        if getattr(asked, name):
            other = "a kernel that is judged alone (--operator)" if asked.operator else "a search, which has its target already"
            raise BadInput(f"{'A run' if name == 'run' else f'--{name}'} does not go with {other}. Write: {USAGE}.")
    return asked


def _run(shell: InteractiveShell, name: str | None) -> Any:
    """The run that a cell is for."""
    from kernelevolve_lab import api
    from kernelevolve_lab.engine.replay import Replay

    if name is None:
        run = api.newest()
        if run is None:
            raise BadInput("No search goes on here: start one with kel.search(…), or name an operator to be judged alone: --operator.")
        return run
    if name in shell.user_ns:
        found = shell.user_ns[name]
        run = found if isinstance(found, api.Run) else getattr(found, "run", None)
        if not isinstance(run, api.Run):
            raise BadInput(
                f"'{name}' is {_a(type(found).__name__)} and no run; name a variable that kel.search(…) returned, or a run's id."
            )
    else:
        try:
            run = api.open_run(name)
        except UnknownName:
            raise BadInput(f"'{name}' is neither a variable of this notebook nor a run in the store.") from None
    if isinstance(run, Replay):
        raise BadInput(f"'{name}' is a replay: nothing is judged in it. Start a search of your own, or judge the kernel alone: --operator.")
    return run


def _a(word: str) -> str:
    return f"an {word}" if word[:1].lower() in "aeiou" else f"a {word}"


def _into(run: Any, asked: argparse.Namespace, source: str) -> None:
    """Enqueue, and keep the cell's output up to date until the verdict is there; nothing waits for it."""
    from kernelevolve_lab.widgets.verdict import InRun

    parents = (run.candidate(asked.parent).id,) if asked.parent else ()
    if run.status == "interrupted":
        raise BadInput(f"Nobody drives run {run.id} any more: take it up again with run.resume(), then run this cell again.")
    candidate = run.enqueue(source, language=asked.language, title=asked.title or "written in a cell", parents=parents)
    shown = InRun(run, candidate)
    output = display(shown, display_id=True)
    if output is not None and not shown.settled:
        # Not in this cell's context: what runs notebooks without a front end heeds only what belongs to the cell that it runs now.
        threading.Thread(target=_follow, args=(shown, output.update), daemon=True, name="kel-cell").start()


def _follow(shown: Any, update: Callable[[Any], None]) -> None:
    said, settled = "", False
    while not settled:
        time.sleep(LOOK_EVERY)
        settled = shown.settled
        if (now := repr(shown)) != said:
            said = now
            update(shown)


def _alone(asked: argparse.Namespace, source: str) -> Any:
    """Judge without a search; what is going on is said in the cell's output meanwhile."""
    from kernelevolve_lab import api
    from kernelevolve_lab.widgets.verdict import Judged, Progress

    target = asked.target or "cpu"
    language = asked.language or api.language_for(source, target)
    output = display(Progress("Getting ready"), display_id=True)

    def progress(text: str) -> None:
        if output is not None:
            output.update(Progress(text))

    try:
        evaluation = api.evaluate(source, asked.operator, target, language=language, progress=progress)
    finally:
        if output is not None:
            output.update(Progress(""))
    return Judged(evaluation, source)
