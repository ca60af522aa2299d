"""A scripted, plainly synthetic run: plausible events without a search, a compiler or a clock. Nothing here was measured."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from kernelevolve_lab.records import (
    Budget,
    CacheLevel,
    Candidate,
    Case,
    CaseResult,
    Ceiling,
    Diagnosis,
    Diagnostic,
    ErrorStats,
    Evaluation,
    Evidence,
    Finding,
    Flag,
    OperatorRef,
    Ratio,
    RooflinePoint,
    RunConfig,
    TargetSpec,
    TensorSpec,
    Timing,
    Verdict,
)
from kernelevolve_lab.records.events import (
    BaselineCase,
    BaselinesMeasured,
    CandidateProposed,
    EvaluationFinished,
    EvaluationStarted,
    Event,
    Logged,
    Noted,
    PhaseChanged,
    ProposalFailed,
    RunEnded,
    RunStarted,
    TargetMeasured,
)
from kernelevolve_lab.records.fold import RunFold

RUN = "synthetic-0001"
START = 1_800_000_000.0
SOURCE = "written by tests/widgets/synthetic_stream.py, not measured"

CASES = tuple(
    Case(name=f"{rows}x{cols}", sizes={"rows": rows, "cols": cols}, dtype="float32", held_out=held)
    for rows, cols, held in ((256, 512, False), (1024, 1024, False), (4096, 1024, False), (300, 777, True))
)
EAGER = {"256x512": 61e-6, "1024x1024": 1.31e-3, "4096x1024": 5.3e-3, "300x777": 95e-6}
COMPILED = {"256x512": 44e-6, "1024x1024": 0.92e-3, "4096x1024": 3.62e-3, "300x777": 71e-6}

TARGET = TargetSpec(
    name="cpu",
    title="Synthetic CPU (4 cores, AVX2)",
    vendor="cpu",
    arch="x86-64-v3",
    units=4,
    simd_bits=256,
    features=("avx2", "fma"),
    caches=(CacheLevel(level=1, bytes=32768), CacheLevel(level=2, bytes=1 << 20), CacheLevel(level=3, bytes=32 << 20, shared_by=4)),
    ceilings=tuple(
        Ceiling(kind=kind, name=name, value=value, threads=threads, evidence=Evidence.MEASURED, source=SOURCE)
        for kind, name, value, threads in (
            ("bandwidth", "l1", 1.1e12, 0),
            ("bandwidth", "l2", 4.8e11, 0),
            ("bandwidth", "l3", 1.6e11, 0),
            ("bandwidth", "dram", 4.1e10, 0),
            ("bandwidth", "dram", 1.3e10, 1),
            ("compute", "float32", 3.9e11, 0),
            ("compute", "float32", 1.0e11, 1),
            ("compute", "float64", 1.9e11, 0),
        )
    ),
    present=True,
)

KERNEL = """#include "kel.h"
#include <cmath>

// y = x * rsqrt(mean(x^2) + eps) * w, one row at a time.
extern "C" void kernel(const kel::Tensor* inputs, kel::Tensor* outputs, kel::Stream) {{
    const float* x = inputs[0].as<float>();
    const float* w = inputs[1].as<float>();
    float* y = outputs[0].as<float>();
    const long rows = inputs[0].shape[0], cols = inputs[0].shape[1];

    #pragma omp parallel for schedule(static, {chunk})
    for (long r = 0; r < rows; ++r) {{
        float acc[{unroll}] = {{}};
        for (long c = 0; c < cols; c += {unroll}) {{
            #pragma omp simd
            for (int k = 0; k < {unroll}; ++k) {{
                acc[k] += x[r * cols + c + k] * x[r * cols + c + k];
            }}
        }}
        float sum = 0.0f;
        for (int k = 0; k < {unroll}; ++k) sum += acc[k];
        const float scale = 1.0f / std::sqrt(sum / cols + 1e-6f);
        for (long c = 0; c < cols; ++c) {{
            y[r * cols + c] = x[r * cols + c] * scale * w[c];{extra}
        }}
    }}
}}
"""


def config(candidates: int = 100, proposer: str = "schedule") -> RunConfig:
    """A run's configuration; what it names need not be installed."""
    return RunConfig(
        operator=OperatorRef(kind="registered", name="rms_norm", text="rms_norm"),
        target="cpu",
        language="cpp",
        proposer=proposer,
        budget=Budget(candidates=candidates, seconds=600),
    )


def roofline(case: Case, seconds: float) -> RooflinePoint:
    """Where a time stands under the synthetic ceilings."""
    elements = case.sizes["rows"] * case.sizes["cols"]
    flops, moved = 4.0 * elements, 8.0 * elements + 4 * case.sizes["cols"]
    level, bandwidth = ("l3", 1.6e11) if moved < 8e6 else ("dram", 4.1e10)
    return RooflinePoint(
        intensity=flops / moved,
        flops_per_second=flops / seconds,
        bytes_per_second=moved / seconds,
        fraction=moved / seconds / bandwidth,
        bound_by=level,
    )


