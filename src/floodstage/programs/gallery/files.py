"""The gallery as files that the commands read: tasks, library, solvers."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from floodstage.programs.gallery.tasks import gallery

LIBRARY = "grids.py"
SOLVERS = ("own", "arc")
"""Solvers of the gallery's tasks, and of some public training tasks of ARC. They are data here:
nothing imports them."""


def write_gallery(folder: Path, seed: int = 0) -> None:
    """`tasks/<name>.json` in ARC's form, `grids.py` and `solvers/*.py`, over what is there."""
    (folder / "tasks").mkdir(parents=True, exist_ok=True)
    (folder / "solvers").mkdir(exist_ok=True)
    for name, task in gallery(seed).items():
        parts: dict[str, list[object]] = {"train": [], "test": []}
        for sample in task.samples:
            pair = {"input": sample.inputs[0], "output": sample.expected}
            parts["train" if sample.part == "demo" else "test"].append(pair)
        (folder / "tasks" / f"{name}.json").write_text(json.dumps(parts))
    here = files("floodstage.programs.gallery")
    (folder / LIBRARY).write_text((here / LIBRARY).read_text())
    for name in SOLVERS:
        text = (here / "solvers" / f"{name}.txt").read_text()
        (folder / "solvers" / f"{name}.py").write_text(text)
