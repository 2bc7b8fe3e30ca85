"""From a corpus to a manager and a renderer, to streamed text, a ladder and a study."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from floodstage.bench.flood import LadderConfig, ladder
from floodstage.bench.flood_study import StudyConfig, run_study
from floodstage.cli.main import main
from floodstage.core.errors import (
    CheckpointError,
    ConfigError,
    ContextError,
    PairingError,
    RunError,
)
from floodstage.decoding.draws import Drawing
from floodstage.engine.flood import BETWEEN, Flood, load_flood
from floodstage.models.fractal import fresh_renderer
from floodstage.models.load import load_renderer
from floodstage.text.hierarchy import SPECIAL, Hierarchy
from floodstage.text.tokenizer import Tokenizer
from floodstage.training.fit import FitConfig
from floodstage.training.renderer import (
    RendererShape,
    RendererTask,
    bucket,
    held_out_misses,
    near_misses,
    tables,
)
from floodstage.training.run import train_renderer, train_target

from .conftest import CPU, MANAGER_RUN, RENDERER_RUN, TinyFlood
from .tiny import tiny_hierarchy, tiny_renderer


def flood_of(tiny: TinyFlood, **settings: Any) -> Flood:
    return load_flood(
        str(tiny.manager),
        renderer=str(tiny.renderer),
        device="cpu",
        **{"drafter": "none"} | settings,
    )


# --- Training ------------------------------------------------------------------------------------


def test_a_renderer_learns_its_table(tiny_flood: TinyFlood) -> None:
    last = tiny_flood.said[-1]
    figures = dict(part.rsplit(" ", 1) for part in last.split(" · "))
    assert float(figures["root_chunks"]) > 0.5  # a twentieth of what the shipped one was given
    assert float(figures["chunk_chars"]) > 0.5
    assert float(figures["auroc_chars"]) > 0.8
    assert {"config.json", "model.safetensors", "hierarchy.json", "MODEL_CARD.md"} <= {
        p.name for p in tiny_flood.renderer.iterdir()
    }


def test_a_killed_training_goes_on_to_the_same_weights(
    tiny_flood: TinyFlood, tiny: Any, tmp_path: Path
) -> None:
    fit = FitConfig(steps=6, tokens_per_step=320, evaluate_every=3, save_every_s=0.0)
    run = replace(
        RENDERER_RUN, corpus=str(tiny.corpus), manager=str(tiny_flood.manager), texts=20, fit=fit
    )
    whole = train_renderer(run, tmp_path / "whole", CPU, lambda _: None)

    class KilledError(Exception):
        pass

    def kill(line: str) -> None:
        if line.startswith("step 3"):
            raise KilledError

    with pytest.raises(KilledError):  # after the evaluation of step 3, with step 2 on disk
        train_renderer(run, tmp_path / "killed", CPU, kill)
    again = train_renderer(run, tmp_path / "killed", CPU, lambda _: None)
    assert (whole / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="another configuration"):
        train_renderer(replace(run, texts=21), tmp_path / "killed", CPU, lambda _: None)


def test_near_misses_are_near_and_missed() -> None:
    table = tables(tiny_hierarchy(), torch.arange(560))[1]
    generator = torch.Generator().manual_seed(0)
    children, lengths = table.children.repeat(4, 1), table.lengths.repeat(4)
    missed, sizes = near_misses(children, lengths, 330, generator)
    assert int(sizes.min()) >= 1
    assert int(sizes.max()) <= children.shape[1]
    differ = [
        (a[:n], b[:m]) for a, n, b, m in
        zip(children.tolist(), lengths.tolist(), missed.tolist(), sizes.tolist(), strict=True)
    ]  # fmt: skip
    same = sum(a == b for a, b in differ)
    assert same < 0.02 * len(differ)  # two equal neighbours exchanged; not counted as wrong
    kinds = {len(b) - len(a) for a, b in differ}
    assert kinds == {-1, 0, 1}
    assert all(not any(b[m:]) for b, m in zip(missed.tolist(), sizes.tolist(), strict=True))


def test_held_out_candidates_are_never_shown_as_wrong() -> None:
    hierarchy = tiny_hierarchy()
    truth = tables(hierarchy, torch.arange(560))
    model = fresh_renderer(tiny_renderer().config, 0)
    task = RendererTask(model, hierarchy, truth, RendererShape(), FitConfig(tokens_per_step=4000))
    lesson = task.lesson(torch.Generator().manual_seed(5))
    start = lesson.alone + lesson.noised
    rows = lesson.rows[slice(start, None)]
    out = torch.zeros(len(rows), dtype=torch.bool)
    for level in (0, 1):
        slots = hierarchy.shape.chunks_per_root if level == 0 else hierarchy.shape.chars_per_chunk
        kept = bucket(level, rows.parents, rows.children[:, :slots], rows.lengths) == 0
        out |= kept & (rows.levels == level)
    assert bool((out & lesson.wrong).any())
    assert not bool((out & lesson.wrong & lesson.counts).any())
    assert bool(lesson.counts[~lesson.wrong].all())
    parents, children, lengths = held_out_misses(truth[1], 1, 330, draws=5, seed=1)
    assert bool((bucket(1, parents, children, lengths) == 0).all())


# --- Generation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [0, 1, 7])
@pytest.mark.parametrize("drafter", ["none", "ngram"])
def test_streams_are_the_whole_text_whatever_the_group_and_the_drafter(
    tiny_flood: TinyFlood, group: int, drafter: str
) -> None:
    whole = flood_of(tiny_flood).generate(None, roots=60, temperature=1.0, seed=3)
    pieces = list(
        flood_of(tiny_flood, drafter=drafter).stream(
            None, roots=60, group=group, temperature=1.0, seed=3
        )
    )
    last = pieces[-1].generation
    assert last is not None
    assert last.roots == whole.roots
    assert len(last.roots) == 60
    assert "".join(p.text for p in pieces) == last.text == whole.text
    if group == 1:
        assert len(pieces) > 20


def test_the_text_is_what_the_manager_planned(tiny_flood: TinyFlood) -> None:
    """As far as the renderer is exact: every exact root is the tokenizer's own text."""
    flood = flood_of(tiny_flood)
    found = flood.generate("Tom has 5 pens.", roots=40)
    plain = flood.manager.generate("Tom has 5 pens.", max_new_tokens=40)
    assert found.roots == plain.ids
    assert found.finish == plain.finish
    roots = [t - SPECIAL for t in found.roots if t >= SPECIAL]
    pieces = flood.decoder().render(roots).pieces
    spelt = [flood.hierarchy.spell([r]) for r in roots]
    right = [p == s for p, s in zip(pieces, spelt, strict=True)]
    assert sum(right) > 0.5 * len(right)
    # What it would be with an exact renderer is the tokenizer's own text.
    assert flood.hierarchy.text(c for s in spelt for c in s) == plain.text
    assert found.text.startswith(flood.hierarchy.text(c for p in pieces[:5] for c in p))


