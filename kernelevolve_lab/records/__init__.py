"""Frozen records that every room speaks. Import from the module that defines a record, or from here."""

from kernelevolve_lab.records.candidate import Candidate, candidate_id
from kernelevolve_lab.records.case import Case, Profile, Scalar, TensorSpec
from kernelevolve_lab.records.evaluation import (
    CaseResult,
    Diagnosis,
    Diagnostic,
    ErrorStats,
    Evaluation,
    Finding,
    Flag,
    Ratio,
    RooflinePoint,
    Timing,
    Verdict,
)
from kernelevolve_lab.records.hardware import CacheLevel, Ceiling, Evidence, TargetSpec
from kernelevolve_lab.records.operator_ref import OperatorRef
from kernelevolve_lab.records.run import Budget, RunConfig

__all__ = [
    "Budget", "CacheLevel", "Candidate", "Case", "CaseResult", "Ceiling", "Diagnosis", "Diagnostic", "ErrorStats", "Evaluation", "Evidence",
    "Finding", "Flag", "OperatorRef", "Profile", "Ratio", "RooflinePoint", "RunConfig", "Scalar", "TargetSpec", "TensorSpec", "Timing",
    "Verdict", "candidate_id",
]  # fmt: skip
