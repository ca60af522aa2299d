"""The handle of a run: names, waiting, bad input."""

import asyncio
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from scripted import ScriptedJudge, ScriptedProposer, begin, config, improving, services

from kernelevolve_lab import registry
from kernelevolve_lab.engine.driver import Driver
from kernelevolve_lab.engine.handle import RunHandle, open_run
from kernelevolve_lab.engine.start import start
from kernelevolve_lab.errors import BadInput, LabError, MissingTool, RunBusy, UnknownName
from kernelevolve_lab.records import OperatorRef, RunConfig
from kernelevolve_lab.store import Store

PATIENCE = 30


@pytest.fixture
def ended(store: Store) -> RunHandle:
    run = begin(store, candidates=6)
    assert run.wait(PATIENCE)
    return run


def test_one_line_says_what_a_run_is(ended: RunHandle) -> None:
    said = repr(ended)
    assert re.fullmatch(r"<Run scripted-\S+: Scripted on cpu in cpp, finished, 6 judged, best \d\.\d\dx>", said)


def test_candidates_are_found_by_id_and_by_prefix(ended: RunHandle) -> None:
    id = next(iter(ended.state.entries))
    assert ended.candidate(id) is ended.state.entries[id]
    assert ended.candidate(id[:8]).id == id
    for wrong in ("nothing-like-it", "", id + "0"):
        with pytest.raises(UnknownName, match="has no candidate") as raised:
            ended.candidate(wrong)
        assert "the nearest" in str(raised.value)


def test_await_and_wait(store: Store) -> None:
    async def both() -> RunHandle:
        run = begin(store, ScriptedJudge(take=0.05), candidates=6)
        assert run.wait(0.01) is False
        ticks = 0

        async def ticking() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticker = asyncio.create_task(ticking())
        assert await run is run
        assert ticks > 10  # the event loop of the notebook goes on meanwhile
        ticker.cancel()
        return run

    run = asyncio.run(both())
    assert run.status == "finished"
    assert asyncio.run(_again(run)) is run


async def _again(run: RunHandle) -> RunHandle:
    return await run


def test_bad_input_gets_a_sentence(ended: RunHandle) -> None:
    best = ended.best.id
    for call, error, sentence in [
        (lambda: ended.reject("abc", "reason"), UnknownName, "has no candidate 'abc'"),
        (lambda: ended.reject(best, "  "), BadInput, "needs a reason"),
        (lambda: ended.hint(""), BadInput, "hint is empty"),
        (lambda: ended.hint("x" * 20_000), BadInput, "too long"),
        (lambda: ended.enqueue("void kernel() {}"), BadInput, "has finished; extend its budget first"),
        (lambda: ended.enqueue(""), BadInput, "source is empty"),
        (lambda: ended.enqueue("x", language="cpq"), UnknownName, "did you mean 'cpp'"),
        (lambda: ended.enqueue("x" * 2_000_000), BadInput, "too long"),
        (lambda: ended.branch(best), BadInput, "has finished; extend"),
        (lambda: ended.pause(), BadInput, "is not running"),
        (lambda: ended.stop(), BadInput, "is not running"),
        (lambda: ended.resume(), BadInput, "used up its budget"),
        (lambda: ended.extend(), BadInput, "by how much"),
        (lambda: ended.extend(candidates=-3), BadInput, "cannot be extended by that"),
        (lambda: ended.extend(candidates="many"), BadInput, "cannot be extended by that"),
    ]:
        with pytest.raises(error, match=sentence) as raised:
            call()
        assert isinstance(raised.value, LabError) and "\n" not in str(raised.value)
    assert ended.state.requests == ()


def test_a_source_that_is_no_unicode_is_refused(store: Store) -> None:
    run = begin(store, ScriptedJudge(take=0.1), candidates=50)
    with pytest.raises(BadInput, match="cannot be kept as UTF-8"):
        run.enqueue("int x; // \ud800")
    run.stop()
    assert run.wait(PATIENCE)


def test_a_rejection_after_the_end_moves_the_best(ended: RunHandle) -> None:
    best = ended.best.id
    ended.reject(best, "too clever")
    assert ended.best.id != best
    assert ended.state.pending_requests == ()
    with pytest.raises(BadInput, match="was rejected"):
        ended.branch(best)


def test_two_drivers_of_one_run(store: Store) -> None:
    run = begin(store, ScriptedJudge(take=0.1), candidates=50)
    with pytest.raises(RunBusy, match="this process"):
        Driver(store, run.id, services(), resumed="again")
    seen = [item.event.kind for item in run.events()]
    assert "run_resumed" not in seen
    other = RunHandle(store, run.id, services())
    other.resume()  # it runs already: nothing to do
    assert other._driver is None
    run.stop()
    assert run.wait(PATIENCE)


def test_open_run_by_prefix(store: Store, ended: RunHandle) -> None:
    assert open_run(ended.id[:-1], store).id == ended.id
    with pytest.raises(UnknownName, match="There is no run"):
        open_run("nothing", store)


def test_a_run_of_somebody_else_brings_no_code_to_run_here(store: Store) -> None:
    from kernelevolve_lab.records.events import RunEnded, RunStarted

    evil = config().model_copy(update={"operator": OperatorRef(kind="pickled", name="op", text="gASV")})
    trusting = config().model_copy(update={"unsandboxed": True})
    for n, untrusted in enumerate((evil, trusting)):
        log = [(1.0, RunStarted(config=untrusted, title="t")), (2.0, RunEnded(outcome="stopped", reason="x"))]
        store.insert_run(f"foreign-{n}", log, imported=True)
        with pytest.raises(BadInput, match="came from a file and brings code of its own"):
            RunHandle(store, f"foreign-{n}", services()).resume()


