"""A judge of the small operator that stays open for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_operator import FAST, SMALL

from kernelevolve_lab.harness.judge import Judge
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.records import Candidate, Evaluation
from kernelevolve_lab.targets import resolve


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def judge(cache: Path) -> Iterator[Judge]:
    with Judge(ref_of(SMALL), resolve("cpu"), cache=cache, settings=FAST, seed=0) as opened:
        yield opened


@pytest.fixture(scope="session")
def evaluate(judge: Judge) -> Callable[..., Evaluation]:
    def judged(source: str, **options) -> Evaluation:
        return judge.evaluate(Candidate(language="cpp", source=source), **options)

    return judged
