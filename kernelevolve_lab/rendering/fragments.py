"""Pieces of HTML about one candidate: its cases, diagnosis, metrics and history. Tables with captions, no scripts, all text escaped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape

from kernelevolve_lab.records import CaseResult, Evaluation, Ratio, TargetSpec, Verdict
from kernelevolve_lab.records.run_state import Entry, Occasion
from kernelevolve_lab.rendering import words

_KNOWN_STAGES = ("build", "correctness", "timing", "overhead")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int] = ()) -> str:
    """A table whose cells are given as HTML; the columns in `numbers` are set as numbers. The first cell heads its row."""

    def kind(column: int) -> str:
        return ' class="kl-num"' if column in numbers else ""

    heads = "".join(f'<th scope="col"{kind(column)}>{escape(name)}</th>' for column, name in enumerate(head))
    body = ""
    for first, *others in rows:
        cells = "".join(f"<td{kind(column)}>{cell}</td>" for column, cell in enumerate(others, 1))
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return f'<table class="kl-table"><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'


def ratio_html(ratio: Ratio | None) -> str:
    """A speedup with its interval; the tone says whether the interval lies wholly above or below 1, the numbers say it too."""
    if ratio is None:
        return words.NO_VALUE
    tone = "good" if ratio.low > 1 else "bad" if ratio.high < 1 else "quiet"
    interval = f'<span class="kl-ci">{words.interval(ratio)}</span>'
    return f'<span class="kl-nowrap"><b class="kl-tone-{tone}">{words.times(ratio.value)}</b> {interval}</span>'


def verdict_html(entry: Entry) -> str:
    """Symbol and word of a candidate's verdict."""
    look = words.look(entry)
    return f'<span class="kl-nowrap kl-tone-{look.tone}"><span aria-hidden="true">{look.symbol}</span> {look.word}</span>'


def _error_html(result: CaseResult) -> str:
    if result.error is None:
        return words.NO_VALUE
    error = result.error
    tone = "good" if error.candidate <= error.gate else "bad"
    return f'<span class="kl-tone-{tone}">{error.candidate:.2g}</span> <span class="kl-ci">≤ {error.gate:.2g}</span>'


def _time_html(result: CaseResult, name: str) -> str:
    timing = result.times.get(name)
    if timing is None:
        return words.NO_VALUE
    spread = (timing.high - timing.low) / 2 / timing.median if timing.median else 0.0
    return f'{words.seconds(timing.median)} <span class="kl-ci">±{spread:.1%}</span>'


def cases_html(evaluation: Evaluation, target: TargetSpec | None = None) -> str:
    """What was found case by case: error against its gate, times, speedups with intervals, place on the roofline."""
    baselines = list(dict.fromkeys(r.baseline for c in evaluation.cases for r in c.speedups))
    rows = []
    for result in evaluation.cases:
        look = words.VERDICTS[result.verdict]
        held = ' <span class="kl-chip">held out</span>' if result.case.held_out else ""
        about = " · ".join((words.sizes(result.case), result.case.dtype, result.case.distribution))
        reason = f'<div class="kl-tone-{look.tone}">{escape(result.reason)}</div>' if result.reason else ""
        ratios = {r.baseline: r for r in result.speedups}
        rows.append(
            [
                f'<span class="kl-tone-{look.tone}" title="{look.word}">{look.symbol}</span> {escape(result.case.name)}{held}'
                f'<div class="kl-ci">{escape(about)}</div>{reason}',
                _error_html(result),
                _time_html(result, "candidate"),
                *(f"{ratio_html(ratios.get(name))}<div>{_time_html(result, name)}</div>" for name in baselines),
                escape(words.roof_text(result.roofline, target)),
            ]
        )
    if not rows:
        return '<p class="kl-empty">No case was run.</p>'
    head = ["case", "error ≤ gate", "time", *(f"vs {name}" for name in baselines), "roofline"]
    caption = (
        f"{evaluation.evidence.capitalize()} on {evaluation.target}: median time ± half of its 95 % interval; "
        "speedups are paired ratios with 95 % intervals"
    )
    return table(caption, head, rows, numbers=range(1, len(head) - 1))


OCCASIONS = {Occasion.PROPOSED: "proposed", Occasion.FINALIST: "measured again as a finalist", Occasion.APPEAL: "appealed by a person"}


