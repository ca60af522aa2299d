"""Interactive figures for a notebook that is kept or published: plotly, made once, never updated. The live view draws on a canvas instead,
which costs a hundredth of it per update."""

from kernelevolve_lab.widgets.figures.progress import progress_figure
from kernelevolve_lab.widgets.figures.roofline import roofline_figure

__all__ = ["progress_figure", "roofline_figure"]