def test_a_slow_reader_costs_no_time(tiny_flood: TinyFlood) -> None:
    start = time.perf_counter()
    for piece in flood_of(tiny_flood).stream(None, roots=40, group=10, seed=1):
        time.sleep(0.3)
        last = piece.generation
    assert last is not None
    assert last.wall_s < time.perf_counter() - start - 0.9
    assert last.spans[0].self_s < 0.1


def test_a_manager_goes_on_from_another(tiny_flood: TinyFlood, tiny: Any, tmp_path: Path) -> None:
    fit = FitConfig(steps=2, tokens_per_step=256, evaluate_every=2)
    run = replace(MANAGER_RUN, corpus=str(tiny.corpus), start=str(tiny_flood.manager), fit=fit)
    folder = train_target(run, tmp_path / "more", CPU, lambda _: None)
    again = Hierarchy.load(folder)
    assert again.encode("Tom has 5 pens.") == Hierarchy.load(tiny_flood.manager).encode(
        "Tom has 5 pens."
    )
    # A run that is gone on with reads the same tokens as a fresh one.
    text = "a<|mask|>b<|endoftext|>"
    assert Tokenizer.load(tmp_path / "more/tokenizer").encode(text) == again.tokenizer.encode(text)
    assert load_flood(str(folder), renderer=str(tiny_flood.renderer), drafter="none").hierarchy


