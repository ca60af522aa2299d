"""How the judge judges: every number that a verdict or an interval depends on, in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass

LONGEST_SOURCE = 1 << 20
"""Characters of a candidate: what reads it (parsers, rules) is in the judge's own process, and must not take long."""


@dataclass(frozen=True)
class JudgeSettings:
    """Times in seconds, memory in bytes.

    Limits: `load_seconds` for loading a library or module, `call_seconds` for one call at least (or `call_factor` times the reference's
    time, if that is longer), `heap_bytes` what a candidate may allocate.
    Correctness: `distribution_samples` how many further distributions a case is checked under (all of them in a final round).
    Timing: `threads` for candidate and baselines alike (0: all processors this process may use). Rounds are pairs of visits; a visit is
    enough calls to last `visit_seconds`. A case takes from `min_rounds` to `max_rounds` rounds, stops when the 95 % interval is narrower
    than `precision` (relative, half-width) or wholly below `clear_loss`, and at the latest after `case_seconds`; a final round uses the
    `final_` values, and adds `cold_rounds` with cold caches. `pool_sets` input sets per visible case are drawn and kept (of small ones four
    times as many), at most `pool_bytes` for all; after every `refresh_every` evaluations one of them is drawn anew, and before a final
    round all are.
    `compiled` says whether torch.compile is a baseline at all, `autotuned` whether its mode `max-autotune` is one of final rounds.
    `torch_mode` overrides what `policy.toml` lets a Python candidate have PyTorch do: `forbid`, `replace` or `allow`.
    Second witness: a candidate that reports less than `witness_share` of what the judge's clock sees per call is not believed.
    """

    load_seconds: float = 20.0
    call_seconds: float = 5.0
    call_factor: float = 100.0
    heap_bytes: int = 4 << 30

    distribution_samples: int = 1

    threads: int = 0
    visit_seconds: float = 1e-3
    min_rounds: int = 6
    max_rounds: int = 60
    case_seconds: float = 0.25
    precision: float = 0.015
    clear_loss: float = 0.9
    final_min_rounds: int = 24
    final_max_rounds: int = 200
    final_case_seconds: float = 2.0
    final_precision: float = 0.004
    cold_rounds: int = 3
    pool_sets: int = 9
    pool_bytes: int = 1 << 30
    refresh_every: int = 2
    compiled: bool = True
    autotuned: bool = False
    torch_mode: str = ""

    witness_share: float = 0.97

    @classmethod
    def for_device(cls, device: str) -> JudgeSettings:
        """The defaults for a device. For a GPU: sets for more rounds, since a process costs half a second to start and memory is plenty;
        few threads, since they launch and do not compute."""
        return cls() if device == "cpu" else cls(pool_bytes=8 << 30, threads=min(8, len(os.sched_getaffinity(0))))

    def thread_count(self) -> int:
        """The threads that candidate and baselines get."""
        return self.threads or len(os.sched_getaffinity(0))
