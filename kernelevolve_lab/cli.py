"""The command line: the same verbs as the notebook, for terminals and scripts.

Results go to standard output (or the file that `--json` names), progress and errors to standard error. Exit status: 0 the command did its
job, whatever the verdict; 2 bad arguments or input; 3 nothing could be judged.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput, LabError, NothingJudged


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except LabError as error:
        print(f"kernelevolve-lab: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("kernelevolve-lab: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kernelevolve-lab", description="Search for faster kernels, judged so that the numbers hold up.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Callable[[argparse.Namespace], int | None], help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(command=function)
        return added

    for name, function, help in (
        ("doctor", _doctor, "what works on this machine, and how to get what does not"),
        ("operators", _operators, "the operators that can be searched"),
        ("targets", _targets, "the hardware targets"),
        ("languages", _languages, "the kernel languages"),
        ("runs", _runs, "the runs in the store"),
    ):
        added = command(name, function, help)
        added.add_argument("--json", action="store_true", help="print JSON")
        if name == "runs":
            added.add_argument("--store", metavar="URL")

    evaluate = command("evaluate", _evaluate, "judge one candidate")
    _add_task(evaluate)
    evaluate.add_argument("--candidate", type=Path, required=True, metavar="FILE")
    evaluate.add_argument("--language", help="default: by the file's suffix")
    evaluate.add_argument("--target", required=True)
    evaluate.add_argument("--profile", choices=("laptop", "gpu", "emulated"), help="size of the cases (default: what suits the target)")
    evaluate.add_argument("--unsandboxed", action="store_true", help="run without the sandbox: only for code that you trust")
    evaluate.add_argument("--json", type=Path, metavar="OUT", help="write the evaluation to this file")

    search = command("search", _search, "search for a faster kernel")
    _add_task(search)
    search.add_argument("--target", required=True)
    search.add_argument("--language", help="default: the first that the target and proposer can use")
    search.add_argument("--proposer", default="schedule")
    search.add_argument("--policy", default="evolutionary")
    search.add_argument("--max-candidates", type=int, default=100, metavar="N")
    search.add_argument("--max-seconds", type=float, metavar="S")
    search.add_argument("--max-cost", type=float, metavar="USD")
    search.add_argument("--seed", type=int, default=0, metavar="N")
    search.add_argument("--profile", choices=("laptop", "gpu", "emulated"), help="size of the cases (default: what suits the target)")
    search.add_argument("--unsandboxed", action="store_true", help="run without the sandbox: only for code that you trust")
    _add_options(search)
    search.add_argument("--store", metavar="URL")
    search.add_argument("--json", type=Path, metavar="OUT", help="write the result to this file")

    for name, function, help in (
        ("resume", _resume, "go on with a run that ended or was interrupted"),
        ("replay", _replay, "show a recorded run again, without judging anything"),
    ):
        added = command(name, function, help)
        added.add_argument("run", metavar="RUN")
        added.add_argument("--store", metavar="URL")
        added.add_argument("--json", type=Path, metavar="OUT")
        if name == "replay":
            added.add_argument("--speed", type=float, default=8.0)

    record = command("record", _record, "write a whole run to one file, to be replayed anywhere")
    record.add_argument("run", metavar="RUN")
    record.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .kevrun file, or a folder")
    record.add_argument("--store", metavar="URL")

    export = command("export", _export, "write a candidate out, to use or to read")
    export.add_argument("what", metavar="RUN|CANDIDATE")
    export.add_argument("--format", choices=registry.names("exporters"), required=True)
    export.add_argument("--out", type=Path, required=True, metavar="DIR")
    export.add_argument("--store", metavar="URL")

    lab = command("lab", _lab, "JupyterLab on the quickstart notebook")
    lab.add_argument("flags", nargs="*", help="more flags for jupyter lab, after --")
    return parser


def _add_task(parser: argparse.ArgumentParser) -> None:
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--operator", metavar="NAME")
    task.add_argument("--task", type=Path, metavar="FILE", help="a KernelBench task file (Model, get_inputs, get_init_inputs)")


def _add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "options of the proposer", "Stored with the run, so keys are none of them: OPENAI_API_KEY holds the key of proposer 'chat'."
    )
    group.add_argument("--model", help="the model, or several with weights: 'big*1, small*3'")
    group.add_argument("--base-url", metavar="URL", help="any endpoint that speaks OpenAI's chat-completions format")
    group.add_argument("--concurrency", type=int, metavar="N", help="requests in flight at once")
    group.add_argument("--prices", type=Path, metavar="FILE", help="a price file (TOML), instead of <data folder>/prices.toml")
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any option of the proposer, as often as needed; for chat e.g. knowledge=false, diagnosis=off, lessons=false, tools=true",
    )


def _proposer_options(options: argparse.Namespace) -> dict[str, Any]:
    """What was asked of the proposer. A value is a number or true or false where it reads as one, else text."""
    given = {"model": options.model, "base_url": options.base_url, "concurrency": options.concurrency}
    if options.prices is not None:
        given["prices"] = str(options.prices.resolve())
    for text in options.option:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise BadInput(f"The option '{name}' has no value; write it as --option NAME=VALUE.")
        given[name.strip()] = _scalar(value.strip())
    return {name: value for name, value in given.items() if value is not None}


def _scalar(text: str) -> bool | int | float | str:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write(path: Path | None, value: Any) -> None:
    """Write JSON to the file, or nothing when there is none; a file that cannot be written is the user's to mend."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(value, indent=1) + "\n")
    except OSError as error:
        raise BadInput(f"The result cannot be written to '{path}': {error.strerror}; name another file.") from error


