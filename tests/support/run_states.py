"""States of runs to compose prompts from, folded from events as a store would hold them."""

from __future__ import annotations

from kernelevolve_lab.proposers.base import ProposalRequest
from kernelevolve_lab.records import (
    Budget,
    Candidate,
    CaseResult,
    Ceiling,
    Diagnosis,
    Diagnostic,
    ErrorStats,
    Evaluation,
    Evidence,
    Finding,
    OperatorRef,
    Ratio,
    RooflinePoint,
    RunConfig,
    TargetSpec,
    Timing,
    Verdict,
)
from kernelevolve_lab.records.events import CandidateProposed, EvaluationFinished, Logged, RunStarted, SteeringAccepted
from kernelevolve_lab.records.fold import RunFold
from kernelevolve_lab.records.run_state import RunState

TARGET = TargetSpec(
    name="cpu",
    title="A two-core test machine",
    vendor="cpu",
    arch="x86-64-v4",
    units=2,
    simd_bits=512,
    features=("avx2", "avx512f"),
    ceilings=(Ceiling(kind="bandwidth", name="dram", value=2.0e10, evidence=Evidence.MEASURED, source="a test"),),
    present=True,
)

SOURCE = """#include "kel.h"
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream stream) {
    static const int number = %d;
}
"""


def source(number: int = 0) -> str:
    return SOURCE % number


def candidate(number: int, parents: tuple[str, ...] = (), title: str = "", text: str = "", proposer: str = "chat") -> Candidate:
    return Candidate(language="cpp", source=text or source(number), parents=parents, title=title or f"design {number}", proposer=proposer)


def correct(of: Candidate, speedup: float, operator, bound: str = "memory") -> Evaluation:
    """A correct evaluation with one visible and one held-out case, as the judge writes them."""
    ratio = Ratio(value=speedup, low=speedup * 0.97, high=speedup * 1.03, baseline="torch.compile")
    timing = Timing(median=1e-3 / speedup, low=0.9e-3 / speedup, high=1.1e-3 / speedup, samples=30)
    results = []
    for case in operator.cases["laptop"]:
        results.append(
            CaseResult(
                case=case,
                verdict=Verdict.CORRECT,
                error=ErrorStats(candidate=1e-7, reference=1e-7, gate=2e-6),
                times={"candidate": timing, "torch.compile": Timing(median=1e-3, low=9e-4, high=1.1e-3, samples=30)},
                speedups=(ratio,),
                roofline=RooflinePoint(intensity=0.5, flops_per_second=8e9, bytes_per_second=1.6e10, fraction=0.42, bound_by="dram"),
            )
        )
    diagnosis = Diagnosis(
        bound=bound, summary=f"{bound}-bound at 42 % of DRAM bandwidth", findings=(Finding(what="3 of 4 passes read the row again"),)
    )
    return Evaluation(
        candidate=of.id,
        target="cpu",
        language="cpp",
        verdict=Verdict.CORRECT,
        evidence=Evidence.MEASURED,
        speedup=ratio,
        speedups=(ratio,),
        cases=tuple(results),
        diagnosis=diagnosis,
        metrics={"vector_bits": 256, "spills": 0},
    )


def broken(of: Candidate, message: str = "'foo' was not declared in this scope") -> Evaluation:
    diagnostic = Diagnostic(severity="error", message=message, line=3, column=5, source_line="    foo();")
    return Evaluation(
        candidate=of.id,
        target="cpu",
        language="cpp",
        verdict=Verdict.BUILD_FAILED,
        evidence=Evidence.COMPILED,
        reasons=("the compiler reported 1 error",),
        diagnostics=(diagnostic,),
    )


def state_of(*events, cost: float | None = None, candidates: int = 100) -> RunState:
    """The state after these events; candidates and evaluations may be given bare."""
    config = RunConfig(
        operator=OperatorRef(kind="registered", name="rms_norm", text="rms_norm"),
        target="cpu",
        language="cpp",
        proposer="chat",
        budget=Budget(candidates=candidates, cost=cost),
    )
    wrapped = [RunStarted(config=config, title="RMSNorm")]
    for event in events:
        if isinstance(event, Candidate):
            event = CandidateProposed(candidate=event)
        elif isinstance(event, Evaluation):
            event = EvaluationFinished(evaluation=event)
        elif hasattr(event, "command"):
            event = SteeringAccepted(command=event)
        wrapped.append(event)
    return RunFold(Logged(run="r1", seq=i, time=1000.0 + i, event=event) for i, event in enumerate(wrapped, 1)).state


def request(operator, state: RunState | None = None, **changes) -> ProposalRequest:
    values = {"operator": operator, "target": TARGET, "language": "cpp", "state": state or state_of(), "index": 0, "seed": 1}
    return ProposalRequest(**values | changes)
