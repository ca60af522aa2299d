"""Outputs whose sizes depend on the data, and with it on the distribution."""

from __future__ import annotations

from pathlib import Path

from small_operator import FAST

from kernelevolve_lab.harness.judge import Judge
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.proposers.schedule.templates import TEMPLATES, read
from kernelevolve_lab.records import Candidate, Verdict
from kernelevolve_lab.targets import resolve


def test_outputs_may_be_larger_under_another_distribution(cache: Path) -> None:
    cpu = resolve("cpu")
    template = read(TEMPLATES / "cpp" / "batch_event_truncate.cpp.j2")
    source = template.render(template.space(cpu).default(), "batch_event_truncate", cpu)
    with Judge(ref_of("batch_event_truncate"), cpu, cache=cache, settings=FAST, seed=0) as judge:
        evaluation = judge.evaluate(Candidate(language="cpp", source=source), final=True)  # a final round checks every distribution
    assert evaluation.verdict is Verdict.CORRECT, evaluation.reasons
