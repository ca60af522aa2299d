"""Where the search beats best-of-N sampling at equal candidates, and where it does not.

    python tests/benchmarks/best_of_n.py [--operators a,b] [--seeds 5] [--candidates 40] [--cache FOLDER] [--seconds S] [--json FILE]

Each policy drives the schedule proposer through the real loop, and so does the policy `sample`: the same proposer's drafts, then settings
drawn at random, independent of each other. Every distinct candidate is measured once on this machine, by the real judge, whoever
proposes it first, and all policies and seeds use that measurement, so that they differ by what they chose and never by the judge's noise.
Whoever tries many different candidates is still likelier to meet one that was measured too well. So what counts is another measurement
than the one that made a candidate the best: each that leads at some time in some run is measured a second time, once, after that run.

Measurements are kept in the cache folder, two files for each operator: a benchmark that was stopped (Ctrl-C, or by `--seconds`) goes on
where it was, and one with a changed policy pays only for candidates that are new. They belong to the machine and the judge that made them.
"""

import argparse
import asyncio
import json
import math
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from kernelevolve_lab import paths
from kernelevolve_lab.engine.loop import SearchLoop
from kernelevolve_lab.engine.services import Services
from kernelevolve_lab.errors import LabError
from kernelevolve_lab.harness.judge import COMPILED, Judge
from kernelevolve_lab.languages.base import Build
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.records import Budget, Candidate, Evaluation, RunConfig, TargetSpec, Verdict
from kernelevolve_lab.store import Store
from kernelevolve_lab.targets import measure, resolve

SAMPLE = "sample"
POLICIES = (SAMPLE, "greedy", "mcts", "evolutionary")
OPERATORS = ("conv1d", "matmul", "optimized_fm", "rms_norm", "softmax")
PLACES = (5, 10, 20, 40)
RUNS_AT_ONCE = 2  # one builds while the other is judged
DRAWS = 10_000

Curves = dict[tuple[str, int], list[float]]
"""By policy and seed: the speedup, measured again, of what leads after 1, 2, … candidates."""


class Measured:
    """All measurements of one operator, first ones and second ones; asks the judge for those that are missing."""

    def __init__(self, operator: str, target: TargetSpec, folder: Path, ends: float) -> None:
        self.operator, self.target, self.new = operator, target, 0
        self._paths, self._ends = {False: folder / f"{operator}.jsonl", True: folder / f"{operator}.again.jsonl"}, ends
        self._lock = threading.Lock()
        self._judge: Judge | None = None
        self.known, self.again = (_read(path) for path in self._paths.values())

    def judge(self) -> Judge:
        """The operator's judge, opened when it is first needed."""
        with self._lock:
            if self._judge is None:
                self._judge = Judge(ref_of(self.operator), self.target)
                self._judge.open()
                self._judge.baselines(COMPILED)
            return self._judge

    def evaluate(self, candidate: Candidate, build: Build | None, again: bool = False) -> Evaluation:
        known = self.again if again else self.known
        judge = self.judge() if candidate.id not in known else None
        with self._lock:
            if candidate.id not in known:
                if time.monotonic() > self._ends:
                    raise LabError("The time is over.")
                found = judge.evaluate(candidate, build)
                if found.verdict is Verdict.INFRA_ERROR:
                    return found
                with self._paths[again].open("a", encoding="utf-8") as file:
                    file.write(found.model_dump_json() + "\n")
                known[candidate.id] = found
                self.new += not again
            return known[candidate.id]

    def stop(self) -> None:
        """Measure nothing new."""
        self._ends = -math.inf

    def close(self) -> None:
        if self._judge is not None:
            self._judge.close()


def _read(path: Path) -> dict[str, Evaluation]:
    lines = path.read_text("utf-8").splitlines() if path.exists() else ()
    return {found.candidate: found for found in map(Evaluation.model_validate_json, lines)}


class OnceJudge:
    """The judge of one run (see `engine.services.Judge`), which measures nothing twice."""

    baseline_note = "speedups were measured before"

    def __init__(self, measured: Measured) -> None:
        self._measured, self.target = measured, measured.target

    def open(self, progress: Callable[[str], None]) -> None: ...

    def baselines(self, name: str) -> tuple:
        return ()

    def build(self, candidate: Candidate) -> Build:
        known = candidate.id in self._measured.known
        return Build(Path("measured"), (), 0.0, cached=True) if known else self._measured.judge().build(candidate)

    def evaluate(
        self, candidate: Candidate, build: Build | None = None, *, final: bool = False, cancelled: Callable[[], bool] = lambda: False
    ) -> Evaluation:
        return self._measured.evaluate(candidate, build).model_copy(update={"final": final})

    def close(self) -> None: ...


def curve(store: Store, measured: Measured, policy: str, seed: int, candidates: int) -> list[float]:
    """Search, and return the speedup, measured again, of what leads after each candidate, in the order in which they were proposed. A space
    that has no more to offer keeps its best."""
    config = RunConfig(
        operator=ref_of(measured.operator), target="cpu", language="cpp", policy=policy, budget=Budget(candidates=candidates), seed=seed
    )
    services = replace(
        Services(),
        resolve_target=lambda name: measured.target,
        measure_target=lambda target, progress: target,
        make_judge=lambda config, target: OnceJudge(measured),
        learn=lambda state, operator: [],
        lookahead=0,
    )
    run = store.create_run(config, measured.operator)
    with store.drive(run) as lease:
        asyncio.run(SearchLoop(store, lease, services).run())
    state = store.state(run)
    if state.outcome != "finished" or any(entry.evaluation.verdict is Verdict.INFRA_ERROR for entry in state.entries.values()):
        raise LabError(f"{measured.operator}, {policy}, seed {seed}: {state.reason}")
    best, again, found = 0.0, 0.0, []
    for entry in state.entries.values():
        if entry.fitness > best:
            best, again = entry.fitness, measured.evaluate(entry.candidate, None, again=True).fitness
        found.append(again)
    return (found + [again] * candidates)[:candidates]


