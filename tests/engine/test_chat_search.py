"""Whole searches with the chat proposer: real store, real loop, real HTTP; only the judge and the endpoint are scripted."""

import itertools
import logging
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from scripted import CASE, OPERATOR, ScriptedJudge, services
from scripted_endpoint import Hang, Say, Status, serving

from kernelevolve_lab.engine.handle import RunHandle
from kernelevolve_lab.engine.services import Services
from kernelevolve_lab.knowledge.distil import learn
from kernelevolve_lab.proposers.chat import ChatSettings
from kernelevolve_lab.proposers.chat.context import LanguageNotes
from kernelevolve_lab.proposers.chat.proposer import ChatProposer
from kernelevolve_lab.proposers.chat.settings import read
from kernelevolve_lab.proposers.mixed import Mixed
from kernelevolve_lab.records import Budget, OperatorRef, RunConfig
from kernelevolve_lab.store import Store

KEY = "sk-secret-key-9f8e7d6c5b4a"
PATIENCE = 30.0
NOTES = LanguageNotes("C++", "cpp", "native", "a guide", "//")


@pytest.fixture(autouse=True)
def _own_home(monkeypatch, tmp_path):
    for name in ("OPENAI_BASE_URL", "KERNELEVOLVE_MODEL", "KERNELEVOLVE_KNOWLEDGE", "KERNELEVOLVE_PRICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("KERNELEVOLVE_HOME", str(tmp_path / "home"))


def source(number: int, speed: float) -> str:
    entry = 'extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) {}'
    return f'#include "kel.h"\n// speed={speed:.3f}\nstatic const int number = {number};\n{entry}\n'


def writer(say=lambda number: {}):
    """A step of the endpoint that writes candidate after candidate, each a little faster."""
    numbers = itertools.count(1)

    def step(body) -> Say:
        number = next(numbers)
        return Say(f"TITLE: kernel {number}\n\nPlan.\n\n```cpp\n{source(number, 1 + number / 20)}```\n", **say(number))

    return step


def chat_services(judge: ScriptedJudge | None = None, **settings) -> Services:
    """Services with a real chat proposer; everything else is scripted."""

    def make(config, operator, target):
        chosen: ChatSettings = read(config.options)
        return ChatProposer(operator, target, NOTES, chosen, config.seed)

    scripted = services(judge)
    return Services(
        load_operator=scripted.load_operator,
        resolve_target=scripted.resolve_target,
        measure_target=scripted.measure_target,
        make_judge=scripted.make_judge,
        make_proposer=make,
        make_policy=scripted.make_policy,
        learn=settings.get("learn", learn),
    )


def begin(store: Store, url: str, judge: ScriptedJudge | None = None, budget: dict | None = None, **options) -> RunHandle:
    config = RunConfig(
        operator=OperatorRef(kind="registered", name=OPERATOR.name, text=OPERATOR.name),
        target="cpu",
        language="cpp",
        proposer="chat",
        policy="greedy",
        budget=Budget(**({"candidates": 6} | (budget or {}))),
        seed=3,
        options={"model": "some-model", "base_url": url, "retries": 2, "silence_seconds": 2.0} | options,
    )
    handle = RunHandle(store, store.create_run(config, "Scripted"), chat_services(judge))
    handle._drive()
    return handle


def traces(folder: Path) -> str:
    """Everything that a run left on disk, as text."""
    return "\n".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def test_search_writes_judges_and_learns(store: Store, tmp_path):
    with serving(writer()) as endpoint:
        run = begin(store, endpoint.url)
        assert run.wait(PATIENCE) and run.status == "finished", run.state.log
    state = run.state
    assert state.judged == 6 and state.best.fitness > 1.05
    assert all(CASE.name in entry.prompt and entry.reply for entry in state.entries.values())
    assert state.input_tokens == 1000 * len(endpoint.requests)
    assert {lesson.text.split(":")[0] for lesson in state.lessons} >= {state.best.candidate.title}
    assert list((tmp_path / "home").rglob("lessons/*.md"))
    prompts = [endpoint.prompt(number) for number in range(len(endpoint.requests))]
    assert any("The kernel to improve" in prompt for prompt in prompts)


def test_key_is_nowhere_but_in_the_request(store: Store, tmp_path, caplog, capfd):
    """Not in the store, the lessons, the logs, the output, tracebacks, nor in what a server echoes."""
    caplog.set_level(logging.DEBUG)
    echo = f"// {KEY}\n"
    steps = [
        Status(500, f"trouble with {KEY}"),
        Say(f"TITLE: echo {KEY}\n\n{KEY}\n\n```cpp\n{source(1, 1.5)}{echo}```\n", piece=7),
        Say(f"nothing but {KEY}"),
        Status(429, f"slow down {KEY}", {"Retry-After": "0.1"}),
        Status(401, f"Incorrect API key provided: {KEY}"),
    ]
    with serving(*steps) as endpoint:
        run = begin(store, endpoint.url, concurrency=1)
        assert run.wait(PATIENCE)
    assert set(endpoint.keys) == {f"Bearer {KEY}"}, "it was sent"
    assert run.state.judged >= 1
    shown = [repr(run.state), repr(run.events()), caplog.text, *capfd.readouterr(), traces(tmp_path)]
    assert not [text[:80] for text in shown if KEY in text]
    assert "OPENAI_API_KEY" in run.state.reason


def test_key_is_not_in_the_traceback_of_a_defect(store: Store, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("a defect")

    monkeypatch.setattr("kernelevolve_lab.proposers.chat.proposer.reply.parse", broken)
    with serving(writer()) as endpoint:
        run = begin(store, endpoint.url)
        assert run.wait(PATIENCE)
    assert "a defect" in traces(tmp_path) and KEY not in traces(tmp_path)


def test_bad_key_ends_the_run_with_a_sentence(store: Store):
    with serving(Status(401, "no")) as endpoint:
        run = begin(store, endpoint.url)
        assert run.wait(PATIENCE)
    assert "check OPENAI_API_KEY" in run.state.reason and len(endpoint.requests) <= 4


def test_outage_ends_the_run_and_nothing_is_lost(store: Store):
    up = writer()
    steps = [lambda body: up(body)] * 4 + [Status(503, "down")]
    with serving(*steps) as endpoint:
        run = begin(store, endpoint.url, retries=0, concurrency=1)
        assert run.wait(PATIENCE)
    assert run.state.judged == 4 and "has trouble (503)" in run.state.reason


def test_faults_do_not_stop_the_search(store: Store):
    """Every second request goes wrong in another way; all candidates are judged all the same."""
    good = writer()
    faults = itertools.cycle(
        [Status(429, "slow"), Status(500, "oops"), Say("cut", cut_after=0), Say(""), Say("no code"), Say("```cpp\nint x;\n```"), Hang(3.0)]
    )
    turns = itertools.count()
    with serving(lambda body: next(faults) if next(turns) % 2 else good(body)) as endpoint:
        run = begin(store, endpoint.url, budget={"candidates": 8}, silence_seconds=0.3, concurrency=2)
        assert run.wait(60) and run.status == "finished", run.state.log
    assert run.state.judged == 8
    assert all(entry.evaluation.speedup for entry in run.state.entries.values())


@pytest.mark.parametrize("concurrency", [1, 4])
def test_cost_cap_holds_over_a_whole_search(store: Store, concurrency):
    prices = {"price_input": 1.0, "price_output": 10.0, "max_output_tokens": 500}
    with serving(writer()) as endpoint:
        run = begin(store, endpoint.url, budget={"candidates": 1000, "cost": 0.08}, concurrency=concurrency, **prices)
        assert run.wait(PATIENCE)
    assert 0 < run.state.cost <= 0.08
    assert run.state.cost == pytest.approx(0.003 * len(endpoint.requests))
    assert run.state.judged == len(run.state.entries) > 3


SCRIPT = """
    import os, sys, time
    sys.path[:0] = sys.argv[3:]
    from test_chat_search import *
    run = begin(Store.open(sys.argv[1]), sys.argv[2], ScriptedJudge(take=0.02), {"candidates": 40}, concurrency=8)
    print(run.id, flush=True)
    time.sleep(600)
"""


def test_killed_with_requests_in_flight_pays_for_no_reply_twice(store: Store):
    """Eight requests at once, every third needing a second turn; after a kill the run goes on from what was written down."""
    answered: list[int] = []
    numbers = itertools.count(1)

    def step(body) -> Say:
        number = next(numbers)
        answered.append(number)
        first_turn = len(body["messages"]) == 2
        if first_turn and number % 3 == 0:
            return Say(f"thinking aloud {number}", pause=0.01)
        return Say(f"TITLE: k{number}\n\n```cpp\n{source(number, 1 + number / 50)}```\n", pause=0.005)

    with serving(step) as endpoint:
        here = Path(__file__).parent
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), store.url, endpoint.url, str(here), str(here.parent / "support")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        run = RunHandle(store, process.stdout.readline().strip(), chat_services(ScriptedJudge(take=0.02)))
        ends = time.monotonic() + PATIENCE
        while run.state.judged < 8 and time.monotonic() < ends:
            time.sleep(0.01)
        process.kill()
        process.wait()
        before, asked = run.state, len(endpoint.requests)
        heard = [logged.event for logged in run.events() if logged.event.kind == "model_replied"]
        run.resume()
        assert run.wait(PATIENCE) and run.status == "finished", run.state.log
    assert before.judged >= 8
    state = run.state
    assert state.judged == 40
    for key, entry in before.entries.items():
        if entry.evaluation is not None:
            assert state.entries[key].evaluation.speedup == entry.evaluation.speedup or state.entries[key].evaluation.final
    after = [logged.event for logged in run.events() if logged.event.kind == "model_replied"]
    assert after[: len(heard)] == heard
    replies = [(event.index, len(event.messages)) for event in after]
    assert len(replies) == len(set(replies)), "no turn of a request was paid for twice"
    assert asked - len(heard) <= 8, "at most what was in flight is lost"
    assert state.input_tokens == 1000 * len(after)


def test_declared_constants_are_tuned_without_tokens(store: Store):
    """In a mixed run the model is asked once; the values of the constant that it declares are then tried without asking."""
    tile = "constexpr int TILE = 64;  // tune: TILE in {16, 32, 64, 128}\n"
    text = f"TITLE: tiles\n\nPlan.\n\n```cpp\n{tile}{source(1, 1.5)}```\n"
    numbers = itertools.count(2)

    def step(body) -> Say:
        assert "tune: TILE in {32, 64, 128}" in body["messages"][0]["content"], "the model is told how to declare"
        number = next(numbers)
        return Say(text if number == 2 else f"TITLE: k{number}\n\n```cpp\n{source(number, 1.1)}```\n")

    def make(config, operator, target):
        return Mixed(ChatProposer(operator, target, NOTES, read(config.options), config.seed), None, 0.5)

    with serving(step) as endpoint:
        services = replace(chat_services(), make_proposer=make)
        config = RunConfig(
            operator=OperatorRef(kind="registered", name=OPERATOR.name, text=OPERATOR.name),
            target="cpu",
            language="cpp",
            proposer="mixed",
            policy="greedy",
            budget=Budget(candidates=14),
            seed=3,
            options={"model": "some-model", "base_url": endpoint.url, "tunable": True, "concurrency": 1},
        )
        run = RunHandle(store, store.create_run(config, "Scripted"), services)
        run._drive()
        assert run.wait(PATIENCE) and run.status == "finished", run.state.log
    entries = list(run.state.entries.values())
    tuned = [entry for entry in entries if entry.candidate.proposer == "tuning"]
    assert {entry.candidate.knobs["TILE"] for entry in tuned} == {16, 32, 128}
    assert all(entry.cost == 0 and not entry.prompt and "TILE = 64" not in entry.source for entry in tuned)
    assert run.state.input_tokens == 1000 * (len(entries) - len(tuned)) == 1000 * len(endpoint.requests)


def test_no_key_in_a_saved_notebook(store: Store, tmp_path, monkeypatch):
    """The key is entered in the notebook's prompt, echoed by the server, and the notebook shows all that there is to show."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.delenv("OPENAI_API_KEY")
    here = Path(__file__).parent
    (tmp_path / "typed").write_text(KEY)
    with serving(Status(401, f"Incorrect API key provided: {KEY}")) as endpoint:
        cells = [
            f"import sys\nsys.path[:0] = {[str(here), str(here.parent / 'support')]}",
            "import getpass, kernelevolve_lab as kel\nfrom pathlib import Path\n"
            f"getpass.getpass = lambda prompt: Path({str(tmp_path / 'typed')!r}).read_text()\n"
            f"kel.use_key(base_url={endpoint.url!r})",
            "from test_chat_search import begin\nfrom kernelevolve_lab.store import Store\n"
            "from kernelevolve_lab.widgets.run_view import view_of\n"
            f"run = begin(Store.open({store.url!r}), {endpoint.url!r})\nview_of(run)",
            "await run\nprint(run.state, run.events(), run.state.reason)",
            "from kernelevolve_lab.proposers.chat import settings\n"
            f"print(settings._keys, settings.key_for({endpoint.url!r}))\nraise RuntimeError(settings._keys)",
        ]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        NotebookClient(notebook, timeout=120, allow_errors=True, store_widget_state=True).execute()
    saved = nbformat.writes(notebook)
    (tmp_path / "typed").unlink()
    assert set(endpoint.keys) == {f"Bearer {KEY}"}, saved[-3000:]
    assert "refused the key" in saved and "RuntimeError" in saved, saved[-3000:]
    assert KEY not in saved and KEY not in traces(tmp_path)
