"""The loop, with a judge and a proposer that do what the test says, and a real store."""

import asyncio
import re
import time
from collections.abc import Callable

import pytest
from scripted import PATIENCE, ScriptedJudge, ScriptedProposer, begin, config, kinds, services, until

from kernelevolve_lab.engine.loop import SearchLoop
from kernelevolve_lab.errors import LabError, MissingTool, StoreError
from kernelevolve_lab.proposers.base import Proposal, ProposalRequest
from kernelevolve_lab.records import Candidate, Verdict, events
from kernelevolve_lab.store import Store


def test_a_search_judges_exactly_as_many_as_asked_and_measures_its_leaders_again(store: Store) -> None:
    judge, proposer = ScriptedJudge(), ScriptedProposer()
    run = begin(store, judge, proposer, candidates=12)
    assert run.wait(PATIENCE)
    state = run.state
    assert (run.status, state.judged, len(state.entries), len(proposer.requests)) == ("finished", 12, 12, 12)
    assert len(judge.judged) == 12 and len(set(judge.judged)) == 12
    first, *others = sorted(state.entries.values(), key=lambda e: -e.fitness)[:3]
    level = [entry for entry in others if entry.evaluation.speedup.high >= first.evaluation.speedup.low]
    assert judge.finals == [entry.id for entry in (first, *level)]
    assert run.best.evaluation.final
    assert run.best.source == max(state.entries.values(), key=lambda e: e.fitness).source
    assert judge.opened and judge.closed and proposer.closed
    assert not store.is_driven(run.id)
    assert state.target.title == "Scripted CPU"
    assert {baseline.name for baseline in state.baselines} == {"eager", "torch.compile"}
    assert state.reason == "12 candidates were judged."


def test_every_step_is_in_the_log_before_the_next_depends_on_it(store: Store) -> None:
    run = begin(store, candidates=5)
    run.wait(PATIENCE)
    seen = kinds(run)
    assert seen[0] == "run_started" and seen[-1] == "run_ended"
    for entry in run.state.entries.values():
        order = [item.event.kind for item in run.events() if entry.id in repr(item.event) and item.event.kind != "run_started"]
        assert order[:3] == ["candidate_proposed", "evaluation_started", "evaluation_finished"]
    assert sorted(item.event.index for item in run.events() if item.event.kind == "candidate_proposed") == list(range(5))


def test_drafts_come_first_then_the_policys_parents(store: Store) -> None:
    run = begin(store, candidates=20)
    run.wait(PATIENCE)
    generations = [entry.generation for entry in run.state.entries.values()]
    assert generations[:4] == [0, 0, 0, 0]
    assert all(generation > 0 for generation in generations[4:])
    for entry in run.state.entries.values():
        assert all(run.state.entries[parent].generation < entry.generation for parent in entry.candidate.parents)


def test_proposals_and_builds_overlap_the_evaluation(store: Store) -> None:
    judge, proposer = ScriptedJudge(), ScriptedProposer(lambda request: f"speed=1 n={request.index} take={30 if request.index == 0 else 0}")
    run = begin(store, judge, proposer, candidates=50)
    until(lambda: len(run.state.entries) >= 3 and run.state.judged == 0)
    time.sleep(0.3)
    assert 3 <= len(run.state.entries) <= 6  # no further ahead than the queue is deep
    run.stop()
    assert run.wait(PATIENCE)


def test_several_requests_are_in_flight_where_the_proposer_can(store: Store) -> None:
    flying = most = 0

    class Counting(ScriptedProposer):
        async def propose(self, request: ProposalRequest) -> Proposal:
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(0.05)
            flying -= 1
            return await super().propose(request)

    proposer = Counting(lambda request: f"speed=1 n={request.index}", concurrency=4)
    run = begin(store, None, proposer, candidates=12)
    run.wait(PATIENCE)
    assert most == 4
    assert run.state.judged == 12 and len(proposer.requests) == 12


def test_without_lookahead_the_same_seed_takes_the_same_course(store: Store) -> None:
    def course(seed: int) -> list[tuple]:
        run = store.create_run(config(candidates=15, seed=seed), "Scripted")
        with store.drive(run) as lease:
            asyncio.run(SearchLoop(store, lease, services(), lookahead=0).run())
        told = [item.event for item in store.read(run)]
        return [event.model_dump(exclude={"seconds"}) for event in told if event.kind in ("candidate_proposed", "evaluation_finished")]

    assert course(3) == course(3)
    assert course(3) != course(4)


