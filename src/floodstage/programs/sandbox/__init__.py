"""Untrusted programs run apart from the machine: an engine per core, a locked child per program.

    driver (pool.py) -> engine (engine.py) -> zygote (zygote.py) -> child (candidate.py, checks.py)
    driver (cluster.py) -> Ray actor on every node (node.py) -> pool.py, and on as above

The engine is exec'd with an empty environment and watches one job at a time (`watch.py`); its
zygotes are pre-warmed and fork a child per program, which locks itself up (`lockdown.py`) before it
reads the program. Only JSON crosses (`values.py`). Answers stay in the driver or with the checks.
"""
