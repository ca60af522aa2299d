"""Composes the prompt of the one universal operator: the same way for a draft, a repair and an improvement.

What is stable over a run comes first (task, target, language, rules), so that providers can cache it; what this request is about follows.
Which part gives way when the prompt is too long is said by the priorities below, most important first.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from kernelevolve_lab.knowledge.calm import Calm, calmest
from kernelevolve_lab.knowledge.floors import floor
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.base import ProposalRequest
from kernelevolve_lab.proposers.chat import findings, history
from kernelevolve_lab.proposers.chat.budget import Packed, Section, estimate, pack
from kernelevolve_lab.proposers.chat.render import duration, fenced, oneline, rate, render
from kernelevolve_lab.records import Case, Ceiling, Profile, TargetSpec
from kernelevolve_lab.records.run_state import Entry, RunState

PRIORITY = {
    name: rank
    for rank, name in enumerate(
        (
            "task",
            "parent",
            "steering",
            "ask",
            "guide",
            "rules",
            "second_parent",
            "diagnosis",
            "target",
            "tried",
            "failed",
            "knowledge",
            "lessons",
            "history",
            "changes",
        )
    )
}
"""Which sections keep their place when the prompt must shrink: the first is served first. What was tried near the parents, a line each,
comes before knowledge, because a kernel that is written a second time costs a whole candidate; the diffs that made it come last."""

ORDER = (
    "task", "target", "rules", "guide", "lessons", "knowledge", "history", "changes", "tried", "failed", "parent", "second_parent",
    "diagnosis", "steering", "ask",
)  # fmt: skip
"""How sections follow each other in the prompt: stable ones first, the question last."""

CHANGES = 3
"""Diffs of so many candidates that were made from a parent are shown, of the best."""

_UNITS = {"cpu": "cores", "nvidia": "SMs", "amd": "CUs", "mtia": "PEs"}


@dataclass(frozen=True)
class LanguageNotes:
    """What the prompt says about the language: its title, the tag of its fences, how it binds, its guide and its comment mark."""

    title: str
    fence_tag: str
    binding: str
    guide: str
    comment: str


@dataclass(frozen=True)
class Advice:
    """What was found out for this request beforehand, as finished markdown; empty parts are left out. `knowledge` and `lessons` are whole
    pieces, the most useful first, of which as many are kept as fit; of `inclinations` each request gets one in turn."""

    rules: str = ""
    diagnosis: str = ""
    inclinations: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()
    lessons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """A finished prompt. `parent_source` is what edits apply to; `packed` tells what was left out."""

    system: str
    user: str
    parent_source: str | None
    packed: Packed = field(repr=False)

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]

    @property
    def text(self) -> str:
        """The exact prompt as one text, for the inspector."""
        return f"===== system =====\n{self.system}\n\n===== user =====\n{self.user}\n"


def compose(
    request: ProposalRequest, language: LanguageNotes, advice: Advice, tokens: int, *, tunable: bool = False, tool_calls: int = 0
) -> Prompt:
    """The prompt for one request, of about `tokens` tokens at most; `tunable` invites the model to declare constants to be tuned,
    `tool_calls` says how many calls of tools it may make."""
    state, operator = request.state, request.operator
    parents = [state.entries[parent] for parent in request.parents if parent in state.entries][:2]
    system = render(
        "system",
        language_title=language.title,
        fence_tag=language.fence_tag,
        tunable=_tunable(language) if tunable else "",
        tool_calls=tool_calls,
        told=request.memory != "none",
        diagnosed=bool(advice.diagnosis),
    )
    made = {
        "task": _task(operator, state, request.target),
        "target": _target(request.target, {case.dtype for case in operator.visible(_profile(state))}),
        "rules": (advice.rules,),
        "guide": (language.guide,),
        "knowledge": _growing(
            f"# What is known about such kernels\nPages of the knowledge base that fit the {'diagnosis' if advice.diagnosis else 'task'}.",
            advice.knowledge,
        ),
        "lessons": _growing("# Lessons of earlier runs", advice.lessons),
        "diagnosis": (advice.diagnosis,),
        "steering": _steering(state),
        "ask": (_ask(request, parents, advice),),
    }
    calm = calmest(state)
    if parents:
        heading = "The kernel to improve" if len(parents) == 1 else "First parent"
        made["parent"] = _parent(parents[0], heading, operator, language, calm)
    if len(parents) > 1:
        made["second_parent"] = _parent(parents[1], "Second parent", operator, language, calm)
    told = {parent.candidate.id for parent in parents}
    if parents and request.memory in ("parent", "both"):
        steps = [step for parent in parents for step in history.ancestors(state, parent.candidate.id, operator)[:-1]]
        made["history"] = _steps("How it came about: its ancestors, oldest first", steps)
        told |= {step.id for step in steps}
    if parents and request.memory in ("parent", "siblings", "both"):
        made_from = [history.children(state, parent.id, operator) for parent in parents]
        beside = [group for parent in parents for group in history.siblings(state, parent.id, operator)]
        made["tried"] = _tried(made_from, beside, told, _main_baseline(parents))
        told |= {step.id for group in (*made_from, *beside) for step in group.steps}
        if request.memory in ("siblings", "both"):
            changed = [history.Step(step.id, step.id, step.diff) for group in made_from for step in group.steps if step.diff][:CHANGES]
            made["changes"] = _steps("What the best of those made from it changed", changed) if changed else ()
    made["failed"] = _failed(request, told)
    required = {"task", "parent", "steering", "ask"}
    sections = [Section(name, PRIORITY[name], made[name], name in required) for name in ORDER if name in made]
    packed = pack(sections, tokens - estimate(system))
    return Prompt(system, "\n\n".join(packed.texts.values()), parents[0].candidate.source if parents else None, packed)


def diagnosis_parts(request: ProposalRequest, language: LanguageNotes) -> tuple[str, str, str]:
    """Task, target and first parent as a prompt shows them at their shortest, for the diagnosis."""
    state, operator = request.state, request.operator
    dtypes = {case.dtype for case in operator.visible(_profile(state))}
    parent = _parent(state.entries[request.parents[0]], "The kernel", operator, language, calmest(state))[0]
    return _task(operator, state, request.target)[0], _target(request.target, dtypes)[-1], parent


def reference_source(operator: Operator, state: RunState) -> str:
    """The reference's source as text (of a task file, the file), or empty where Python cannot find it."""
    if state.config and state.config.operator.kind == "task":
        return state.config.operator.text
    try:
        return textwrap.dedent(inspect.getsource(inspect.unwrap(operator.reference)))
    except (OSError, TypeError):
        return ""


