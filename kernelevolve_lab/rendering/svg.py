"""Figures as inline SVG that follows the page's colours; the numbers come from `figures`."""

from __future__ import annotations

from kernelevolve_lab.records.run_state import RunState


def roofline_svg(state: RunState) -> str:
    """The roofline."""
    return ""


def progress_svg(state: RunState) -> str:
    """Best so far."""
    return ""
