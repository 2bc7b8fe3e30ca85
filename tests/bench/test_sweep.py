"""Arms of a sweep, arms that fail, and a run that is killed again and again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from floodstage.bench.compare import BenchConfig, bench
from floodstage.bench.records import read_records
from floodstage.bench.sweep import lengths, sweep_arms
from floodstage.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("4,8,12", [4, 8, 12]),
        ("4-8", [4, 5, 6, 7, 8]),
        ("4-16:6", [4, 10, 16]),
        ("8, 2-3", [2, 3, 8]),
    ],
)
def test_draft_lengths(text: str, want: list[int]) -> None:
    assert lengths(text) == want


@pytest.mark.parametrize("text", ["", "0", "a", "4-", "8-4", "4-8:0", "-3"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="got"):
        lengths(text)


def test_arms_share_one_baseline() -> None:
    arms = sweep_arms("auto", "4,8", ["ewma", "best-first+cost"])
    assert arms == ("none", "auto:4", "auto:8", "auto+ewma", "auto+best-first+cost")
    assert sweep_arms("auto", "", ["cost"]) == ("none", "auto+cost")


def config(tiny: Any, *arms: str) -> BenchConfig:
    return BenchConfig(target=str(tiny.target), arms=arms, prompts=2, max_new_tokens=12,
                       device="cpu", threads=1)  # fmt: skip


def test_an_arm_that_cannot_be_made_becomes_an_error_row(tiny: Any, tmp_path: Path) -> None:
    asked = config(tiny, "none", "ngram:4", "ngram:4+rolling", "ngram+beam")
    lines = bench(asked, tmp_path, progress=False, keep_going=True)
    assert [line.arm for line in lines] == ["none", "ngram:4"]
    errors = [r for r in read_records(tmp_path / "records.jsonl") if "error" in r]
    assert [r["arm"] for r in errors] == ["ngram:4+rolling", "ngram+beam"]
    assert "ngram+beam failed: ConfigError" in (tmp_path / "summary.md").read_text()
    with pytest.raises(ConfigError):
        bench(asked, tmp_path, progress=False)


def test_the_policies_of_a_sweep_write_the_baselines_ids(tiny: Any, tmp_path: Path) -> None:
    drafter = str(tiny.drafter)
    words = ("cost", "best-first(nodes=4)", "beam+confidence", "adaptive-prefix-rank",
             "seed-dense", "seed-branch", "rolling(block_sizes=2/4/6)")  # fmt: skip
    arms = ("none", *(f"{drafter}+{word}" for word in words))
    lines = bench(config(tiny, *arms), tmp_path, progress=False)
    assert [line.arm for line in lines] == list(arms)
    assert all(line.identical == line.prompts == 2 for line in lines)


SWEEP = """
import sys
from floodstage.bench.compare import BenchConfig, bench
from pathlib import Path
bench(BenchConfig(target=sys.argv[1], arms=("none", "ngram:4", sys.argv[2] + "+cost"), prompts=6,
                  max_new_tokens=24, device="cpu", threads=1), Path(sys.argv[3]), progress=False)
"""


def truth(folder: Path) -> list[tuple[Any, ...]]:
    rows = [r for r in read_records(folder / "records.jsonl") if "error" not in r]
    return sorted((r["arm"], r["prompt"], r["pass"], r["ids"], r["finish"]) for r in rows)


def kill_and_resume(tiny: Any, tmp_path: Path, kills: int) -> None:
    """A run killed with SIGKILL at random moments ends with the records of an unbroken one."""
    rng = random.Random(kills)
    command = [sys.executable, "-c", SWEEP, str(tiny.target), str(tiny.drafter)]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start = time.monotonic()
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    took = time.monotonic() - start
    died = 0
    for _ in range(kills):
        work = subprocess.Popen([*command, str(broken)], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            work.wait(rng.uniform(0.5, 1.0) * took)
        except subprocess.TimeoutExpired:
            os.kill(work.pid, signal.SIGKILL)
            work.wait()
            died += 1
    subprocess.run([*command, str(broken)], check=True, capture_output=True)
    assert died or kills < 3, "no run was killed: the test shows nothing"
    assert truth(broken) == truth(whole)
    assert json.loads((broken / "summary.json").read_text())


def test_a_killed_sweep_goes_on(tiny: Any, tmp_path: Path) -> None:
    kill_and_resume(tiny, tmp_path, 2)


@pytest.mark.slow
def test_a_sweep_killed_ten_times_goes_on(tiny: Any, tmp_path: Path) -> None:
    kill_and_resume(tiny, tmp_path, 10)