def search_all(store: Store, measured: Measured, policies: Sequence[str], seeds: int, candidates: int) -> Curves:
    """All runs of one operator that could be finished."""
    curves: Curves = {}

    def one(policy: str, seed: int) -> None:
        before = measured.new
        try:
            curves[policy, seed] = curve(store, measured, policy, seed, candidates)
        except LabError as error:
            print(f"  given up: {error}", file=sys.stderr, flush=True)
            return
        words = (
            f"{measured.operator}, {policy}, seed {seed}: {curves[policy, seed][-1]:.2f}x; {measured.new - before} new candidates measured"
        )
        print(f"  {words} meanwhile", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
        waiting = [pool.submit(one, policy, seed) for seed in range(seeds) for policy in policies]
        try:
            for done in waiting:
                done.result()
        except KeyboardInterrupt:
            measured.stop()
            pool.shutdown(cancel_futures=True)
    return curves


def area(found: Sequence[float]) -> float:
    """The mean of the best speedup so far, over all candidates."""
    return statistics.fmean(found)


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def paired(ones: Iterable[float], others: Iterable[float]) -> tuple[list[float], str]:
    """The logarithms of the ratios, pair by pair, and in words: their geometric mean with a bootstrap 95 % interval, and who was ahead."""
    logs = [math.log(one / other) for one, other in zip(ones, others, strict=True)]
    rng = random.Random(0)
    means = sorted(statistics.fmean(rng.choices(logs, k=len(logs))) for _ in range(DRAWS))
    low, high = means[int(0.025 * DRAWS)], means[int(0.975 * DRAWS)]
    ahead, behind = sum(value > 1e-9 for value in logs), sum(value < -1e-9 for value in logs)
    mean = math.exp(statistics.fmean(logs))
    return logs, f"{mean:.3f} ({math.exp(low):.3f} to {math.exp(high):.3f}), {ahead}:{behind}"


def table(title: str, curves: Curves, policies: Sequence[str], candidates: int) -> None:
    """One operator's lines. A seed counts where every policy finished it."""
    seeds = sorted({seed for _, seed in curves if all((policy, seed) in curves for policy in policies)})
    if not seeds:
        print(f"\n{title}: no seed was finished by all policies.")
        return
    places = [place for place in PLACES if place <= candidates]
    print(f"\n{title}, {len(seeds)} seeds\n")
    print(f"| policy | {' | '.join(f'best after {place}' for place in places)} | area | area over sample's | last best over sample's |")
    print("| --- " * (len(places) + 4) + "|")
    for policy in policies:
        found = [curves[policy, seed] for seed in seeds]
        cells = [spread([one[place - 1] for one in found]) for place in places] + [spread([area(one) for one in found])]
        for measure_of in (area, lambda one: one[-1]):
            sampled = [measure_of(curves[SAMPLE, seed]) for seed in seeds]
            cells.append(paired([measure_of(one) for one in found], sampled)[1] if policy != SAMPLE else "")
        print(f"| {policy} | {' | '.join(cells)} |")


def summary(all_curves: dict[str, Curves], policies: Sequence[str]) -> None:
    """Over all operators and seeds."""
    print("\nOver all operators and seeds, against sampling with the same seed:\n")
    for policy in policies:
        pairs = [
            (curves[policy, seed], curves[SAMPLE, seed])
            for curves in all_curves.values()
            for name, seed in sorted(curves)
            if name == policy and (SAMPLE, seed) in curves
        ]
        if policy != SAMPLE and pairs:
            areas = paired([area(one) for one, _ in pairs], [area(other) for _, other in pairs])[1]
            lasts = paired([one[-1] for one, _ in pairs], [other[-1] for _, other in pairs])[1]
            print(f"- {policy}: area {areas}; last best {lasts} ({len(pairs)} pairs)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operators", default=",".join(OPERATORS))
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--cache", type=Path, default=paths.cache_dir() / "best_of_n")
    parser.add_argument("--seconds", type=float, default=math.inf, help="measure nothing new after so long")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    policies = list(dict.fromkeys((SAMPLE, *options.policies.split(","))))
    options.cache.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + options.seconds
    target = measure(resolve("cpu"), paths.cache_dir())
    all_curves: dict[str, Curves] = {}
    print(f"On {target.title}, {time.strftime('%Y-%m-%d')}. Ratios: geometric mean over seeds, its 95 % interval, seeds ahead:behind.")
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(f"sqlite:///{folder}/lab.db")
        for operator in options.operators.split(","):
            measured = Measured(operator, target, options.cache, ends)
            try:
                found = all_curves[operator] = search_all(store, measured, policies, options.seeds, options.candidates)
            finally:
                measured.close()
            title = f"{operator}: {len(measured.known)} candidates measured ({measured.new} now), {len(measured.again)} of them twice"
            table(title, found, policies, options.candidates)
        store.close()
    summary(all_curves, policies)
    if options.json:
        rows = [
            {"operator": operator, "policy": policy, "seed": seed, "best": [round(value, 4) for value in found]}
            for operator, curves in all_curves.items()
            for (policy, seed), found in sorted(curves.items())
        ]
        options.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    os.nice(5)
    main()