def _task(operator: Operator, state: RunState, target: TargetSpec) -> tuple[str, ...]:
    profile = _profile(state)
    visible = operator.visible(profile)
    rows = [_case_row(case, operator, state, target) for case in visible]
    dtypes = sorted({case.dtype for case in visible})
    floors = ", ".join(f"{operator.tolerance.floors[dtype]:g} for {dtype}" for dtype in dtypes if dtype in operator.tolerance.floors)
    source = reference_source(operator, state)
    baseline, remark = _baseline(state)
    least = [floor(target, operator.work(case), case.dtype) for case in visible]
    values = {
        "operator": operator,
        "cases": rows,
        "other_dtypes": not {case.dtype for case in operator.held_out(profile)} <= set(dtypes),
        "baseline": baseline,
        "remark": remark,
        "by_arithmetic": any(bound and not bound.memory for bound in least),
        "floors": floors or "0",
        "fenced": fenced,
    }
    return tuple(dict.fromkeys((render("task", reference=source, **values), render("task", reference="", **values))))


def _baseline(state: RunState) -> tuple[str, str]:
    """What fitness is against, and what is to be said of it: eager where evaluations say so, since torch.compile could not be had there."""
    times = {(timed.case.name, timed.name): timed.timing.median for timed in state.baselines}
    if "torch.compile" not in {name for _, name in times}:
        against = {entry.evaluation.speedup.baseline for entry in state.entries.values() if entry.evaluation and entry.evaluation.speedup}
        if "eager" in against:
            return "eager", ""
        return "torch.compile", " (its times are being measured; over `eager`, if it cannot be had)" if times and not against else ""
    slower = any(seconds > times.get((case, "eager"), seconds) for (case, name), seconds in times.items() if name == "torch.compile")
    return "torch.compile", ", also where `eager` is faster," if slower else ""