def history_html(entry: Entry) -> str:
    """Every verdict on a candidate with when and why it was given; nothing while there is one alone."""
    if len(entry.history) < 2:
        return ""
    rows = []
    for judged in entry.history:
        look, said = words.VERDICTS[judged.evaluation.verdict], escape(words.headline(judged.evaluation))
        why = OCCASIONS[judged.occasion] + (f": {judged.reason}" if judged.reason else "")
        found = f'<span class="kl-tone-{look.tone}"><span aria-hidden="true">{look.symbol}</span> {said}</span>'
        rows.append([escape(words.when(judged.at)), escape(why), found])
    return table("History of the verdict", ["when", "why", "what was found"], rows)


def diagnosis_html(entry: Entry) -> str:
    """Why a judged candidate takes the time it takes, the judge's reasons and flags, and the history of its verdict."""
    evaluation = entry.evaluation
    parts = []
    if evaluation.reasons:
        tone = words.VERDICTS[evaluation.verdict].tone if evaluation.verdict is not Verdict.CORRECT else "warn"
        parts.append(
            f"<ul class='kl-reasons kl-tone-{tone}'>" + "".join(f"<li>{escape(reason)}</li>" for reason in evaluation.reasons) + "</ul>"
        )
    if evaluation.flags:
        parts.append("<p>" + " ".join(f'<span class="kl-chip kl-tone-warn">{escape(flag)}</span>' for flag in words.flags(entry)) + "</p>")
    if evaluation.diagnosis:
        parts.append(f'<p class="kl-lead">{escape(evaluation.diagnosis.summary)}</p><dl class="kl-findings">')
        for finding in evaluation.diagnosis.findings:
            advice = f"<dd>{escape(finding.advice)}</dd>" if finding.advice else ""
            parts.append(f"<dt>{escape(finding.what)}</dt>{advice}")
        parts.append("</dl>")
    told = "".join(parts) or '<p class="kl-empty">The judge gave no diagnosis.</p>'
    return told + history_html(entry)


def _scalar(value) -> str:
    return escape(f"{value:.6g}" if isinstance(value, float) else str(value))


def pairs_html(caption: str, values: dict) -> str:
    """Names and values as a small table; nothing when there are none."""
    if not values:
        return ""
    rows = "".join(f'<tr><th scope="row">{escape(str(name))}</th><td>{_scalar(value)}</td></tr>' for name, value in values.items())
    return f'<table class="kl-table kl-pairs"><caption>{escape(caption)}</caption><tbody>{rows}</tbody></table>'


def stages_html(evaluation: Evaluation) -> str:
    """Where the judge's time went, as one stacked bar with its numbers."""
    spent = {name: s for name, s in evaluation.stage_seconds.items() if s > 0}
    total = sum(spent.values())
    if not total:
        return ""
    order = [n for n in _KNOWN_STAGES if n in spent] + [n for n in spent if n not in _KNOWN_STAGES]
    bar = "".join(f'<span class="kl-stage-{min(i, 4)}" style="width:{spent[n] / total:.2%}"></span>' for i, n in enumerate(order))
    words_ = " ".join(
        f'<span><i class="kl-stage-{min(i, 4)}"></i>{escape(n)} {words.seconds(spent[n])}</span>' for i, n in enumerate(order)
    )
    return f'<div class="kl-stages"><div class="kl-bar" aria-hidden="true">{bar}</div><div class="kl-legend">{words_}</div></div>'


def evidence_html(entry: Entry) -> str:
    """Metrics, knobs, environment and the judge's stages of one candidate."""
    evaluation = entry.evaluation
    parts = []
    if evaluation:
        parts.append(stages_html(evaluation))
    parts.append('<div class="kl-columns">')
    parts.append(
        pairs_html(
            "Knobs of the template" + (f" {entry.candidate.template}" if entry.candidate.template else ""), dict(entry.candidate.knobs)
        )
    )
    if evaluation:
        parts.append(pairs_html("Static metrics of the build", dict(evaluation.metrics)))
        parts.append(pairs_html("Environment of the measurement", dict(evaluation.environment)))
    parts.append("</div>")
    return "".join(parts)


def conversation_html(entry: Entry) -> str:
    """What the model was sent and what it answered, verbatim and escaped."""
    parts = []
    if entry.candidate.notes:
        parts.append(f'<h5>Notes of the proposer</h5><pre class="kl-text">{escape(entry.candidate.notes)}</pre>')
    for title, text in (("Reply", entry.reply), ("Prompt", entry.prompt)):
        if text:
            parts.append(f'<h5>{title}</h5><pre class="kl-text">{escape(text)}</pre>')
    return "".join(parts) or f'<p class="kl-empty">The {escape(entry.candidate.proposer)} proposer sends no prompt.</p>'
