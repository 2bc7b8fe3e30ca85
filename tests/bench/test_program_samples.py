"""Sampled programs: each is what its seed gives alone, a killed run ends the same."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from floodstage.bench import program_samples
from floodstage.bench.program_samples import SAMPLES, STOPS, SampleConfig, sample_programs
from floodstage.core.errors import ConfigError, InputError, RunError
from floodstage.engine.build import load
from floodstage.programs.inputs.candidates import read_candidates
from floodstage.programs.inputs.problems import read_problems
from floodstage.programs.records import CheckTask, DataTask, Task
from floodstage.programs.sandbox.lockdown import best_level
from floodstage.programs.store.outputs import pass_at_k
from floodstage.programs.validate import ValidateConfig

pytestmark = pytest.mark.skipif(
    not (Path(str(files("floodstage"))) / "assets/code-mini").is_dir(),
    reason="code-mini is not shipped here",
)


def problem(name: str, prompt: str, check: str) -> CheckTask:
    return CheckTask(name, prompt, f"def check(f):\n    assert {check}\n", ("f",), True)


TASKS: dict[str, Task] = {
    "same": problem("same", "def f(a):\n    x = a\n    return", "f(1) == 1"),
    "never": problem("never", "def f(a):\n    return a", "f(1) == 'never'"),
}


def config(**changes: Any) -> SampleConfig:
    given = {"n": 6, "max_new_tokens": 12, "threads": 1, "seed": 3,
             "validate": ValidateConfig(isolation=best_level().value)}  # fmt: skip
    return SampleConfig(**(given | changes))


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / SAMPLES).read_text().splitlines()]


def by_sample(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["task_id"], row["sample"]): row for row in rows(out)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("samples")
    sample_programs(config(), TASKS, out, progress=False)
    return out


def test_the_summary_is_that_of_samples_and_verdicts(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    given = rows(whole)
    results = [json.loads(x) for x in (whole / "samples_results.jsonl").read_text().splitlines()]
    assert len(given) == len(results) == summary["samples"] == 12
    right = Counter(row["task_id"] for row in results if row["passed"])
    assert 0 < right["same"] < 6  # else the next line could not fail
    assert right["never"] == 0
    assert summary["pass_at"] == {"pass@1": pytest.approx(pass_at_k(6, right["same"], 1) / 2)}
    assert summary["solved"] == 1
    assert summary["tokens"] == sum(row["tokens"] for row in given)
    gained, cycles = (sum(row[name] for row in given) for name in ("gained", "cycles"))
    assert summary["tau"] == pytest.approx(gained / cycles)
    assert summary["tau"] > 1.0  # drafted


def test_samples_differ_and_each_is_what_it_is_alone(whole: Path) -> None:
    """Whatever the batch, the drafter or the other samples."""
    found = by_sample(whole)
    assert len({row["completion"] for row in found.values()}) > 6
    engine = load("code-mini", drafter="none", threads=1)
    for name, number in (("same", 2), ("never", 5)):
        seed = program_samples._seed(3, name, number)
        task = TASKS[name]
        assert isinstance(task, CheckTask)
        alone = engine.generate(task.prompt, max_new_tokens=12, temperature=0.8, top_p=0.95,
                                seed=seed, stop=STOPS, chat=False)  # fmt: skip
        assert found[name, number]["completion"] == alone.text


def test_a_killed_run_ends_the_same(whole: Path, tmp_path: Path) -> None:
    """Four samples and a half were written."""
    with pytest.raises(RunError, match="another settings"):
        sample_programs(config(temperature=0.7), TASKS, whole, progress=False)
    out = tmp_path / "cut"
    out.mkdir()
    lines = (whole / SAMPLES).read_text().splitlines(keepends=True)
    (out / SAMPLES).write_text("".join(lines[:4]) + lines[4][:20])
    sample_programs(config(slots=2), TASKS, out, progress=False)
    assert (out / SAMPLES).read_text().startswith("".join(lines[:4]))
    assert by_sample(out) == by_sample(whole)


def test_more_samples_go_on_from_fewer(whole: Path, tmp_path: Path) -> None:
    sample_programs(config(n=2), TASKS, tmp_path, progress=False)
    few = rows(tmp_path)
    assert sample_programs(config(), TASKS, tmp_path, progress=False).samples == 12
    assert rows(tmp_path)[:4] == few
    assert by_sample(tmp_path) == by_sample(whole)


def test_what_does_not_fit_is_left_out_and_said(tmp_path: Path) -> None:
    long = problem("long", "def f(a):\n" + "    a = a + 1\n" * 400, "f(1)")
    found = sample_programs(config(n=1), {**TASKS, "long": long}, tmp_path, progress=False)
    assert (found.problems, found.too_long, found.samples) == (2, ("long",), 2)
    assert "1 more problems" in (tmp_path / "summary.md").read_text()


def test_mistakes_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="At temperature 0 all 6 samples"):
        config(temperature=0.0)
    with pytest.raises(ConfigError, match="n must be at least 1"):
        config(n=0)
    for task in (DataTask("t", (), ("solve",)), CheckTask("t", "", "", ("f",), False)):
        with pytest.raises(InputError, match="'t' has nothing to go on from"):
            sample_programs(config(), {"t": task}, tmp_path, progress=False)


def test_a_file_of_problems_is_what_is_asked(tmp_path: Path) -> None:
    row = {"task_id": "Own/0", "prompt": "def f(a):\n", "entry_point": "f",
           "test": "def check(f):\n    assert f(1) == 1\n"}  # fmt: skip
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row))
    tasks: dict[str, Task] = {task.id: task for task in read_problems(path)}
    found = sample_programs(config(n=2, drafter="ngram"), tasks, tmp_path / "run", progress=False)
    assert (found.samples, found.drafter) == (2, "ngram")
    assert sum(found.verdicts.values()) == 2


def test_a_whole_program_is_asked_for_with_the_tests_that_none_of_it_holds(tmp_path: Path) -> None:
    row = {"task_id": 7, "text": "Give it back.", "test_list": ["assert f(1) == 1"]}
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(row))
    tasks: dict[str, Task] = {task.id: task for task in read_problems(path)}
    found = sample_programs(config(n=2, drafter="ngram"), tasks, tmp_path / "run", progress=False)
    assert (found.problems, found.samples) == (1, 2)
    written = read_candidates(tmp_path / "run" / SAMPLES, tasks)
    assert [c.source for c in written] == [row["completion"] for row in rows(tmp_path / "run")]
