"""The engine of a search: the loop that proposes and judges, its policies and budgets, and the handle by which people watch and steer it.

The room is not called `search`, since `kernelevolve_lab.search` is the function that starts one.
"""
