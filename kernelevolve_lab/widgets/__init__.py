"""The live view of a run and the workbench around it, for any Jupyter front end.

`RunView` shows a run and steers it; `Workbench` adds the choosers that start one. Drawing is hand-written JavaScript in `static/` (no build
step, nothing fetched); every number comes from `rendering`, which the saved report uses as well.
"""
