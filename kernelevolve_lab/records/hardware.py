"""What a target is and what it can do at most."""

from enum import StrEnum

from kernelevolve_lab.records.base import Record


class Evidence(StrEnum):
    """Where a number comes from; numbers of different evidence are never ranked together."""

    MEASURED = "measured"
    EMULATED = "emulated"
    MODELLED = "modelled"
    COMPILED = "compiled"


class CacheLevel(Record):
    """One level of the data cache; `bytes` of one instance, `shared_by` hardware threads visible to this machine."""

    level: int
    bytes: int
    shared_by: int = 1


class Ceiling(Record):
    """One upper bound of a roofline.

    `kind` is `bandwidth` (value in bytes/s) or `compute` (FLOP/s, a multiply-add counted as two). `name` is the memory level (`l1`, `l2`,
    `l3`, `dram`, `hbm`) or the dtype and unit (`float32`, `bfloat16-tensor`). `threads` is how many threads reach it (0: the whole device).
    `source` says how it was measured, or where it was published.
    """

    kind: str
    name: str
    value: float
    threads: int = 0
    evidence: Evidence
    source: str


class TargetSpec(Record):
    """A target: `arch` is what compilers call it, `features` what kernels may use, `ceilings` the bounds known so far, best evidence first.

    `vendor` is `cpu`, `nvidia`, `amd` or `mtia`; `units` the cores, SMs, CUs or PEs; `simd_bits` the vector register width (0 where it
    means nothing); `present` whether this machine has it; `facts` further published numbers with their sources in the text.
    """

    name: str
    title: str
    vendor: str
    arch: str
    units: int
    simd_bits: int = 0
    features: tuple[str, ...] = ()
    caches: tuple[CacheLevel, ...] = ()
    memory_bytes: int = 0
    ceilings: tuple[Ceiling, ...] = ()
    present: bool = False
    facts: tuple[str, ...] = ()

    def ceiling(self, kind: str, name: str, threads: int = 0) -> Ceiling | None:
        """The best-evidenced ceiling of that kind and name, or None when it is not known."""
        found = [c for c in self.ceilings if (c.kind, c.name, c.threads) == (kind, name, threads)]
        return min(found, key=lambda c: list(Evidence).index(c.evidence), default=None)
