"""Tasks, a library of grid functions and solvers of our own: what `programs demo` runs.

`grids.py` is preloaded into a program's process, where what is in `solvers/` imports it by its bare
name; the driver imports neither.
"""
