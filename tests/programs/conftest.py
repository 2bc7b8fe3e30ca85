"""Tasks and programs that tests write for themselves, and the real data where it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("FLOODSTAGE_DATA", Path(__file__).parents[3] / "shared" / "data"))
PAIR = {"input": [[1, 2], [3, 4]], "output": [[3, 4], [1, 2]]}
ASKED = {"input": [[5, 6], [7, 8]], "output": [[7, 8], [5, 6]]}
FLIP = {"train": [PAIR], "test": [ASKED]}
"""A task of our own: the rows in reverse."""
ADD = {
    "task_id": "Own/0",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(f):\n    assert f(1, 2) == 3\n    assert f(-1, 1) == 0\n",
}
"""A problem of our own in HumanEval's form."""


@pytest.fixture
def humaneval() -> Path:
    path = DATA / "humaneval" / "HumanEval.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no HumanEval at {path} (FLOODSTAGE_DATA names the folder)")
    return path


@pytest.fixture
def arc() -> Path:
    path = DATA / "arc" / "training"
    if not path.is_dir():
        pytest.skip(f"no ARC tasks at {path} (FLOODSTAGE_DATA names the folder)")
    return path


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Write a file below the test's folder: text as it is, a list as JSONL, all else as JSON."""

    def put(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return put
