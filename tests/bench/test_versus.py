"""`floodstage compare`: two runs beside each other, worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from floodstage.bench.trace import RunTrace, read_trace
from floodstage.bench.versus import compare_runs, markdown
from floodstage.cli.analyze import compare
from floodstage.core.errors import ConfigError, RunError


def cycles(*gained: int) -> dict[str, list[Any]]:
    n = len(gained)
    counts = {name: [9] * n for name in ("drafted", "verified", "reach")}
    counts |= {"accepted": [g - 1 for g in gained], "gained": list(gained)}
    times = {name: [0.1] * n for name in ("draft_s", "verify_s", "judge_s")}
    return counts | times | {"seeded": [0] * n, "rows": [10] * n, "confidence": [[]] * n}


def row(arm: str, prompt: int, wall_s: float, *gained: int, **changes: Any) -> dict[str, Any]:
    given = {
        "schema_version": 2,
        "arm": arm,
        "lossless": True,
        "prompt": prompt,
        "turn": 0,
        "pass": 0,
        "group": "",
        "ids": [prompt, 1, 2, 3, 4],
        "finish": "stop",
        "right": None,
        "ttft_s": 0.1,
        "wall_s": wall_s,
        "repeated_4grams": 0.0,
        "cycles": cycles(*gained),
    }
    return given | changes


OLD = [row("a", 0, 2.0, 4), row("a", 1, 2.0, 2, 2), row("a", 2, 1.0, 4), row("gone", 0, 1.0, 4)]
NEW = [
    row("a", 0, 1.0, 1, 1, 1, 1),
    row("a", 0, 1.0, 1, 1, 1, 1, **{"pass": 1}),
    row("a", 1, 4.0, 4, ids=[1, 1, 2, 9, 4]),
    row("new", 0, 0.5, 2, 2),
]


def run(folder: Path, rows: Sequence[dict[str, Any]], **env: Any) -> Path:
    folder.mkdir()
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    known = {"prompt_hash": "ab12", "threads": 1, "settings": {"seed": 0, "dtype": "fp32"}}
    (folder / "env.json").write_text(json.dumps(known | env))
    return folder


@pytest.fixture
def old(tmp_path: Path) -> RunTrace:
    return read_trace(run(tmp_path / "old", OLD))


@pytest.fixture
def new(tmp_path: Path) -> RunTrace:
    settings = {"seed": 0, "dtype": "bf16"}
    return read_trace(run(tmp_path / "new", NEW, threads=2, settings=settings))


def test_arms_of_one_name_are_paired_on_the_prompts_of_both(old: RunTrace, new: RunTrace) -> None:
    found = compare_runs(old, new)
    (pair,) = found.pairs
    assert (pair.arm_a, pair.arm_b, pair.prompts) == ("a", "a", 2)  # prompt 2 is only in A
    assert pair.tokens_per_s_a == 10 / 4
    assert pair.tokens_per_s_b == 15 / 6
    assert pair.ratio.value == pytest.approx(1.0)
    assert (pair.ratio.low, pair.ratio.high) == (pytest.approx(0.5), pytest.approx(2.0))
    assert pair.tau_a == 8 / 3
    assert pair.tau_b == 12 / 9
    assert pair.tau_difference is not None
    assert pair.tau_difference.value == pytest.approx(12 / 9 - 8 / 3)
    # both draws the first prompt: 1 − 4; both the second: 4 − 2
    assert (pair.tau_difference.low, pair.tau_difference.high) == (-3.0, 2.0)
    assert pair.identical == 1
    assert (found.only_a, found.only_b) == (("gone",), ("new",))


def test_only_settings_that_differ_are_told(old: RunTrace, new: RunTrace) -> None:
    found = compare_runs(old, new)
    assert found.settings == {"threads": (1, 2), "settings.dtype": ("fp32", "bf16")}
    text = markdown(found)
    assert "| settings.dtype | fp32 | bf16 |" in text
    assert (
        "| a | 2 | 2.5 | 2.5 | 1.00 [0.50, 2.00] | 2.67 | 1.33 | -1.33 [-3.00, 2.00] | 1/2 |"
        in text
    )
    assert "Only in A: gone." in text
    assert "the same by env.json" in markdown(compare_runs(old, old))


def test_a_run_against_itself_shows_no_difference(old: RunTrace) -> None:
    for pair in compare_runs(old, old).pairs:
        assert (pair.ratio.value, pair.ratio.low, pair.ratio.high) == (1, 1, 1)
        assert pair.tau_difference is not None
        assert (pair.tau_difference.low, pair.tau_difference.high) == (0, 0)
        assert pair.identical == pair.prompts


def test_one_arm_or_two_of_different_names(old: RunTrace, new: RunTrace) -> None:
    assert [p.name for p in compare_runs(old, new, "a").pairs] == ["a"]
    (pair,) = compare_runs(old, new, "gone, new").pairs
    assert pair.name == "gone → new"
    assert pair.ratio.value == pytest.approx(2.0)


def test_the_same_ids_are_those_of_every_pass_and_turn(tmp_path: Path, old: RunTrace) -> None:
    first, second = row("a", 0, 1.0, 4), row("a", 0, 1.0, 4, **{"pass": 1})
    other = second | {"ids": [7, 7]}
    later = second | {"pass": 0, "turn": 1, "ids": [7, 7]}
    for i, (rows, same) in enumerate((([first, second], 1), ([first, other], 0))):
        assert (
            compare_runs(old, read_trace(run(tmp_path / f"{i}", rows))).pairs[0].identical == same
        )
    talk = read_trace(run(tmp_path / "talk", [first, later]))
    assert compare_runs(talk, talk).pairs[0].identical == 1


def test_an_arm_that_is_not_there(old: RunTrace, new: RunTrace) -> None:
    with pytest.raises(ConfigError, match=r"'new'.*'gone'.*Known: a, new"):
        compare_runs(old, new, "gone")
    with pytest.raises(ConfigError, match="NAME_A,NAME_B, got 'a,a,a'"):
        compare_runs(old, new, "a,a,a")
    with pytest.raises(ConfigError, match="NAME_A,NAME_B"):
        compare_runs(old, new, "a,")


def test_runs_of_other_prompts_are_not_compared(tmp_path: Path, old: RunTrace) -> None:
    other = read_trace(run(tmp_path / "other", OLD, prompt_hash="cd34"))
    with pytest.raises(RunError, match="'ab12' in 'old', 'cd34' in 'other'"):
        compare_runs(old, other)
    silent = read_trace(run(tmp_path / "silent", OLD, prompt_hash=None))
    with pytest.raises(RunError, match="'silent' does not say which prompts"):
        compare_runs(old, silent)
    (tmp_path / "silent" / "env.json").unlink()
    with pytest.raises(RunError, match=r"env\.json is missing"):
        compare_runs(read_trace(tmp_path / "silent"), old)


def test_nothing_in_common(tmp_path: Path, old: RunTrace) -> None:
    apart = read_trace(run(tmp_path / "apart", [row("x", 0, 1.0, 4)]))
    with pytest.raises(RunError, match="share no arm"):
        compare_runs(old, apart)
    later = read_trace(run(tmp_path / "later", [row("a", 7, 1.0, 4)]))
    with pytest.raises(RunError, match="no prompt in common"):
        compare_runs(old, later)


def test_an_arm_without_cycles_has_no_tau(tmp_path: Path, old: RunTrace) -> None:
    peer = read_trace(run(tmp_path / "peer", [row("a", 0, 1.0)]))
    (pair,) = compare_runs(old, peer).pairs
    assert (pair.tau_a, pair.tau_b, pair.tau_difference) == (4.0, None, None)
    assert pair.ratio.value == 2.0


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(compare)
    return app


def test_the_command_prints_markdown_or_one_document(app: typer.Typer, tmp_path: Path) -> None:
    error = {"schema_version": 2, "arm": "b", "error": "out of memory"}
    a, b = str(run(tmp_path / "old", OLD)), str(run(tmp_path / "new", [*NEW, error]))
    done = CliRunner().invoke(app, [a, b], catch_exceptions=False)
    assert done.exit_code == 0
    assert "| a | 2 | 2.5 | 2.5 | 1.00 [0.50, 2.00] |" in done.stdout
    assert "B (new): arm b failed: out of memory" in done.stderr

    done = CliRunner().invoke(app, [a, b, "--arm", "gone,new", "--json"], catch_exceptions=False)
    (line,) = done.stdout.splitlines()
    (pair,) = json.loads(line)["pairs"]
    assert (pair["arm_a"], pair["arm_b"]) == ("gone", "new")
    assert pair["ratio"]["value"] == pytest.approx(2.0)