# Budgets


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"candidates": None, "stall": 6}, "6 candidates in a row brought no new best"),
        ({"candidates": None, "fitness": 1.2}, "The aim is reached"),
        ({"candidates": None, "seconds": 1.0}, "The time of 1 s is used up"),
        ({"candidates": None, "cost": 0.95}, r"The money is used up: \$1.0000 of \$0.9500"),
        ({"candidates": 3, "seconds": 1000.0, "fitness": 99.0}, "3 candidates were judged"),
    ],
)
def test_a_run_ends_when_its_budget_is_used_up(store: Store, bounds: dict, reason: str) -> None:
    def script(request: ProposalRequest) -> Proposal:
        speed = 1.0 + 0.05 * min(request.index, 5)
        return Proposal(Candidate(language="cpp", source=f"speed={speed} n={request.index} take=0.01", parents=request.parents), cost=0.1)

    run = begin(store, None, ScriptedProposer(script), **bounds)
    assert run.wait(PATIENCE)
    with pytest.raises(LabError, match="used up its budget"):
        run.resume()
    assert run.status == "finished"
    assert re.search(reason, run.state.reason)
    assert run.best.evaluation.final
    if "cost" in bounds:
        assert run.state.judged == len(run.state.entries) == 10  # what was paid for is judged


def test_an_aim_that_the_final_measurement_takes_back_is_pursued_further(store: Store) -> None:
    def script(request: ProposalRequest) -> str:
        return f"speed={3 if request.index == 4 else 1} final=1 n={request.index}" if request.index < 9 else f"speed=4 n={request.index}"

    judge = ScriptedJudge()
    run = begin(store, judge, ScriptedProposer(script), candidates=50, fitness=2.0)
    assert run.wait(PATIENCE)
    assert run.best.fitness == 4.0 and run.best.evaluation.final
    assert len(judge.finals) >= 2


def test_luck_does_not_win(store: Store) -> None:
    """All leaders owe their lead to luck but the fifth: measuring again goes down the list until who leads has been measured twice."""
    speeds = ["speed=9 final=1", "speed=8 final=1", "speed=7 final=1", "speed=6 final=1", "speed=5 final=5", "speed=4 final=4"]
    judge = ScriptedJudge()
    run = begin(store, judge, ScriptedProposer(lambda request: f"{speeds[request.index]} n={request.index}"), candidates=6)
    run.wait(PATIENCE)
    assert run.best.source.startswith("speed=5")
    assert len(judge.finals) == 5


def test_only_who_may_be_the_best_is_measured_again(store: Store) -> None:
    speeds = ["speed=2", "speed=4", "speed=3.98", "speed=3"]  # the scripted intervals are 1 % wide to either side
    judge = ScriptedJudge()
    run = begin(store, judge, ScriptedProposer(lambda request: f"{speeds[request.index]} n={request.index}"), candidates=4)
    run.wait(PATIENCE)
    finals = [run.state.entries[identity].source for identity in judge.finals]
    assert finals == ["speed=4 n=1", "speed=3.98 n=2"]


# Things that go wrong


def test_a_duplicate_costs_a_request_and_is_not_judged_again(store: Store) -> None:
    judge = ScriptedJudge()
    proposer = ScriptedProposer(lambda request: f"speed=1 n={request.index // 2}")
    run = begin(store, judge, proposer, candidates=4)
    run.wait(PATIENCE)
    assert len(judge.judged) == 4
    assert run.state.failed_proposals == 3
    assert "is in this run already" in run.state.failures[-1]
    assert proposer.requests[-1].state.failures  # and the proposer is told


def test_a_proposer_that_only_repeats_itself_ends_the_run(store: Store) -> None:
    run = begin(store, None, ScriptedProposer(lambda request: "speed=2"), candidates=40)
    assert run.wait(PATIENCE)
    assert (run.status, run.state.judged) == ("finished", 1)
    assert "nothing new 25 times in a row" in run.state.reason
    assert run.best.evaluation.final


def test_an_exhausted_proposer_ends_the_run_when_all_is_judged(store: Store) -> None:
    def script(request: ProposalRequest) -> object:
        return f"speed=1 n={request.index}" if request.index < 7 else Proposal(None, reason="The space is empty.", exhausted=True)

    run = begin(store, None, ScriptedProposer(script), candidates=40)
    run.wait(PATIENCE)
    assert run.state.judged == 7
    assert run.state.reason == "The proposer scripted has nothing more to offer. The space is empty."


def test_a_proposer_that_fails_now_and_then_is_asked_again(store: Store) -> None:
    run = begin(store, None, ScriptedProposer(lambda r: RuntimeError("hiccup") if r.index % 3 else f"speed=1 n={r.index}"), candidates=4)
    run.wait(PATIENCE)
    assert (run.status, run.state.judged) == ("finished", 4)
    assert "RuntimeError: hiccup" in run.state.failures


