"""What the front end is told: one message for a whole state, and small ones for what changed since.

A `Feed` remembers the last state it described. Snapshots of a run share their unchanged entries, so finding what changed is a comparison of
identities, not of contents. Messages are plain JSON; every text in them is data (the front end never parses it as markup).
"""

from __future__ import annotations

from dataclasses import asdict

from kernelevolve_lab.records.run_state import Entry, Request, RunState, Status
from kernelevolve_lab.rendering import words
from kernelevolve_lab.rendering.figures import EMPTY_FRAME, RooflineFrame, candidate_dots, roofline_frame

REASON_CHARACTERS = 240
REQUESTS = 30


def row(entry: Entry, frame: RooflineFrame) -> dict:
    """One candidate for the leaderboard, the charts and the tree; what is empty is left out."""
    evaluation = entry.evaluation
    look = words.look(entry)
    made = {
        "id": entry.candidate.id,
        "order": entry.order,
        "gen": entry.generation,
        "title": entry.candidate.title or entry.candidate.template or "untitled",
        "language": entry.candidate.language,
        "proposer": entry.candidate.proposer,
        "verdict": str(evaluation.verdict) if evaluation else look.word,
        "symbol": look.symbol,
        "word": look.word,
        "tone": look.tone,
    }
    extra: dict = {
        "parents": list(entry.candidate.parents),
        "pinned": entry.pinned,
        "banned": entry.banned,
        "cost": entry.cost,
        "judged": round(entry.judged_at, 3),
    }
    if evaluation:
        extra["evidence"] = str(evaluation.evidence)
        extra["final"] = evaluation.final
        extra["flags"] = [str(flag) for flag in evaluation.flags]
        extra["overruled"] = {str(said.flag): said.reason for said in entry.overrulings}
        extra["reason"] = evaluation.reasons[0][:REASON_CHARACTERS] if evaluation.reasons else ""
        extra["fitness"] = _short(evaluation.fitness)
        extra["main"] = evaluation.speedup.baseline if evaluation.speedup else ""
        extra["speedups"] = {r.baseline: [_short(r.value), _short(r.low), _short(r.high)] for r in evaluation.speedups}
        extra["dots"] = [
            [d.case, _short(d.flops), _short(d.bytes), _short(d.fraction), d.bound_by, _short(d.seconds)]
            for d in candidate_dots(entry, frame)
        ]
    if entry.rejected is not None:
        made["rejected"] = entry.rejected
    made.update({name: value for name, value in extra.items() if value not in (None, False, "", 0, 0.0, [], {})})
    return made


def _short(value: float | None) -> float | None:
    """Five digits are more than any interval allows."""
    return None if value is None else float(f"{value:.5g}")


def status(state: RunState, frame: RooflineFrame = EMPTY_FRAME, standing: str = "") -> dict:
    """The head of the view: what runs, how far it is and what is best. `standing` is the handle's word for it: `running`, `paused`,
    `interrupted`, `finished`, `stopped`, `failed`, or `empty` without a run."""
    best = state.best
    config = state.config
    return {
        "run": state.run,
        "seq": state.seq,
        "status": standing or (state.outcome if state.status is Status.ENDED else str(state.status)),
        "title": state.title,
        "phase": state.phase,
        "reason": state.reason,
        "target": state.target.title if state.target else (config.target if config else ""),
        "operator": config.operator.name if config else "",
        "language": config.language if config else "",
        "proposer": config.proposer if config else "",
        "policy": config.policy if config else "",
        "budget": state.budget.model_dump(),
        "proposed": len(state.entries),
        "judged": state.judged,
        "failed_proposals": state.failed_proposals,
        "active": round(state.active_seconds, 3),
        "updated": round(state.updated_at, 3),
        "cost": state.cost,
        "tokens_in": state.input_tokens,
        "tokens_out": state.output_tokens,
        "best": state.best_id,
        "best_roof": _best_roof(state, frame),
        "best_title": best.candidate.title if best else "",
        "hints": list(state.hints),
        "requests": [_request(r) for r in state.requests[-REQUESTS:]],
    }


def _best_roof(state: RunState, frame: RooflineFrame) -> dict | None:
    """Where the best stands on the main case: the share of its roof, in numbers and in words."""
    best = state.best
    if best is None or not frame.cases:
        return None
    case = frame.cases[frame.main]
    result = next((c for c in best.evaluation.cases if c.case.name == case.name and c.roofline), None)
    if result is None:
        return None
    return {
        "share": _short(result.roofline.fraction),
        "of": words.level(result.roofline.bound_by),
        "text": f"{words.roof_text(result.roofline, state.target)} at {case.label}",
    }


def _request(request: Request) -> dict:
    command = request.command
    detail = next((str(getattr(command, name)) for name in ("reason", "text", "title") if getattr(command, name, "")), "")
    return {
        "seq": request.seq,
        "verb": command.command,
        "candidate": getattr(command, "candidate", ""),
        "detail": detail[:120],
        "author": request.author,
        "applied": request.note is not None,
        "note": request.note or "",
    }


class Feed:
    """Turns a sequence of states into messages. `message` returns None when there is nothing to tell."""

    def __init__(self) -> None:
        self._last: RunState | None = None
        self._standing = ""
        self._frame = EMPTY_FRAME

    def message(self, state: RunState, standing: str = "", whole: bool = False) -> dict | None:
        """What to tell after this state; `whole` describes it all, for a view that knows nothing or missed something."""
        last = self._last
        whole = whole or last is None or last.run != state.run or state.seq < last.seq
        if not whole and state is last and standing == self._standing:
            return None
        frame = roofline_frame(state)
        before = EMPTY_FRAME if whole else self._frame
        self._last, self._frame, self._standing = state, frame, standing
        # A row's dots count the cases of the frame, so new cases renew every row.
        old = {} if whole or frame.cases != before.cases else last.entries
        rows = [row(entry, frame) for key, entry in state.entries.items() if old.get(key) is not entry]
        seen = 0 if whole or not last.log else last.log[-1].seq
        told: dict = {
            "whole": whole,
            "status": status(state, frame, standing),
            "rows": rows,
            "log": [[line.seq, round(line.time, 2), line.level, line.text] for line in state.log if line.seq > seen],
        }
        if whole or frame != before:
            told["frame"] = asdict(frame)
        return told
