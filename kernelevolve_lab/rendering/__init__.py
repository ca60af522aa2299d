"""How things are shown, without any front end: numbers as text, figures as data, and self-contained HTML and SVG.

Everything here is a pure function of records. The widgets draw the same data live; the exported report and the saved notebook use the HTML
and SVG made here. Text that came from outside (candidates, titles, compiler output, prompts) is always escaped.
"""
