"""Packs the sections of a prompt into a token budget, by priority.

Each section offers variants of its text, longest first. A required section always keeps at least its shortest variant; an optional one
may be left out. Sections are served in order of priority: each takes its longest variant that still fits beside what is required and what
more important sections already took. The order in which sections appear in the prompt is another matter and stays as given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

BYTES_PER_TOKEN = 3.5
"""What English and C++ come to with current byte-pair vocabularies, rounded down; good for packing, never used for money."""


@dataclass(frozen=True)
class Section:
    """A part of a prompt. `variants` are its texts from the fullest to the shortest; a lower `priority` number is more important."""

    name: str
    priority: int
    variants: tuple[str, ...]
    required: bool = False


@dataclass(frozen=True)
class Packed:
    """The text chosen for each section that made it, in the order given; `shortened` and `dropped` name the others' fate."""

    texts: dict[str, str]
    tokens: int
    shortened: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def estimate(text: str) -> int:
    """About how many tokens a text has."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def pack(sections: Sequence[Section], tokens: int) -> Packed:
    """Choose a variant for each section so that the estimate stays within `tokens`, unless the required minimum alone is more."""
    offered = [section for section in sections if any(section.variants)]
    chosen: dict[str, str] = {section.name: section.variants[-1] for section in offered if section.required}
    used = sum(estimate(text) for text in chosen.values())
    for section in sorted(offered, key=lambda section: section.priority):
        held = estimate(chosen[section.name]) if section.required else 0
        for variant in section.variants:
            size = estimate(variant)
            if used - held + size <= tokens:
                chosen[section.name] = variant
                used += size - held
                break
    kept = {section.name: chosen[section.name] for section in offered if chosen.get(section.name)}
    return Packed(
        kept,
        used,
        tuple(section.name for section in offered if section.name in kept and kept[section.name] != section.variants[0]),
        tuple(section.name for section in offered if section.name not in kept),
    )
