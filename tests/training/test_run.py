"""`floodstage train` from a corpus to a model, killed and gone on with."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from floodstage.core.errors import CheckpointError, ConfigError
from floodstage.drafting.ngram import NgramDrafter
from floodstage.engine.build import load, load_target
from floodstage.models.transformer import Transformer
from floodstage.text.mathematics import problems
from floodstage.text.tokenizer import Tokenizer
from floodstage.training.drafter import DrafterShape
from floodstage.training.fit import FitConfig
from floodstage.training.run import (
    DrafterRun,
    TargetRun,
    live_tau,
    mask_token,
    right_answers,
    train_drafter,
    train_target,
)
from floodstage.training.target import TargetShape

CPU = torch.device("cpu")
FIT = FitConfig(steps=6, tokens_per_step=256, evaluate_every=3, save_every_s=0.0)
SHAPE = TargetShape(
    layers=1, hidden=16, inner=16, heads=2, kv_heads=1, head_dim=8, vocab_size=290, context=256
)
DRAFT = DrafterShape(layers=1, block_size=4, taps=(0, 1), anchors=2)


def quiet(said: str) -> None:
    pass


def target_run(tiny: Any) -> TargetRun:
    return TargetRun(corpus=str(tiny.corpus), longest=64, shape=SHAPE, fit=FIT)


def drafter_run(tiny: Any) -> DrafterRun:
    return DrafterRun(
        corpus=str(tiny.corpus),
        texts=6,
        new_tokens=8,
        prompt_tokens=8,
        shape=DRAFT,
        fit=replace(FIT, evaluate_every=6),
    )


@pytest.fixture(scope="module")
def target(tiny: Any) -> Transformer:
    """The tiny target with a context that prompts and answers fill."""
    whole = load_target(tiny.target, torch.float32, CPU)
    assert isinstance(whole, Transformer)
    model = Transformer(replace(whole.config, context=150))
    model.load_state_dict(whole.state_dict())
    return model


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> Tokenizer:
    return Tokenizer.load(tiny.target)


def untimed(folder: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((folder / "history.json").read_text())
    return [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in rows]


def same(a: Path, b: Path) -> bool:
    weights = "model.safetensors"
    return (a / weights).read_bytes() == (b / weights).read_bytes() and untimed(a) == untimed(b)


KILLED = """
import os, sys
from floodstage.training import fit
step = fit._step

def fall(task, batch, optimizers, config, number):
    if number == 3:
        os._exit(9)  # no handler runs, nothing is flushed
    return step(task, batch, optimizers, config, number)

