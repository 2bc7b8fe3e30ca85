"""sweep, analyze, compare, trace, replay and jacobi as typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MAIN = "from floodstage.cli.main import main; main()"


def floodstage(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-c", MAIN, *map(str, words)], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def words(tiny: Any) -> list[object]:
    return ["--target", tiny.target, "--drafter", tiny.drafter, "--prompts", 2,
            "--max-new-tokens", 12, "--threads", 1, "--device", "cpu"]  # fmt: skip


def test_a_sweep_is_analysed_and_compared(words: list[object], tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    lengths = ["--draft-len", "2-4:2", "--policies", "cost,best-first(nodes=3)"]
    said = floodstage("sweep", *words, *lengths, "--out", out, "--json")
    lines = json.loads(said.stdout.splitlines()[-1])
    name = str(tiny.drafter)
    arms = ["none", f"{name}:2", f"{name}:4", f"{name}+cost", f"{name}+best-first(nodes=3)"]
    assert [line["arm"] for line in lines] == arms
    assert all(line["identical"] == 2 for line in lines)

    told = floodstage("analyze", out, "--json")
    document = json.loads(told.stdout.splitlines()[-1])
    assert document["skipped_lines"] == 0
    made = {p.name for p in (out / "analysis").iterdir()}
    assert {"report.html", "summary.csv", "cycle_trace_flat.csv", "cost_curve.png"} <= made

    again = floodstage("compare", out, out)
    assert "1.00 [1.00, 1.00]" in again.stdout


def test_a_dry_run_measures_nothing(words: list[object], tmp_path: Path) -> None:
    said = floodstage("sweep", *words, "--out", tmp_path / "x", "--draft-len", "2,3", "--dry-run")
    assert [x.strip().rsplit(":", 1)[-1] for x in said.stdout.splitlines()[1:]] == [
        "none",
        "2",
        "3",
    ]
    assert not (tmp_path / "x").exists()


def test_a_trace_is_replayed(words: list[object], tmp_path: Path) -> None:
    floodstage("trace", *words, "--out", tmp_path)
    said = floodstage("replay", tmp_path, "--policies", "fixed:1-5,cost,oracle", "--json")
    scores = json.loads(said.stdout.splitlines()[-1])
    assert len(scores) == 7
    assert scores[-1]["policy"] == "oracle"


def test_jacobi_is_traced(tiny: Any, tmp_path: Path) -> None:
    asked = ["--target", tiny.target, "--prompts", 2, "--tokens", 8, "--sketch", "0,50"]
    more = ["--fill", "random", "--threads", 1, "--device", "cpu", "--out", tmp_path, "--json"]
    said = floodstage("jacobi", *asked, *more)
    titles = [table["title"] for table in json.loads(said.stdout.splitlines()[-1])]
    assert titles[-1] == "The way to the fixed point"
    assert {p.name for p in tmp_path.iterdir()} == {
        *("env.json", "records.jsonl", "summary.md", "summary.json", "accuracy_by_step.png")
    }


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("sweep", "--out", "x", "--draft-len", "4-"), 2, "4-16:2"),
        (("jacobi", "--out", "x", "--sketch", "0,100"), 2, "from 0 to 99"),
        (("jacobi", "--out", "x", "--sketch", "-5"), 2, "got '-5'"),
        (("replay", "nowhere"), 1, "holds no trace"),
        (("analyze", "nowhere"), 1, "nowhere"),
        (("compare", "nowhere", "there"), 1, "nowhere"),
        (("generate", "x", "--scheduler", "csot"), 2, "Did you mean 'cost'"),
        (("generate", "x", "--candidates", "beem"), 2, "Did you mean 'beam'"),
        (("generate", "x", "--seeding", "dence"), 2, "Did you mean 'dense'"),
        (("generate", "x", "--scheduler", "cost(memroy=1)"), 2, "Did you mean 'memory'"),
        (("generate", "x", "--drafter", "ngram", "--candidates", "beam"), 2, "is none"),
        (("generate", "x", "--candidates", "beam", "--seeding", "dense"), 2, "not both"),
        (("generate", "x", "--candidates", "beam", "--verifier", "reject"), 2, "chains only"),
    ],
)
def test_a_mistake_is_one_sentence(given: tuple[str, ...], code: int, said: str) -> None:
    assert said in floodstage(*given, code=code).stderr
