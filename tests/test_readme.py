"""The README's example runs, and its tables are those of the kept summaries."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
ASSETS = ROOT / "src/floodstage/assets"


@pytest.mark.skipif(not (ASSETS / "math-mini").is_dir(), reason="math-mini is not shipped here")
def test_the_quickstart_runs_and_answers_right(tmp_path: Path) -> None:
    match = re.search(r"<!-- example quickstart -->\n```python\n(.*?)```", README, re.DOTALL)
    assert match is not None
    script = tmp_path / "quickstart.py"
    script.write_text(match[1])
    assert len([x for x in match[1].splitlines() if x.strip()]) <= 10
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        runpy.run_path(str(script))
    assert r"\boxed{349}" in said.getvalue()
    assert "tokens per target pass" in said.getvalue()


PAGES = {"README.md": README} | {
    page.name: page.read_text() for page in (ROOT / "docs/experiments").glob("*.md")
}


def tables() -> list[tuple[str, str]]:
    return [
        (page, x) for page, text in PAGES.items() for x in re.findall(r"<!-- table (\S+) -->", text)
    ]


@pytest.mark.parametrize(("page", "name"), tables())
def test_a_table_is_that_of_its_kept_summary(page: str, name: str) -> None:
    kept = ROOT / "benchmarks/results" / name / "summary.md"
    section = PAGES[page].split(f"<!-- table {name} -->")[1].split(f"<!-- end {name} -->")[0]
    if not kept.is_file():
        assert section.strip() == "", "a table without a run behind it"
        pytest.skip("not measured yet")
    assert kept.read_text().strip() in section
    assert "    floodstage " in section, "a table must name the command that made it"


def test_every_picture_is_there() -> None:
    for page in (ROOT / "docs/experiments").glob("*.md"):
        for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / picture).is_file(), picture