def timing(seconds: float) -> Timing:
    return Timing(median=seconds, low=seconds * 0.98, high=seconds * 1.03, samples=60)


def ratio(value: float, baseline: str, spread: float = 0.03) -> Ratio:
    return Ratio(value=value, low=value * (1 - spread), high=value * (1 + spread), baseline=baseline)


def baselines() -> tuple[BaselineCase, ...]:
    return tuple(
        BaselineCase(case=case, name=name, timing=timing(table[case.name]), roofline=roofline(case, table[case.name]))
        for name, table in (("eager", EAGER), ("torch.compile", COMPILED))
        for case in CASES
        if not case.held_out
    )


def candidate(index: int, rng: random.Random, parents: tuple[str, ...] = (), proposer: str = "schedule") -> Candidate:
    """A kernel source that no other index has."""
    unroll, chunk = rng.choice((4, 8, 16, 32)), rng.choice((1, 4, 16, 64))
    extra = "" if index % 3 else f"\n            // variant {index}: <script>alert('never run')</script>"
    return Candidate(
        language="cpp",
        source=KERNEL.format(unroll=unroll, chunk=chunk, extra=extra) + f"// candidate {index}\n",
        parents=parents,
        proposer=proposer,
        title=rng.choice(
            ("blocked rows", "two-pass, streaming stores", "fused single pass", "vector accumulators", "rows in parallel <b>tiles</b>")
        )
        + f", unroll {unroll}",
        notes="Split the accumulator to hide the latency of the multiply-add." if index % 4 == 0 else "",
        template="row_reduction",
        knobs={"unroll": unroll, "chunk": chunk, "streaming_stores": index % 2 == 0},
    )


def correct(one: Candidate, speed: float, rng: random.Random) -> Evaluation:
    """A correct evaluation that is about `speed` times as fast as the compiled baseline."""
    results, main, eager = [], [], []
    for case in CASES:
        factor = speed * math.exp(rng.gauss(0, 0.06))
        seconds = COMPILED[case.name] / factor
        ratios = (ratio(factor, "torch.compile", 0.02 + 0.03 * rng.random()), ratio(EAGER[case.name] / seconds, "eager", 0.03))
        if not case.held_out:
            main.append(factor)
            eager.append(EAGER[case.name] / seconds)
        results.append(
            CaseResult(
                case=case,
                inputs=(TensorSpec(shape=(case.sizes["rows"], case.sizes["cols"]), dtype="float32"),),
                verdict=Verdict.CORRECT,
                error=ErrorStats(candidate=1.3e-7, reference=1.1e-7, gate=2e-6),
                times={"candidate": timing(seconds), "eager": timing(EAGER[case.name]), "torch.compile": timing(COMPILED[case.name])},
                speedups=ratios,
                roofline=roofline(case, seconds),
            )
        )
    overall = math.prod(main) ** (1 / len(main))
    both = (ratio(overall, "torch.compile"), ratio(math.prod(eager) ** (1 / len(eager)), "eager"))
    point = results[2].roofline
    return Evaluation(
        candidate=one.id,
        target="cpu",
        language="cpp",
        verdict=Verdict.CORRECT,
        evidence=Evidence.MEASURED,
        flags=(Flag.NOISY,) if rng.random() < 0.08 else (),
        speedup=both[0],
        speedups=both,
        cases=tuple(results),
        diagnosis=Diagnosis(
            bound="memory",
            summary=f"Memory-bound on the largest case: {point.fraction:.0%} of DRAM bandwidth.",
            findings=(
                Finding(
                    what="The row is read twice; the second pass misses L1 at 4096 columns.",
                    advice="Keep the row in registers or fuse the passes.",
                ),
                Finding(what="Stores write-allocate: 1.5 times the useful traffic.", advice="Try streaming stores."),
            ),
        ),
        metrics={
            "vector_bits": 256,
            "spills": rng.randrange(3),
            "hot_loop_instructions": 24 + rng.randrange(20),
            "fma_share": round(rng.random(), 3),
        },
        stage_seconds={"build": 0.62 + rng.random() / 5, "correctness": 0.11, "timing": 0.74, "overhead": 0.06},
        environment={"compiler": "g++ 12 (synthetic)", "load_1min": 0.4, "governor": "performance"},
    )