def _profile(state: RunState) -> Profile:
    return state.config.profile if state.config else "laptop"


def _case_row(case: Case, operator: Operator, state: RunState, target: TargetSpec) -> dict[str, str]:
    work = operator.work(case)
    least = floor(target, work, case.dtype)
    where = f", which are in {least.level}" if least and least.memory else ""
    by = (
        f"{'these bytes' if least.memory else 'this arithmetic'} at {rate(least.rate, 'B/s' if least.memory else 'FLOP/s')}"
        if least
        else ""
    )
    times = [baseline for baseline in state.baselines if baseline.case.name == case.name]
    inputs = next((baseline.inputs for baseline in times if baseline.inputs), ())
    return {
        "name": case.name,
        "sizes": ", ".join(f"{name} {value}" for name, value in case.sizes.items()),
        "dtype": case.dtype,
        "distribution": case.distribution,
        "inputs": ", ".join(map(str, inputs)),
        "work": f"{rate(work.flops, 'FLOP')}, {rate(work.bytes, 'B')}{where}",
        "floor": f"least time {duration(least.seconds)} ({by})" if least else "",
        "times": ", ".join(f"{baseline.name} took {duration(baseline.timing.median)}" for baseline in times),
    }


def _target(target: TargetSpec, dtypes: set[str]) -> tuple[str, ...]:
    """The target, with the ceilings that matter for the dtypes at hand."""
    rows: dict[tuple[str, str], list[Ceiling]] = {}
    for ceiling in sorted(target.ceilings, key=lambda ceiling: ceiling.threads):
        if ceiling.kind == "bandwidth" or ceiling.name.split("-")[0] in dtypes | {"float32"}:
            rows.setdefault((ceiling.kind, ceiling.name), []).append(ceiling)
    lines = []
    for (kind, name), ceilings in rows.items():
        unit = "B/s" if kind == "bandwidth" else "FLOP/s"
        rates = [f"{rate(ceiling.value, unit)}{_threads(ceiling.threads)}" for ceiling in ceilings]
        lines.append(f"{name} {kind}: {', '.join(rates)} ({ceilings[0].evidence.value})")
    unit_name = _UNITS.get(target.vendor, "units")
    variants = [render("target", target=target, ceilings=lines, unit_name=unit_name, full=full) for full in (True, False)]
    return tuple(dict.fromkeys(variants))


def _threads(count: int) -> str:
    return "" if count == 0 else f" on {count} thread{'s' if count > 1 else ''}"


def _parent(entry: Entry, heading: str, operator: Operator, language: LanguageNotes, calm: Calm) -> tuple[str, ...]:
    variants = []
    for full in (True, False):
        told = findings.describe(entry.evaluation, operator, calm, full=full)
        variants.append(
            render(
                "parent",
                heading=heading,
                entry=entry,
                title=oneline(entry.candidate.title),
                plan=oneline(entry.candidate.notes, 600) if full else "",
                fence_tag=language.fence_tag,
                findings=told,
            )
        )
    return tuple(dict.fromkeys(variants))


def _main_baseline(parents: Sequence[Entry]) -> str:
    found = [parent.evaluation.speedup.baseline for parent in parents if parent.evaluation and parent.evaluation.speedup]
    return found[0] if found else "the baseline"