def _table(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if rows:
        columns = list(rows[0])
        widths = [max(len(c), *(len(str(row[c])) for row in rows)) for c in columns]
        for values in [columns, *([str(row[c]) for c in columns] for row in rows)]:
            print("  ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)).rstrip())


def _doctor(options: argparse.Namespace) -> None:
    from kernelevolve_lab import doctor

    checks = doctor.check_all()
    print(json.dumps(doctor.as_json(checks), indent=1) if options.json else doctor.as_text(checks))


def _operators(options: argparse.Namespace) -> None:
    loaded = [registry.load("operators", name) for name in registry.names("operators")]
    rows = [
        {
            "name": o.name,
            "family": o.family,
            "title": o.title,
            "visible cases": len(o.visible("laptop")),
            "held out": len(o.held_out("laptop")),
        }
        for o in loaded
    ]
    _table(rows, options.json)


def _targets(options: argparse.Namespace) -> None:
    from kernelevolve_lab import targets

    specs = [targets.resolve(name) for name in targets.names()]
    rows = [{"name": s.name, "title": s.title, "arch": s.arch, "units": s.units, "here": "yes" if s.present else "no"} for s in specs]
    _table(rows, options.json)


def _languages(options: argparse.Namespace) -> None:
    rows = []
    for name in registry.names("languages"):
        language = registry.load("languages", name)
        try:
            tools, here = ", ".join(f"{tool} {version}" for tool, version in language.toolchain().items()), "yes"
        except LabError as error:
            tools, here = str(error), "no"
        rows.append({"name": name, "title": language.title, "here": here, "toolchain": tools})
    _table(rows, options.json)


def _runs(options: argparse.Namespace) -> None:
    from kernelevolve_lab.store import Store

    summaries = Store.open(options.store).runs()
    if options.json:
        _table([summary.model_dump(mode="json") for summary in summaries], True)
        return
    rows = [
        {
            "run": s.id,
            "target": s.target,
            "language": s.language,
            "proposer": s.proposer,
            "status": s.status,
            "judged": s.judged,
            "best": f"{s.speedup:.2f}x over {s.baseline}, {s.evidence}" if s.speedup else "",
        }
        for s in summaries
    ]
    _table(rows, False)


def _evaluate(options: argparse.Namespace) -> None:
    from kernelevolve_lab import api
    from kernelevolve_lab.records import Verdict
    from kernelevolve_lab.records.contract import evaluation_object

    evaluation = api.evaluate(
        options.candidate,
        operator=options.task or options.operator,
        target=options.target,
        language=options.language,
        profile=options.profile,
        unsandboxed=options.unsandboxed,
        progress=_say,
    )
    _write(options.json, evaluation_object(evaluation))
    print(api.summary_of(evaluation))
    if evaluation.verdict is Verdict.INFRA_ERROR:
        raise NothingJudged(f"Nothing was judged: {'; '.join(evaluation.reasons)}.")


def _search(options: argparse.Namespace) -> None:
    from kernelevolve_lab import api

    run = api.search(
        options.task or options.operator,
        target=options.target,
        language=options.language,
        proposer=options.proposer,
        policy=options.policy,
        max_candidates=options.max_candidates,
        max_seconds=options.max_seconds,
        max_cost=options.max_cost,
        seed=options.seed,
        profile=options.profile,
        unsandboxed=options.unsandboxed,
        store=options.store,
        **_proposer_options(options),
    )
    _follow(run, options)


def _resume(options: argparse.Namespace) -> None:
    from kernelevolve_lab import api

    run = api.open_run(options.run, store=options.store)
    run.resume()
    _follow(run, options)


def _replay(options: argparse.Namespace) -> None:
    from kernelevolve_lab import api

    _say("This is a replay: nothing is proposed, judged or measured now.")
    _follow(api.replay(options.run, speed=options.speed, store=options.store), options)


def _follow(run: Any, options: argparse.Namespace) -> None:
    """Print the run's log as it grows, wait for its end (Ctrl-C stops it), and write the result."""
    from kernelevolve_lab.engine.progress import follow
    from kernelevolve_lab.records.contract import search_object

    follow(run, _say)
    state = run.state
    _write(options.json, search_object(state))
    print(run.text_table())
    if state.judged == 0:
        raise NothingJudged(f"Nothing was judged: {state.reason}")


def _record(options: argparse.Namespace) -> None:
    from kernelevolve_lab import api

    path = api.open_run(options.run, store=options.store).save(options.out)
    _say(f"{path.stat().st_size / 1e3:.0f} kB; play it with: kernelevolve-lab replay {path}")
    print(path)


def _export(options: argparse.Namespace) -> None:
    from kernelevolve_lab import api

    for path in api.export(options.what, options.out, format=options.format, store=options.store):
        print(path)


def _lab(options: argparse.Namespace) -> int:
    import subprocess

    notebooks = Path(__file__).parents[1] / "notebooks"
    notebook = notebooks / "01_quickstart.ipynb"
    if not notebook.exists():
        raise BadInput("The notebooks are not beside the package; run this from a clone of the project.")
    return subprocess.call([sys.executable, "-m", "jupyterlab", str(notebook), *options.flags])


if __name__ == "__main__":
    sys.exit(main())
