"""A judge and a proposer whose answers are written in the candidates, so that tests of the loop decide what happens.

A source is a line of words: `speed=1.7` (the speedup), `verdict=incorrect`, `build=fails`, `judge=raises`, `take=0.5` (seconds to judge),
`final=1.2` (the speedup when measured again), `n=12` (anything, to tell sources apart).
"""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

from kernelevolve_lab.engine.handle import RunHandle
from kernelevolve_lab.engine.policies.greedy import Greedy
from kernelevolve_lab.engine.services import Services
from kernelevolve_lab.errors import LabError
from kernelevolve_lab.languages.base import Build
from kernelevolve_lab.operators.base import Operator, Work
from kernelevolve_lab.proposers.base import Proposal, ProposalRequest
from kernelevolve_lab.records import (
    Candidate,
    Case,
    Evaluation,
    Evidence,
    OperatorRef,
    Ratio,
    RunConfig,
    TargetSpec,
    Timing,
    Verdict,
)
from kernelevolve_lab.records.events import BaselineCase
from kernelevolve_lab.records.run import Budget
from kernelevolve_lab.store import Store

PATIENCE = 30
TARGET = TargetSpec(name="cpu", title="Scripted CPU", vendor="cpu", arch="none", units=2)
CASE = Case(name="only", sizes={"n": 8})
OPERATOR = Operator(
    name="scripted",
    title="Scripted",
    family="other",
    semantics="nothing",
    input_names=("x",),
    reference=lambda x: x,
    make_inputs=lambda case, generator: (),
    cases={"laptop": (CASE,), "gpu": (CASE,)},
    work=lambda case: Work(1.0, 1.0),
    work_formula="1",
    distributions=("normal",),
)


def words(source: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in source.split() if "=" in word)


class ScriptedJudge:
    """Finds what the source says, after the time that it says."""

    baseline_note = ""

    def __init__(self, take: float = 0.0) -> None:
        self.take = take
        self.target = TARGET
        self.judged: list[str] = []
        self.finals: list[str] = []
        self.opened = self.closed = False
        self.measuring = threading.Lock()
        self.raises = 0

    def open(self, progress: Callable[[str], None]) -> None:
        progress("opening")
        self.opened = True

    def baselines(self, name: str) -> tuple[BaselineCase, ...]:
        return (BaselineCase(case=CASE, name=name, timing=Timing(median=1.0, low=0.9, high=1.1, samples=9)),)

    def build(self, candidate: Candidate) -> Build:
        failed = words(candidate.source).get("build") == "fails"
        return Build(None if failed else Path("/nowhere"), (), 0.0)

    def evaluate(
        self, candidate: Candidate, build: Build | None = None, *, final: bool = False, cancelled: Callable[[], bool] = lambda: False
    ) -> Evaluation:
        assert self.measuring.acquire(blocking=False), "two evaluations at once"
        try:
            said = words(candidate.source)
            (self.finals if final else self.judged).append(candidate.id)
            ends = time.monotonic() + float(said.get("take", self.take))
            while time.monotonic() < ends and not cancelled():
                time.sleep(0.002)
            common = {"candidate": candidate.id, "target": "cpu", "language": candidate.language, "evidence": Evidence.MEASURED}
            common["final"] = final
            if cancelled():
                return Evaluation(verdict=Verdict.INFRA_ERROR, reasons=("cancelled",), **common)
            if said.get("judge") == "raises":
                self.raises += 1
                raise LabError("The judge was told to fail.")
            if build is not None and not build.ok:
                return Evaluation(verdict=Verdict.BUILD_FAILED, reasons=("it does not build",), **common)
            verdict = Verdict(said.get("verdict", "correct"))
            if verdict is not Verdict.CORRECT:
                return Evaluation(verdict=verdict, reasons=("it was written so",), **common)
            speed = float(said.get("final", said["speed"]) if final else said["speed"])
            ratio = Ratio(value=speed, low=speed * 0.99, high=speed * 1.01, baseline="torch.compile")
            return Evaluation(verdict=verdict, speedup=ratio, speedups=(ratio,), **common)
        finally:
            self.measuring.release()

    def close(self) -> None:
        self.closed = True


class ScriptedProposer:
    """Calls a function `request -> str | Proposal | Exception` for each request; by default every candidate is a bit faster than its
    parent."""

    name = "scripted"

    def __init__(self, script: Callable[[ProposalRequest], object] | None = None, concurrency: int = 1, take: float = 0.0) -> None:
        self.script = script or improving
        self.concurrency = concurrency
        self.take = take
        self.requests: list[ProposalRequest] = []
        self.closed = False

    async def propose(self, request: ProposalRequest) -> Proposal:
        self.requests.append(request)
        await asyncio.sleep(self.take)
        said = self.script(request)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Proposal):
            return said
        return Proposal(Candidate(language="cpp", source=said, parents=request.parents, proposer=self.name))

    async def close(self) -> None:
        self.closed = True


def improving(request: ProposalRequest) -> str:
    """Speeds that depend on the request's own seed and its parents alone."""
    parent = max((request.state.entries[p].fitness for p in request.parents), default=1.0)
    return f"speed={parent * (0.9 + (request.seed % 1000) / 4000):.4f} n={request.index}"


def services(judge: ScriptedJudge | None = None, proposer: ScriptedProposer | None = None, policy: object = None) -> Services:
    judge, proposer = judge or ScriptedJudge(), proposer or ScriptedProposer()
    return Services(
        load_operator=lambda ref: OPERATOR,
        resolve_target=lambda name: TARGET,
        measure_target=lambda target, progress: target,
        make_judge=lambda config, target: judge,
        make_proposer=lambda config, operator, target: proposer,
        make_policy=lambda config: policy or Greedy(),
        learn=lambda state, operator: [],
    )


def config(**budget: object) -> RunConfig:
    seed = budget.pop("seed", 7)
    return RunConfig(
        operator=OperatorRef(kind="registered", name="scripted", text="scripted"),
        target="cpu",
        language="cpp",
        proposer="scripted",
        policy="greedy",
        budget=Budget(**{"candidates": 12, **budget}),
        seed=seed,
    )


def begin(
    store: Store, judge: ScriptedJudge | None = None, proposer: ScriptedProposer | None = None, *, policy: object = None, **budget: object
) -> RunHandle:
    """Start a scripted run; it goes on in its thread."""
    run = store.create_run(config(**budget), "Scripted")
    handle = RunHandle(store, run, services(judge, proposer, policy))
    handle._drive()
    return handle


def until(true: Callable[[], object]) -> object:
    """Wait for something to become true; return it."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if found := true():
            return found
        time.sleep(0.01)
    raise AssertionError("it never happened")


def kinds(handle: RunHandle) -> list[str]:
    return [item.event.kind for item in handle.events()]