fit._step = fall
from floodstage.cli.main import main
main()
"""


def test_a_target_killed_at_its_third_step_ends_like_an_unbroken_one(
    tiny: Any, tmp_path: Path
) -> None:
    run = target_run(tiny)
    whole = train_target(run, tmp_path / "whole", CPU, quiet)
    options = {
        "--corpus": run.corpus, "--longest": 64, "--steps": 6, "--tokens-per-step": 256,
        "--evaluate-every": 3, "--layers": 1, "--hidden": 16, "--inner": 16, "--heads": 2,
        "--kv-heads": 1, "--head-dim": 8, "--vocab-size": 290, "--context": 256, "--threads": 1,
        "--out": tmp_path / "killed", "--device": "cpu",
    }  # fmt: skip
    saving = "from floodstage.training.fit import FitConfig\nFitConfig.__init__.__kwdefaults__"
    code = f"{saving}['save_every_s'] = 0.0\n{KILLED}"
    words = ["train", "target", *(str(w) for pair in options.items() for w in pair)]
    done = subprocess.run([sys.executable, "-c", code, *words], check=False, capture_output=True)
    assert done.returncode == 9, done.stderr.decode()
    assert not (tmp_path / "killed" / "model").exists()
    said: list[str] = []
    again = train_target(run, tmp_path / "killed", CPU, said.append)
    assert "Going on after step 3 of 6." in said
    assert "Learning the tokenizer." not in said
    assert same(again, whole)


def test_a_killed_drafter_ends_like_an_unbroken_one(
    tiny: Any,
    target: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = drafter_run(tiny)
    whole = train_drafter(run, target, tokenizer, tmp_path / "whole", quiet)
    from floodstage.training import fit

    step = fit._step

    def fall(*given: Any) -> Any:
        if given[-1] == 4:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(fit, "_step", fall)
    with pytest.raises(KeyboardInterrupt):
        train_drafter(run, target, tokenizer, tmp_path / "killed", quiet)
    monkeypatch.undo()
    said: list[str] = []
    again = train_drafter(run, target, tokenizer, tmp_path / "killed", said.append)
    assert said[0] == "Going on after step 4 of 6."  # the target's text is kept
    assert same(again, whole)


def test_a_run_says_what_it_does_and_reports_held_out_figures(tiny: Any) -> None:
    said = "\n".join(tiny.said)
    for words in ("Learning the tokenizer.", "tokens to learn from", "The target writes 24 texts."):
        assert words in said
    assert "heldout_loss" in said
    assert "ngram_tau" in said


def test_a_trained_target_is_read_by_transformers(tiny: Any, target: Transformer) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(tiny.target, dtype=torch.float32)
    ids = torch.arange(5, 40)
    with torch.no_grad():
        want = theirs(ids[None]).logits[0]
    got = target.forward(target.begin(1, 64), [ids]).logits
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_a_card_tells_how_a_model_was_made(tiny: Any) -> None:
    for folder, title in ((tiny.target, "Target trained on"), (tiny.drafter, "DFlash drafter")):
        card = (folder / "MODEL_CARD.md").read_text()
        assert title in card
        assert '"tokens_per_step": 1024' in card
        assert "heldout_loss" in card


def test_a_target_learns(tiny: Any, tmp_path: Path) -> None:
    lines = "\n\n".join(["one two three four five six seven"] * 200)
    (tmp_path / "counting.txt").write_text(lines)
    run = TargetRun(
        corpus=str(tmp_path / "counting.txt"),
        longest=64,
        shape=replace(SHAPE, vocab_size=262),
        fit=FitConfig(steps=60, tokens_per_step=512, other_lr=0.05, evaluate_every=30),
    )
    losses = [
        row["heldout_loss"] for row in untimed(train_target(run, tmp_path / "run", CPU, quiet))
    ]
    assert losses[-1] < losses[0] < np.log(262)
    assert losses[-1] < 0.5


def test_a_model_may_go_on_from_another(
    tiny: Any, target: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    still = replace(FIT, steps=1, matrix_lr=1e-12, other_lr=1e-12)
    run = TargetRun(corpus=str(tiny.corpus), longest=64, fit=still, start=str(tiny.target))
    again = train_target(run, tmp_path / "target", CPU, quiet)
    assert_like(again, tiny.target)
    assert (again / "tokenizer.json").read_text() == (tiny.target / "tokenizer.json").read_text()
    drafting = replace(drafter_run(tiny), fit=still, start=str(tiny.drafter))
    assert_like(train_drafter(drafting, target, tokenizer, tmp_path / "d", quiet), tiny.drafter)


def assert_like(a: Path, b: Path) -> None:
    """Two folders of the same model, a step of nothing apart."""
    own, other = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert own.keys() == other.keys()
    for name, weights in own.items():
        torch.testing.assert_close(weights, other[name], msg=name)
    assert json.loads((a / "config.json").read_text()) == json.loads(
        (b / "config.json").read_text()
    )


# -- what a run folder holds ------------------------------------------------------------------


def test_another_corpus_or_shape_is_refused_by_name(tiny: Any, tmp_path: Path) -> None:
    run = replace(target_run(tiny), fit=replace(FIT, steps=1))
    train_target(run, tmp_path, CPU, quiet)
    with pytest.raises(CheckpointError, match=r"another configuration \(longest differ\)"):
        train_target(replace(run, longest=32), tmp_path, CPU, quiet)
    with pytest.raises(CheckpointError, match=r"another configuration \(shape differ\)"):
        train_target(replace(run, shape=replace(SHAPE, inner=24)), tmp_path, CPU, quiet)
    with pytest.raises(CheckpointError, match=r"another configuration \(steps differ\)"):
        train_target(replace(run, fit=FIT), tmp_path, CPU, quiet)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"run\.json' cannot be read"):
        train_target(run, tmp_path, CPU, quiet)


def test_text_of_another_target_is_not_learnt_from(
    tiny: Any, target: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    run = replace(drafter_run(tiny), fit=replace(FIT, steps=1))
    train_drafter(run, target, tokenizer, tmp_path, quiet)
    other = load_target(tiny.target, torch.float32, CPU)
    assert isinstance(other, Transformer)
    with torch.no_grad():
        other.model.norm.weight.add_(0.01)
    with pytest.raises(CheckpointError, match=r"another configuration \(target differ\)"):
        train_drafter(run, other, tokenizer, tmp_path, quiet)


def test_a_drafter_learns_from_what_its_target_writes(tiny: Any) -> None:
    with np.load(tiny.drafter.parent / "own_text.npz") as kept:
        ids, starts, prompts = kept["ids"], kept["starts"], kept["prompts"]
    assert len(prompts) == 24
    engine = load(str(tiny.target), drafter="none", device="cpu")
    for i in (0, 2):  # every second text is greedy
        whole = ids[starts[i] : starts[i + 1]].tolist()
        asked, written = whole[: prompts[i]], whole[prompts[i] :]
        prompt = engine.tokenizer.decode(asked)
        g = engine.generate(prompt, chat=False, max_new_tokens=24)
        assert list(g.prompt_ids) == asked
        assert list(g.ids) == written
    assert max(np.diff(starts) - prompts) == 24


def test_prompts_of_texts_without_any_are_places_in_them(
    tiny: Any, target: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rows = [json.dumps({"text": f"{i} and {i + 1} are not the same number"}) for i in range(60)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    run = replace(
        drafter_run(tiny), corpus=str(tmp_path / "corpus.jsonl"), fit=replace(FIT, steps=1)
    )
    train_drafter(run, target, tokenizer, tmp_path / "run", quiet)
    with np.load(tmp_path / "run" / "own_text.npz") as kept:
        assert set(kept["prompts"].tolist()) == {8}
    long = replace(run, prompt_tokens=200)
    with pytest.raises(ConfigError, match="gives no prompt for the split 'train'"):
        train_drafter(long, target, tokenizer, tmp_path / "long", quiet)


# -- probes -----------------------------------------------------------------------------------


def test_probes_stay_inside_the_context(target: Transformer, tokenizer: Tokenizer) -> None:
    drawn = [(p, tokenizer.prompt(p.prompt)) for p in islice(problems("heldout"), 40)]
    asked, prompts = zip(*[(p, ids) for p, ids in drawn if 60 < len(ids) < 140][:2], strict=True)
    assert right_answers(target, tokenizer, asked) == 0.0
    assert live_tau(target, NgramDrafter(), prompts, frozenset({0})) >= 1.0


def test_the_mask_is_as_asked_or_the_tokenizers_or_an_unused_row(
    tiny: Any, target: Transformer, tokenizer: Tokenizer
) -> None:
    run = drafter_run(tiny)
    assert mask_token(run, target, tokenizer) == 1
    assert mask_token(replace(run, mask_id=299), target, tokenizer) == 299
    with pytest.raises(ConfigError, match="vocabulary of 300, got 300"):
        mask_token(replace(run, mask_id=300), target, tokenizer)