SCRIPT = """
    import sys
    sys.path.insert(0, sys.argv[3])
    from scripted import *
    run = begin(Store.open(sys.argv[1]), ScriptedJudge(take=0.05), candidates=1000)
    print(run.id, flush=True)
    while run.state.judged < 5:
        time.sleep(0.01)
    if sys.argv[2] == "hang":
        time.sleep(600)
"""


def background(store: Store, mode: str) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), store.url, mode, str(Path(__file__).parent)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_an_interpreter_that_exits_lets_the_run_go(store: Store) -> None:
    process = background(store, "exit")
    run = RunHandle(store, process.stdout.readline().strip(), services())
    assert process.wait(PATIENCE) == 0
    assert run.status == "interrupted"
    assert not [item for item in run.events() if item.event.kind == "run_ended"]
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM drives").scalar() == 0
    run.extend(candidates=1)  # an interrupted run takes it up when it is resumed
    assert run.status == "interrupted"


@pytest.mark.parametrize("after", [0.0, 0.03, 0.11, 0.4])
def test_a_killed_search_loses_nothing_that_was_finished(store: Store, after: float) -> None:
    process = background(store, "hang")
    run = RunHandle(store, process.stdout.readline().strip(), services(ScriptedJudge()))
    ends = time.monotonic() + PATIENCE
    while run.state.judged < 5 and time.monotonic() < ends:
        time.sleep(0.01)
    time.sleep(after)
    process.kill()
    process.wait()
    before = run.state
    assert before.judged >= 5 and run.status == "interrupted"
    first = [item.event for item in run.events()]
    run.resume()
    assert run.status == "running"
    waiting = [entry.id for entry in before.entries.values() if entry.evaluation is None]
    while run.state.judged < before.judged + len(waiting) + 3 and time.monotonic() < ends:
        time.sleep(0.01)
    run.stop()
    assert run.wait(PATIENCE)
    log = run.events()
    assert [item.event for item in log[: len(first)]] == first
    state = run.state
    for entry in before.entries.values():
        if entry.evaluation:
            assert state.entries[entry.id].evaluation == entry.evaluation
    taken_up = [item.event.candidate for item in log[len(first) :] if item.event.kind == "evaluation_started"]
    assert taken_up[: len(waiting)] == waiting  # what was proposed and not judged comes first
    assert not {id for id in taken_up if before.entries.get(id) and before.entries[id].evaluation}
    indices = [item.event.index for item in log if item.event.kind in ("candidate_proposed", "proposal_failed")]
    assert sorted(indices) == list(range(len(indices)))  # no request is asked twice, none is left out


# Starting


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"operator": "rms_nrom"}, UnknownName, "did you mean 'rms_norm'"),
        ({"target": "cpuu"}, UnknownName, "did you mean 'cpu'"),
        ({"language": "cqp"}, UnknownName, "no language named 'cqp'"),
        ({"proposer": "shedule"}, UnknownName, "did you mean 'schedule'"),
        ({"policy": "greddy"}, UnknownName, "no policy named 'greddy'; did you mean 'greedy'"),
        ({"max_candidates": 0}, BadInput, "max_candidates=0 cannot be used: input should be greater than 0"),
        ({"max_candidates": -1}, BadInput, "max_candidates=-1"),
        ({"max_candidates": "many"}, BadInput, "max_candidates='many'"),
        ({"max_seconds": 0.0}, BadInput, "max_seconds=0.0"),
        ({"max_cost": -1}, BadInput, "max_cost=-1"),
        ({"stall": 0}, BadInput, "stall=0"),
        ({"max_candidates": None}, BadInput, "without any bound would never end"),
        ({"profile": "phone"}, BadInput, "profile='phone'"),
        ({"seed": "x"}, BadInput, "seed='x'"),
    ],
)
def test_what_cannot_be_searched_is_said_before_a_run_exists(store: Store, change: dict, error: type, sentence: str) -> None:
    arguments = {"operator": "rms_norm", "proposer": "manual", "policy": "greedy", "store": store} | change
    with pytest.raises(error, match=re.escape(sentence)) as raised:
        start(**arguments)
    assert "\n" not in str(raised.value)
    assert store.runs() == []


def test_without_a_sandbox_nothing_starts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingTool("The sandbox cannot be had; install it.")

    monkeypatch.setattr("kernelevolve_lab.harness.sandbox.bubblewrap", missing)
    with pytest.raises(MissingTool, match="sandbox"):
        start("rms_norm", proposer="manual", store=store)
    assert store.runs() == []


def test_without_a_compiler_nothing_starts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Uncompilable:
        title = "Nonsense"

        def supports(self, target: object) -> bool:
            return True

        def toolchain(self) -> dict[str, str]:
            raise MissingTool("No compiler for Nonsense; install one.")

    registry.register("languages", "nonsense", Uncompilable)
    try:
        with pytest.raises(MissingTool, match="No compiler"):
            start("rms_norm", language="nonsense", proposer="manual", store=store)
    finally:
        del registry._added["languages"]["nonsense"]
    assert store.runs() == []


def test_a_started_run_keeps_all_that_decides_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-no-value")
    run = start(
        "rms_norm", proposer="chat", policy="greedy", max_candidates=3, max_seconds=60, seed=5, store=store, temperature=0.5, model="m",
        services=services(None, ScriptedProposer(improving)),
    )  # fmt: skip
    assert run.wait(PATIENCE)
    kept: RunConfig = run.state.config
    assert (kept.operator.text, kept.target, kept.language, kept.seed, kept.options["temperature"]) == ("rms_norm", "cpu", "cpp", 5, 0.5)
    assert run.events()[0].event.environment["torch"]
    assert run.state.title != "rms_norm"
