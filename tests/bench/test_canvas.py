"""The bench of canvases on untrained models: every arm, exactness by the law, a killed run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from floodstage.bench.canvas import CanvasBenchConfig, canvas_bench
from floodstage.bench.canvas_plots import filmstrip
from floodstage.bench.canvas_study import CanvasStudyConfig, canvas_study
from floodstage.bench.canvas_tables import DRAFTED, ONE, REFINE, TWIN, crossover, faster
from floodstage.core.errors import ConfigError, RunError
from floodstage.models.canvas import DENOISER, WRITER, fresh_canvas
from floodstage.training.canvas import CanvasShape, save_canvas

SHAPE = CanvasShape(hidden=16, layers=3, heads=2, kv_heads=1, inner=16)
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    found = {}
    for task in ("sum", "latin"):
        for kind in (DENOISER, WRITER):
            save_canvas(root / f"{task}{kind}", fresh_canvas(SHAPE.config(task), kind, 0))
            found[task + kind] = str(root / f"{task}{kind}")
    return found


def config_of(models: dict[str, str]) -> CanvasBenchConfig:
    return CanvasBenchConfig(
        task="sum",
        sizes=((2, 3), (4, 5)),
        batches=(1, 2),
        repeats=2,
        exact=2,
        model=models["sum" + DENOISER],
        twin=models["sum" + WRITER],
    )


def test_every_arm_is_measured_and_a_killed_run_goes_on(
    models: dict[str, str], tmp_path: Path
) -> None:
    config = config_of(models)
    tables = canvas_bench(config, tmp_path)
    rows = [json.loads(x) for x in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 2 * 2 * 4
    assert {r["arm"] for r in rows} == {REFINE, TWIN, DRAFTED, ONE}
    for r in rows:
        # Untrained: the law finds the wrong cells that the comparison finds.
        assert (r["wrong_cells"] == 0) == (r["exact"] == r["batch"])
        if r["arm"] == TWIN:
            assert r["passes"] == r["height"] * r["width"]
    assert [t.title for t in tables][-1] == "Whole grids exact"
    assert (tmp_path / "tokens_vs_time.png").read_bytes()[:4] == PNG
    assert (tmp_path / "latency_vs_cells.png").read_bytes()[:4] == PNG
    kept = (tmp_path / "records.jsonl").read_bytes()
    path = tmp_path / "records.jsonl"
    lines = kept.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-3]) + lines[-3][:20])  # killed while writing
    canvas_bench(config, tmp_path)
    again = [json.loads(x) for x in path.read_text().splitlines()]
    key = [(r["height"], r["batch"], r["repeat"], r["arm"]) for r in again]
    assert sorted(key) == sorted((r["height"], r["batch"], r["repeat"], r["arm"]) for r in rows)
    with pytest.raises(RunError, match="another settings"):
        canvas_bench(replace(config, repeats=3), tmp_path)


def test_models_of_another_task_are_refused(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a model for 'latin', not for 'sum'"):
        canvas_bench(replace(config_of(models), model=models["latin" + DENOISER]), tmp_path)


def timed(side: int, arm: str, seconds: float, repeat: int = 0) -> dict[str, object]:
    return {"height": side, "width": side, "batch": 1, "arm": arm, "seconds": seconds,
            "repeat": repeat}  # fmt: skip


def test_the_crossover_is_where_both_are_equal() -> None:
    rows = [timed(1, REFINE, 4.0), timed(1, TWIN, 1.0), timed(4, REFINE, 4.0),
            timed(4, TWIN, 16.0)]  # fmt: skip
    assert "below about 4 cells" in crossover(rows)
    ratio = faster(rows, (1, 4, 4), REFINE, TWIN)
    assert ratio is not None
    assert ratio.value == 4.0
    assert "faster at every size" in crossover(rows[2:])
    assert "twin is faster at every size" in crossover(rows[:2])


def test_a_study_tries_every_way(models: dict[str, str], tmp_path: Path) -> None:
    config = CanvasStudyConfig(
        task="latin",
        size=4,
        puzzles=3,
        passes=(1, 3),
        model=models["latin" + DENOISER],
        twin=models["latin" + WRITER],
    )
    (table,) = canvas_study(config, tmp_path)
    assert len(table.rows) == 2 * len(config.ways()) + 2
    assert (tmp_path / "exactness_vs_passes.png").read_bytes()[:4] == PNG
    assert (tmp_path / "filmstrip.png").read_bytes()[:4] == PNG


def test_a_filmstrip_of_one_frame() -> None:
    assert filmstrip([[[None]]], ["given"])[:4] == PNG