def test_texts_are_kept_apart(tiny_flood: TinyFlood) -> None:
    flood = flood_of(tiny_flood)
    found = flood.generate(None, roots=280, temperature=1.5, seed=1)
    ends = sum(t == 0 for t in found.roots[:-1])
    assert ends > 0
    assert found.text.count(BETWEEN) >= ends


def test_spans_sum_to_the_wall(tiny_flood: TinyFlood) -> None:
    found = flood_of(tiny_flood).generate(None, roots=80, seed=2, drawing=Drawing(k=2))
    total = sum(span.self_s for span in found.spans)
    assert total == pytest.approx(found.wall_s)
    assert found.spans[0].self_s < 0.05 * found.wall_s
    names = {span.path[1:] for span in found.spans}
    for level in ("chunks", "chars"):
        for stage in ("lengths", "denoise", "judge"):
            assert ("render", level, stage) in names
    roots = [t - SPECIAL for t in found.roots if t >= SPECIAL]
    alone = flood_of(tiny_flood).decoder(Drawing(k=2))
    alone.render(roots)
    assert found.draws == alone.drawn


def test_mistakes_are_said(tiny_flood: TinyFlood, tmp_path: Path, tiny: Any) -> None:
    flood = flood_of(tiny_flood)
    with pytest.raises(ConfigError, match="no stop strings"):
        flood.generate("a", stop="b")
    with pytest.raises(ConfigError, match="roots >= 1"):
        flood.generate("a", roots=0)
    with pytest.raises(ConfigError, match="Did you mean 'top_k'"):
        flood.generate("a", topk=3)
    with pytest.raises(ContextError, match="context of 320"):
        flood.generate("a", roots=400)
    with pytest.raises(ContextError, match="hold the end of a text before"):
        flood.generate(None, roots=310)
    with pytest.raises(ConfigError, match="Unknown setting 'k'"):
        load_flood(str(tiny_flood.manager), k=3)
    with pytest.raises(CheckpointError, match="not the folder of a manager"):
        load_flood(str(tiny_flood.manager), renderer=str(tiny.target))
    with pytest.raises(PairingError, match="other roots"):
        load_flood(str(tiny.target), renderer=str(tiny_flood.renderer), drafter="none")
    broken = Path(shutil.copytree(tiny_flood.renderer, tmp_path / "broken"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="truncated or corrupt"):
        load_renderer(broken, dtype=torch.float32, device=CPU)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"layers": 0}))
    with pytest.raises(CheckpointError, match="positive whole number 'layers'"):
        load_renderer(broken, dtype=torch.float32, device=CPU)


# --- Measuring -----------------------------------------------------------------------------------