def failed(one: Candidate, verdict: Verdict) -> Evaluation:
    """An evaluation of any verdict but correct."""
    lines = one.source.split("\n")
    diagnostics = ()
    if verdict is Verdict.BUILD_FAILED:
        diagnostics = (
            Diagnostic(
                severity="error",
                message="'acc' was not declared in this scope; did you mean <acos>?",
                line=16,
                column=17,
                source_line=lines[15],
            ),
            Diagnostic(severity="warning", message="unused variable 'w'", line=7, column=18, source_line=lines[6]),
        )
    reasons = {
        Verdict.INCORRECT: "Case 4096x1024: scaled error 3.1e-02 exceeds the gate of 2.0e-06 at output 0 [17, 4].",
        Verdict.BUILD_FAILED: "candidate:16:17: error: 'acc' was not declared in this scope",
        Verdict.CRASHED: "The worker died with signal 11 (segmentation fault) in case 300x777.",
        Verdict.TIMED_OUT: "Case 4096x1024 ran past its limit of 10 s.",
        Verdict.CHEATING: "The output aliases an input that the judge had poisoned.",
        Verdict.INFRA_ERROR: "The timing lock was not free within 60 s.",
        Verdict.UNSUPPORTED: "AVX-512 was asked for, and this target has none.",
    }
    cases = ()
    if verdict is Verdict.INCORRECT:
        error = ErrorStats(candidate=3.1e-2, reference=1.1e-7, gate=2e-6, worst_index=(17, 4), expected=0.5123, got=0.4961)
        cases = (CaseResult(case=CASES[2], verdict=verdict, reason=reasons[verdict], error=error),)
    return Evaluation(
        candidate=one.id,
        target="cpu",
        language="cpp",
        verdict=verdict,
        evidence=Evidence.MEASURED,
        reasons=(reasons[verdict],),
        cases=cases,
        diagnostics=diagnostics,
        stage_seconds={"build": 0.4, "overhead": 0.02},
    )


def script(
    candidates: int = 60, seed: int = 0, budget: int | None = None, ends: bool = True, proposer: str = "schedule"
) -> Iterator[tuple[float, Event]]:
    """Events of a whole run, each with the seconds since the one before."""
    rng = random.Random(seed)
    yield (
        0.0,
        RunStarted(
            config=config(budget or candidates, proposer), title="RMS norm with residual (synthetic)", environment={"host": "synthetic"}
        ),
    )
    yield 0.3, PhaseChanged(phase="starting workers")
    yield 0.4, TargetMeasured(target=TARGET)
    yield 0.2, PhaseChanged(phase="compiling the baseline")
    yield 1.5, BaselinesMeasured(baselines=baselines())
    yield 0.1, PhaseChanged(phase="searching")
    good: list[tuple[float, str, int]] = []
    failures = [v for v in Verdict if v is not Verdict.CORRECT]
    for index in range(candidates):
        draft = index < 6 or not good
        if draft:
            parents, generation = (), 0
        else:
            ranked = sorted(good, reverse=True)[:6]
            first = rng.choice(ranked)
            second = rng.choice(ranked) if rng.random() < 0.15 else first
            parents, generation = tuple(dict.fromkeys((first[1], second[1]))), first[2] + 1
        one = candidate(index, rng, parents, "chat" if index % 11 == 7 else "schedule")
        talk = one.proposer == "chat"
        yield (
            0.2,
            CandidateProposed(
                candidate=one,
                generation=generation,
                prompt="You write fast C++ kernels.\n<operator>rms_norm</operator>" if talk else "",
                reply="```cpp\n" + one.source + "```" if talk else "",
                cost=0.004 if talk else 0.0,
                input_tokens=1200 if talk else 0,
                output_tokens=700 if talk else 0,
            ),
        )
        yield 0.1, EvaluationStarted(candidate=one.id)
        if rng.random() < 0.28:
            yield 0.5, EvaluationFinished(evaluation=failed(one, failures[rng.randrange(len(failures))]))
        else:
            base = 0.7 + 1.5 * (1 - math.exp(-index / 18))
            speed = base * math.exp(rng.gauss(0, 0.16))
            good.append((speed, one.id, generation))
            yield 1.1, EvaluationFinished(evaluation=correct(one, speed, rng))
        if index % 17 == 13:
            yield 0.1, ProposalFailed(proposer="chat", reason="the reply held no code block", cost=0.002)
        if index % 23 == 20:
            yield 0.1, Noted(text="The load of the machine rose to 2.3; the judge waits for quiet.", level="warning")
    if ends:
        yield 0.4, RunEnded(outcome="finished", reason=f"the budget of {budget or candidates} candidates is used up")


def logged(items: Iterator[tuple[float, Event]], run: str = RUN, start: float = START) -> Iterator[Logged]:
    """Numbered and dated, as a store would."""
    now = start
    for seq, (wait, event) in enumerate(items, 1):
        now += wait
        yield Logged(run=run, seq=seq, time=now, event=event)


def folded(candidates: int = 60, seed: int = 0, ends: bool = True, upto: int | None = None) -> RunFold:
    """The fold after the whole script, or after its first `upto` events."""
    fold = RunFold()
    for item in logged(script(candidates, seed, ends=ends)):
        if upto is not None and item.seq > upto:
            break
        fold.apply(item)
    return fold
