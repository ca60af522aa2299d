"""What an exported file says about where its kernel comes from and how it was judged."""

from __future__ import annotations

from kernelevolve_lab.export.base import ExportRequest
from kernelevolve_lab.records import Ratio
from kernelevolve_lab.rendering import words


def ratio_text(ratio: Ratio) -> str:
    return f"{ratio.value:.2f}x over {ratio.baseline} (95 % interval {ratio.low:.2f} to {ratio.high:.2f})"


def evidence_lines(request: ExportRequest) -> list[str]:
    """The evidence as lines of text, for a header comment."""
    entry, state = request.entry, request.state
    evaluation = entry.evaluation
    target = state.target.title if state.target else evaluation.target
    lines = [
        f"Candidate {entry.candidate.id} of run {state.run}: {entry.candidate.title or 'untitled'}.",
        f"Verdict {evaluation.verdict}, evidence {evaluation.evidence}, on {target} ({evaluation.target}), {words.when(entry.judged_at)}.",
    ]
    lines += [f"Speedup, geometric mean over the visible cases: {ratio_text(ratio)}." for ratio in evaluation.speedups]
    if evaluation.flags:
        lines.append(f"Flags: {'; '.join(words.flags(entry))}.")
    if not evaluation.final:
        lines.append("Measured once during the search, not yet re-measured as a finalist.")
    for result in evaluation.cases:
        error = f", error {result.error.candidate:.1e} of at most {result.error.gate:.1e}" if result.error else ""
        times = "".join(f", {name} {timing.median * 1e3:.3f} ms" for name, timing in result.times.items())
        lines.append(f"  {'held-out ' if result.case.held_out else ''}case '{result.case.name}' ({result.case.dtype}){error}{times}")
    return lines


def accepted_inputs(request: ExportRequest) -> list[tuple[tuple[str, int], ...]]:
    """The (dtype, rank) of each input, for every case that was judged correct: what the exported guard lets through."""
    accepted: list[tuple[tuple[str, int], ...]] = []
    for result in request.entry.evaluation.cases:
        kind = tuple((spec.dtype, len(spec.shape)) for spec in result.inputs)
        if kind and kind not in accepted:
            accepted.append(kind)
    return accepted
