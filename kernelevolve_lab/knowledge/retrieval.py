"""Finds the pages that fit a diagnosis: first by tags, then by words (BM25).

Pages come from this package's `content/` and from people's own folders: `<data folder>/knowledge`, and those that `KERNELEVOLVE_KNOWLEDGE`
names (separated as in PATH). A page of a person's own takes the place of a shipped one of the same name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernelevolve_lab import paths
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.knowledge.page import ANY, Page, read

CONTENT = Path(__file__).parent / "content"
WEIGHTS = {"bottleneck": 0.75, "family": 0.5, "phase": 0.25, "language": 0.25, "platform": 0.25}
"""What it adds to a page's score that a tag names the value asked for, rather than being for any; its words add at most 1."""
LEANING = 0.5


@dataclass(frozen=True)
class Query:
    """What is looked for. A page must serve every tag that is asked for (empty: not asked); `words` rank those that do, and so does
    `leaning`, a bottleneck that a page need not serve. Pages about dtypes alone that are not among `dtypes` (empty: not asked) are left
    out."""

    platform: str
    language: str
    bottleneck: str = ""
    phase: str = ""
    family: str = ""
    words: str = ""
    leaning: str = ""
    dtypes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Hit:
    """A page with its score, for people to see why it was chosen."""

    page: Page
    score: float


class KnowledgeBase:
    """A set of pages that can be searched; immutable."""

    def __init__(self, pages: Iterable[Page]) -> None:
        self.pages = {page.name: page for page in sorted(pages, key=lambda page: page.name)}

    @classmethod
    def load(cls, folders: Sequence[Path] | None = None) -> KnowledgeBase:
        """Read all pages of the folders (default: shipped ones and the person's own); later folders win over earlier ones."""
        pages: dict[str, Page] = {}
        for folder in default_folders() if folders is None else folders:
            for path in sorted(folder.rglob("*.md")):
                if path.name.lower() != "readme.md":
                    name = path.relative_to(folder).with_suffix("").as_posix()
                    pages[name] = read(path, name)
        return cls(pages.values())

    def page(self, name: str) -> Page:
        """The page of that name; raises `BadInput` with the names there are."""
        try:
            return self.pages[name.removesuffix(".md").strip("/")]
        except KeyError:
            raise BadInput(f"There is no knowledge page '{name}'; known: {', '.join(self.pages)}.") from None

    def constraints(self, platform: str, language: str) -> tuple[Page, ...]:
        """The rules that hold whatever the diagnosis."""
        rules = [page for page in self.pages.values() if page.name.startswith("constraints/")]
        return tuple(page for page in rules if page.serves("platform", platform) and page.serves("language", language))

    def search(self, query: Query, limit: int = 4) -> tuple[Hit, ...]:
        """The best pages, best first; the same for the same query and pages."""
        fitting = [page for page in self.pages.values() if not page.name.startswith("constraints/") and page.name != "index"]
        for tag in WEIGHTS:
            value = getattr(query, tag)
            fitting = [page for page in fitting if not value or page.serves(tag, value)]
        if query.dtypes:
            fitting = [page for page in fitting if page.dtype & (query.dtypes | ANY)]
        if not fitting:
            return ()
        words = _word_scores(fitting, query.words)
        hits = []
        for page, score in zip(fitting, words, strict=True):
            named = sum(weight for tag, weight in WEIGHTS.items() if getattr(query, tag) and getattr(query, tag) in getattr(page, tag))
            named += LEANING if query.leaning and query.leaning in page.bottleneck else 0.0
            hits.append(Hit(page, round(score + named, 6)))
        return tuple(sorted(hits, key=lambda hit: (-hit.score, hit.page.name))[:limit])


def default_folders() -> list[Path]:
    """The shipped content, then `<data folder>/knowledge`, then those in `KERNELEVOLVE_KNOWLEDGE`; only those that exist.

    Raises `BadInput` where a folder named in the environment does not exist.
    """
    named = [Path(part).expanduser() for part in os.environ.get("KERNELEVOLVE_KNOWLEDGE", "").split(os.pathsep) if part]
    for folder in named:
        if not folder.is_dir():
            raise BadInput(f"KERNELEVOLVE_KNOWLEDGE names {folder}, which is not a folder.")
    own = paths.data_dir() / "knowledge"
    return [CONTENT, *([own] if own.is_dir() else []), *named]


def _word_scores(pages: Sequence[Page], words: str) -> list[float]:
    """BM25 of each page for the words, scaled so that the best is 1 (all 0 where no word occurs)."""
    import bm25s

    asked = bm25s.tokenize([words], stopwords="en", return_ids=False, show_progress=False)[0] if words.strip() else []
    if not asked:
        return [0.0] * len(pages)
    # The title and the summary say what a page is about: they count more than its body.
    texts = [f"{page.name} {page.title} {page.title} {page.summary} {page.summary} {page.body}" for page in pages]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    known = [word for word in asked if word in index.vocab_dict]
    if not known:
        return [0.0] * len(pages)
    scores = index.get_scores(known)
    best = float(scores.max())
    return [float(score) / best if best > 0 else 0.0 for score in scores]