def _tried(made_from: Sequence[history.Group], beside: Sequence[history.Group], told: set[str], baseline: str) -> tuple[str, ...]:
    """What was tried near the parents, in fewer and fewer lines; what was made from a parent itself gives way last. Each is told once."""
    variants = []
    for own, others in ((12, 8), (8, 4), (5, 2), (3, 0)):
        seen, groups = set(told), []
        for count, group in [*((own, group) for group in made_from), *((others, group) for group in beside)]:
            steps = [step for step in group.steps if step.id not in seen]
            seen |= {step.id for step in steps}
            lines = [step.line for step in steps[:count]]
            if len(steps) > count and lines:
                lines.append(f"… and {len(steps) - count} more, behind these")
            groups.append((group.heading, lines))
        if shown := [(heading, lines) for heading, lines in groups if lines]:
            variants.append(render("tried", groups=shown, baseline=baseline))
    return tuple(dict.fromkeys(variants))


def _failed(request: ProposalRequest, told: set[str]) -> tuple[str, ...]:
    if request.memory in ("clean_slate", "none") and not request.parents:
        return ()
    failed = history.failures(request.state, request.operator, told)
    undecided = history.undecided(request.state, told) if request.parents else []
    variants = [render("failed", failed=failed[:most], undecided=undecided[:some]) for most, some in ((12, 6), (6, 3), (3, 0))]
    return tuple(dict.fromkeys(variants)) if failed or undecided else ()


def _steps(heading: str, steps: Sequence[history.Step]) -> tuple[str, ...]:
    if not steps:
        return ()
    bare = [history.Step(step.id, step.line) for step in steps]
    variants = [render("history", heading=heading, items=items) for items in (steps, bare, bare[-5:], bare[-2:])]
    return tuple(dict.fromkeys(variants))


def _growing(heading: str, pieces: Sequence[str]) -> tuple[str, ...]:
    return tuple("\n\n".join((heading, *pieces[:count])) for count in range(len(pieces), 0, -1))


def _steering(state: RunState) -> tuple[str, ...]:
    rejected = [entry for entry in state.entries.values() if entry.rejected is not None]
    pinned = [entry for entry in state.entries.values() if entry.pinned and not entry.banned]
    if not (rejected or pinned or state.hints):
        return ()
    return (render("steering", hints=state.hints, rejected=rejected[-20:], pinned=pinned[-10:]),)


def _ask(request: ProposalRequest, parents: Sequence[Entry], advice: Advice) -> str:
    """The question. Requests that run side by side would else be the same and bring the same answer: each gets its own inclination."""
    judging = [request.state.entries[key] for key in request.pending if key in request.state.entries]
    told = request.memory != "none"
    return render(
        "ask",
        left=_left(request.state) if told else None,
        total=request.state.budget.candidates,
        parent=parents[0] if parents else None,
        second=parents[1] if len(parents) > 1 else None,
        diagnosed=bool(advice.diagnosis),
        clean_slate=request.memory == "clean_slate" and bool(request.state.judged),
        taken=history.taken(request.state, request.pending, request.memory != "clean_slate")
        if not parents and request.memory != "none"
        else (),
        judging=history.titles(judging) if parents and told else (),
        inclination=advice.inclinations[request.index % len(advice.inclinations)] if advice.inclinations else "",
    )


def _left(state: RunState) -> int | None:
    """How many candidates the budget still allows, the one that is asked for among them; None without such a bound."""
    if state.budget.candidates is None:
        return None
    waiting = sum(entry.evaluation is None and not entry.banned for entry in state.entries.values())
    return max(1, state.budget.candidates - state.judged - waiting)


def _tunable(language: LanguageNotes) -> str:
    example = f"constexpr int TILE = 64;  {language.comment} tune: TILE in {{32, 64, 128}}"
    if language.binding == "python":
        example = f"TILE = 64  {language.comment} tune: TILE in {{32, 64, 128}}"
    return f"`{example}`"
