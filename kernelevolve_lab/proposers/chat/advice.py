"""What is found out for a request before the model is asked: diagnose first, then retrieve by the diagnosis."""

from __future__ import annotations

import re

from kernelevolve_lab.knowledge.advising import inclinations
from kernelevolve_lab.knowledge.diagnosis import Analysis, on_paper
from kernelevolve_lab.knowledge.lessons import Lesson, LessonBook, most_useful
from kernelevolve_lab.knowledge.page import Page
from kernelevolve_lab.knowledge.retrieval import KnowledgeBase
from kernelevolve_lab.proposers.base import ProposalRequest
from kernelevolve_lab.proposers.chat.context import Advice, LanguageNotes
from kernelevolve_lab.proposers.chat.render import fenced, render
from kernelevolve_lab.proposers.chat.settings import ChatSettings
from kernelevolve_lab.records import Candidate

PAGES, LESSONS = 4, 8

_VERBS = {"helped": "Helped", "hurt": "Hurt", "pitfall": "Failed", "winner": "Won"}


_EXAMPLE = re.compile(r"^```[^\n]*\n(?:(?!```)[^\n]*\n){12,}```[ \t]*$", re.MULTILINE)


def without_examples(text: str) -> str:
    """The text of a page without its worked examples, which are fenced blocks of a dozen lines or more."""
    return _EXAMPLE.sub("(The example is left out here.)", text)


class Adviser:
    """Knows the pages and lessons of one run; they are read once, so that a run does not change under its own feet."""

    def __init__(self, settings: ChatSettings, language: LanguageNotes) -> None:
        self._settings, self._language = settings, language
        self.pages = KnowledgeBase.load()
        self._lessons = LessonBook().all() if settings.lessons else {}

    def advise(self, request: ProposalRequest, analysis: Analysis | None) -> Advice:
        """Rules, diagnosis, pages and lessons for a request; what the settings switch off is empty. Without an analysis pages are found by
        the operator alone."""
        settings, target = self._settings, request.target
        rules = self.pages.constraints(target.vendor, request.language)
        profile = request.state.config.profile if request.state.config else "laptop"
        # What an operator does is known without any diagnosis; what limits a kernel is not.
        phase, limit = ("improve", "") if request.parents else ("draft", on_paper(request.operator, target, profile))
        if analysis:
            phase, limit = analysis.phase, analysis.bottleneck
        hits = ()
        if settings.knowledge:
            found = analysis or Analysis("", "")
            hits = self.pages.search(found.query(request.operator, target, request.language, profile), PAGES)
        lessons = most_useful(self._lessons, request.operator, target, request.language, LESSONS)
        return Advice(
            rules=render("rules", pages=rules) if rules else "",
            diagnosis=render("diagnosis", analysis=analysis) if analysis else "",
            inclinations=inclinations(phase, limit, bool(analysis and analysis.advice)),
            knowledge=tuple(self._page(hit.page, whole=not request.parents or not number) for number, hit in enumerate(hits)),
            lessons=tuple(self._lesson(lesson, with_source=not request.parents) for lesson in lessons),
        )

    def carried_over(self, request: ProposalRequest) -> Candidate | None:
        """For the first request of a run: the winner of an earlier run of the same operator on the same target, to be judged anew."""
        if request.index != 0 or request.parents or request.state.entries:
            return None
        for lesson in most_useful(self._lessons, request.operator, request.target, request.language, LESSONS):
            if lesson.source and (lesson.operator, lesson.target) == (request.operator.name, request.target.name):
                notes = f"Carried over from {'; '.join(lesson.evidence) or 'an earlier run'}: {lesson.text}"
                title = "carried over: the winner of an earlier run"
                return Candidate(language=request.language, source=lesson.source, proposer="lesson", title=title, notes=notes)
        return None

    def _page(self, page: Page, whole: bool) -> str:
        """A page for a prompt. Where a kernel is there to be improved, only the best page keeps its worked examples."""
        return render("page", page=page, teaching=page.teaching if whole else without_examples(page.teaching))

    def _lesson(self, lesson: Lesson, with_source: bool) -> str:
        against = "over the main baseline" if lesson.kind == "winner" else "against its parent"
        return render(
            "lesson",
            lesson=lesson,
            verb=_VERBS[lesson.kind],
            measure=f"{lesson.gain} {against}",
            with_source=with_source,
            fence_tag=self._language.fence_tag,
            fenced=fenced,
        )
