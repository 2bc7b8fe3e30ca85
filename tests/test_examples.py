"""Every example runs, and prints what it promises."""

from __future__ import annotations

import contextlib
import io
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = (ROOT / "src/floodstage/assets/math-mini").is_dir()


@pytest.mark.skipif(not SHIPPED, reason="math-mini is not shipped here")
@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_an_example_runs(path: Path) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        runpy.run_path(str(path))
    assert "tau" in said.getvalue()
    assert "False" not in said.getvalue()
