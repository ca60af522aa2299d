"""An evaluation: what the judge found about one candidate on one target.

Its JSON form is the contract of `kernelevolve-lab evaluate --json`; field names are therefore fixed.
"""

from enum import StrEnum

from pydantic import model_validator

from kernelevolve_lab.records.base import Record
from kernelevolve_lab.records.case import Case, Scalar, TensorSpec
from kernelevolve_lab.records.hardware import Evidence


class Verdict(StrEnum):
    CORRECT = "correct"
    INCORRECT = "incorrect"
    BUILD_FAILED = "build_failed"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    CHEATING = "cheating"
    UNSUPPORTED = "unsupported"
    INFRA_ERROR = "infra_error"


class Flag(StrEnum):
    SUSPICIOUS = "suspicious"
    DEGENERATE_TASK = "degenerate_task"
    SPECIALISED = "specialised"
    NOISY = "noisy"


class Diagnostic(Record):
    """A message of a compiler or checker; `line` and `column` count from 1 (0: unknown), `source_line` is the text they point at."""

    severity: str
    message: str
    file: str = "candidate"
    line: int = 0
    column: int = 0
    source_line: str = ""


class Ratio(Record):
    """A speedup: baseline time over candidate time, with the 95 % interval of the paired ratios' signed ranks; above 1 is faster.

    `baseline` is `eager` or `torch.compile`.
    """

    value: float
    low: float
    high: float
    baseline: str


class Timing(Record):
    """Seconds a call took: the median over `samples` calls, with its 95 % interval, under the cache policy named (`warm` or `cold`)."""

    median: float
    low: float
    high: float
    samples: int
    cache: str = "warm"


class ErrorStats(Record):
    """Error of the worst element against the float64 golden, |got - golden| / (s + |golden|), where s is the golden's root mean square over
    the element's row; correct when `candidate <= gate`.

    `gate` is max(floor of the dtype, k x the reference's own error in that row), `reference` that error.
    """

    candidate: float
    reference: float
    gate: float
    worst_output: int = 0
    worst_index: tuple[int, ...] = ()
    expected: float | None = None
    got: float | None = None


class RooflinePoint(Record):
    """Where a measured time stands: `intensity` in FLOP/byte, `flops_per_second`, `bytes_per_second` (useful work, by the operator's
    formulas), the `fraction` (0 to 1, above 1 possible when data stays in a faster level) of the roof `bound_by` names."""

    intensity: float
    flops_per_second: float
    bytes_per_second: float
    fraction: float
    bound_by: str


class CaseResult(Record):
    """What was found for one case. `times` is by name: `candidate`, `eager`, `torch.compile`."""

    case: Case
    inputs: tuple[TensorSpec, ...] = ()
    verdict: Verdict
    reason: str = ""
    error: ErrorStats | None = None
    times: dict[str, Timing] = {}
    speedups: tuple[Ratio, ...] = ()
    roofline: RooflinePoint | None = None


class Finding(Record):
    """One thing the diagnosis noticed: `what` in one sentence with numbers, `advice` what to try next (may be empty), `rule` the name of
    the rule that noticed it (empty where none is known)."""

    what: str
    advice: str = ""
    rule: str = ""


class Diagnosis(Record):
    """Why the kernel takes the time it takes; `bound` is `memory`, `compute`, `latency` or `unknown`."""

    bound: str
    summary: str
    findings: tuple[Finding, ...] = ()


class Evaluation(Record):
    """The judge's finding. Only a `correct` evaluation has a `speedup`; anything else has `reasons`.

    `speedup` is the geometric mean over the visible cases against the main baseline (`torch.compile` where it was measured, else eager),
    `speedups` the same against each baseline. `stage_seconds` says where the judge's time went (build, correctness, timing, overhead).
    `metrics` are static metrics of the build; `environment` the versions, clocks and load at the time.
    """

    candidate: str
    target: str
    language: str
    verdict: Verdict
    evidence: Evidence
    flags: tuple[Flag, ...] = ()
    reasons: tuple[str, ...] = ()
    speedup: Ratio | None = None
    speedups: tuple[Ratio, ...] = ()
    cases: tuple[CaseResult, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    diagnosis: Diagnosis | None = None
    metrics: dict[str, Scalar] = {}
    stage_seconds: dict[str, float] = {}
    environment: dict[str, Scalar] = {}
    final: bool = False

    @model_validator(mode="after")
    def _payload_fits_verdict(self) -> "Evaluation":
        if self.verdict is not Verdict.CORRECT:
            if self.speedup is not None:
                raise ValueError(f"a speedup on a verdict of {self.verdict}")
            if not self.reasons:
                raise ValueError(f"a verdict of {self.verdict} needs a reason")
        return self

    def ratio(self, baseline: str) -> Ratio | None:
        """The overall speedup against that baseline, or None where it was not measured."""
        return next((r for r in self.speedups if r.baseline == baseline), None)

    @property
    def fitness(self) -> float:
        """What the search maximises: the main speedup, 0 unless correct (PAPER section 3.1: F = 0 on any failure)."""
        return self.speedup.value if self.speedup is not None else 0.0

    @property
    def secured(self) -> float:
        """What candidates are ranked by: the lower end of the main speedup's interval, 0 unless correct. Of many that were measured on a
        noisy machine the highest value is mostly luck, and luck comes with a wide interval."""
        return self.speedup.low if self.speedup is not None else 0.0

    @property
    def wrong_elsewhere(self) -> bool:
        """Whether it failed a held-out case, though it is right on the visible ones."""
        return any(result.case.held_out and result.verdict is not Verdict.CORRECT for result in self.cases)