def test_a_ladder_goes_on_where_it_was_killed(
    tiny_flood: TinyFlood, tiny: Any, tmp_path: Path
) -> None:
    chars = replace(MANAGER_RUN.shape, layers=1, hidden=16, inner=16, head_dim=8, vocab_size=258)
    run = replace(
        MANAGER_RUN,
        corpus=str(tiny.corpus),
        shape=chars,
        hierarchy=None,
        fit=FitConfig(steps=1, tokens_per_step=128),
    )
    letters = train_target(run, tmp_path / "letters", CPU, lambda _: None)
    config = LadderConfig(
        roots=(10, 30),
        k=3,
        repeats=2,
        manager=str(tiny_flood.manager),
        renderer=str(tiny_flood.renderer),
        chars=str(letters),
        corpus=str(tiny.corpus),
        device="cpu",
    )
    found = ladder(config, tmp_path)
    assert [t.title for t in found] == [
        "The hierarchy on held-out text",
        "Exactness against the hierarchy's own table",
        "The flood's text beside the sequential reference's",
        "10 roots",
        "30 roots",
        "Where the time goes",
    ]
    path = tmp_path / "records.jsonl"
    assert {row[2] for row in found[2].rows} == {"yes"}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 2 * 2 * (9 + 1 + 1)
    for row in rows:
        if row["rung"] not in ("spans", "table", "character by character"):
            assert row["chars"] > 0
            assert row["same_plan"]
    by_table = [r for r in rows if r["rung"] == "table"]
    assert all(r["exact"] and r["right_chars"] == r["chars"] for r in by_table)
    # K = 1 with and without sharing, by the sequential loop and by the flood: the same characters.
    for size in config.roots:
        ones = {
            r["right_chars"] for r in rows
            if r["roots"] == size and r["repeat"] == 0
            and (r["rung"].startswith("seq") or "K=1" in r["rung"])
        }  # fmt: skip
        assert len(ones) == 1
    before = path.read_text()
    path.write_text(before[: len(before) // 2])  # killed in the middle of a line
    ladder(config, tmp_path)
    again = [json.loads(line) for line in path.read_text().splitlines()]
    assert {(r["roots"], r["repeat"], r["rung"]) for r in again} == {
        (r["roots"], r["repeat"], r["rung"]) for r in rows
    }
    assert len(again) == len(rows)
    assert (tmp_path / "time_vs_roots.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "speedup_vs_roots.png").is_file()
    with pytest.raises(RunError, match="another settings"):
        ladder(replace(config, k=4), tmp_path)
    with pytest.raises(ConfigError, match="several characters"):
        ladder(replace(config, chars=str(tiny.target)), tmp_path / "other")
    with pytest.raises(ConfigError, match="context of 320, too short"):
        ladder(replace(config, roots=(100,)), tmp_path / "other")


def test_a_study_counts_what_is_right(tiny_flood: TinyFlood, tmp_path: Path) -> None:
    config = StudyConfig(
        renderer=str(tiny_flood.renderer), k=(1, 4), steps=(1, 2), parents=40, device="cpu"
    )
    energy, choices = run_study(config, tmp_path)
    assert len(energy.rows) == 6
    assert len(choices.rows) == 2 * 2 * 2 * 2
    rows = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["oracle"] >= max(row["first"], row["lowest"], row["random"]) - 1e-9
        assert 1 <= row["distinct"] <= row["k"]
        if row["k"] == 1:
            assert row["first"] == row["lowest"] == row["random"] == row["oracle"]
    assert (tmp_path / "accuracy_vs_k.png").is_file()
    run_study(config, tmp_path)
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == len(rows)


# --- The command line ----------------------------------------------------------------------------


@pytest.fixture
def flood(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line in this process: exit code, standard output, standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["floodstage", "flood", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


def test_generate_and_edit_by_command(tiny_flood: TinyFlood, flood: Any) -> None:
    code, out, err = flood(
        *("generate", "--manager", str(tiny_flood.manager), "--renderer", str(tiny_flood.renderer)),
        *("--roots", "30", "--k", "4", "--group", "8", "--drafter", "ngram", "--json"),
    )
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert len(found["roots"]) == 30
    assert out.startswith(found["text"])
    assert "roots/s" in err
    assert "judge" in err
    hierarchy = Hierarchy.load(tiny_flood.renderer)
    text = "What is 3 + 4?"
    at = hierarchy.encode(text).index(hierarchy.encode("3")[0])
    edit = ("edit", text, "--by", "7", "--renderer", str(tiny_flood.renderer))
    code, out, err = flood(*edit, "--at", str(at), "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["kept"]
    assert "a rendering of the whole confirms" in err
    code, out, err = flood(*edit, "--at", "99")
    assert code == 2
    assert "There is no root 99" in err


def test_usage_mistakes_exit_with_2(tiny_flood: TinyFlood, flood: Any) -> None:
    manager = ("--manager", str(tiny_flood.manager), "--renderer", str(tiny_flood.renderer))
    for words, said in (
        (("generate", *manager, "--noise", "masks"), "Did you mean 'mask'"),
        (("generate", "--manager", "flood-manger"), "Unknown model"),
        (("bench", "--out", "x", "--roots", "50,many"), "whole numbers"),
    ):
        code, _, err = flood(*words)
        assert code == 2, err
        assert said in err