def test_a_proposer_that_keeps_failing_ends_the_run_with_its_sentence(store: Store) -> None:
    run = begin(store, None, ScriptedProposer(lambda request: LabError("The key was refused.")), candidates=4)
    run.wait(PATIENCE)
    assert run.state.reason == "The proposer scripted failed 5 times in a row: The key was refused."
    assert run.state.failed_proposals == 5


def test_bad_candidates_are_verdicts_not_errors(store: Store) -> None:
    outcomes = ["build=fails", "verdict=incorrect", "verdict=crashed", "verdict=timed_out", "verdict=cheating", "speed=1.5"]
    run = begin(store, None, ScriptedProposer(lambda request: f"{outcomes[request.index]} n={request.index}"), candidates=6)
    run.wait(PATIENCE)
    verdicts = [entry.evaluation.verdict for entry in run.state.entries.values()]
    assert verdicts == [
        Verdict.BUILD_FAILED, Verdict.INCORRECT, Verdict.CRASHED, Verdict.TIMED_OUT, Verdict.CHEATING, Verdict.CORRECT,
    ]  # fmt: skip


def test_trouble_of_the_judge_is_tried_once_more_then_recorded(store: Store) -> None:
    judge = ScriptedJudge()
    run = begin(store, judge, ScriptedProposer(lambda r: f"speed=1 n={r.index} {'judge=raises' if r.index == 1 else ''}"), candidates=4)
    run.wait(PATIENCE)
    assert (run.status, judge.raises) == ("finished", 2)
    failed = list(run.state.entries.values())[1].evaluation
    assert (failed.verdict, failed.reasons) == (Verdict.INFRA_ERROR, ("The judge was told to fail.",))


def test_a_judge_that_keeps_failing_ends_the_run(store: Store) -> None:
    run = begin(store, None, ScriptedProposer(lambda request: f"judge=raises n={request.index}"), candidates=40)
    run.wait(PATIENCE)
    assert run.status == "failed"
    assert run.state.reason == "The judge failed on 3 candidates in a row: The judge was told to fail."


def test_a_judge_that_cannot_start_ends_the_run_with_its_sentence(store: Store) -> None:
    class Broken(ScriptedJudge):
        def open(self, progress: Callable[[str], None]) -> None:
            raise MissingTool("The sandbox cannot be had; install bubblewrap.")

    judge = Broken()
    run = begin(store, judge)
    assert run.wait(PATIENCE)
    assert (run.status, run.state.reason) == ("failed", "The sandbox cannot be had; install bubblewrap.")
    assert judge.closed


def test_a_proposer_that_fails_to_close_is_a_note(store: Store) -> None:
    class Clinging(ScriptedProposer):
        async def close(self) -> None:
            raise OSError("connection lost")

    run = begin(store, None, Clinging(), candidates=3)
    assert run.wait(PATIENCE)
    assert run.status == "finished"
    assert "The proposer could not be closed: OSError: connection lost" in [line.text for line in run.state.log]


def test_a_defect_ends_the_run_and_says_so(store: Store) -> None:
    class Defective:
        name = "defective"

        def choose(self, *args: object) -> None:
            raise ZeroDivisionError("oops")

    run = begin(store, policy=Defective())
    assert run.wait(PATIENCE)
    assert (run.status, run.state.reason) == ("failed", "Internal error: ZeroDivisionError: oops")
    assert any("Traceback" in line.text and line.level == "error" for line in run.state.log)


def test_a_baseline_that_does_not_compile_is_a_note(store: Store) -> None:
    class Eager(ScriptedJudge):
        baseline_note = "graph break"

        def baselines(self, name: str) -> tuple:
            return super().baselines(name) if name == "eager" else ()

    run = begin(store, Eager(), candidates=3)
    run.wait(PATIENCE)
    assert run.status == "finished"
    assert any(line.text == "torch.compile is no baseline in this run: graph break" for line in run.state.log)


def test_a_store_that_fails_in_mid_run_is_told_to_whoever_waits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(store, ScriptedJudge(take=0.05), candidates=1000)
    until(lambda: run.state.judged)
    with monkeypatch.context() as patch:
        patch.setattr(store, "append_all", lambda *args: (_ for _ in ()).throw(StoreError("The disk is full.")))
        with pytest.raises(StoreError, match="The disk is full"):
            run.wait(PATIENCE)
    assert run.status == "interrupted"
    run.resume()
    run.stop()
    assert run.wait(PATIENCE) and run.status == "stopped"


def test_the_judges_first_words_are_in_the_log(store: Store) -> None:
    run = begin(store, candidates=1)
    run.wait(PATIENCE)
    phases = [item.event.phase for item in run.events() if isinstance(item.event, events.PhaseChanged)]
    assert phases[:3] == ["starting the judge", "timing PyTorch", "measuring the machine"]
    assert "opening" in [line.text for line in run.state.log]
