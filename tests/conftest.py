"""A tiny target and a drafter for it, trained once: the models of every test that needs files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from floodstage.engine.build import load, load_target
from floodstage.engine.engine import Engine
from floodstage.models.transformer import Transformer
from floodstage.text.mathematics import problems
from floodstage.text.tokenizer import Tokenizer
from floodstage.training.drafter import DrafterShape
from floodstage.training.fit import FitConfig
from floodstage.training.run import DrafterRun, TargetRun, train_drafter, train_target
from floodstage.training.target import TargetShape

CPU = torch.device("cpu")
CONTEXT, VOCAB, BLOCK = 320, 300, 6

TARGET_RUN = TargetRun(
    corpus="",  # a file, see `tiny`
    longest=256,
    shape=TargetShape(
        layers=2,
        hidden=32,
        inner=64,
        heads=2,
        kv_heads=1,
        head_dim=16,
        vocab_size=VOCAB,
        context=CONTEXT,
    ),
    fit=FitConfig(steps=40, tokens_per_step=1024, evaluate_every=100),
)
DRAFTER_RUN = DrafterRun(
    corpus="",
    texts=24,
    new_tokens=24,
    shape=DrafterShape(layers=1, block_size=BLOCK, taps=(0, 1), anchors=4),
    fit=FitConfig(steps=12, tokens_per_step=1024, evaluate_every=100),
)


@dataclass(frozen=True)
class Tiny:
    """The folders of a target and of its drafter, their corpus, and what was said in training."""

    target: Path
    drafter: Path
    corpus: Path
    said: tuple[str, ...]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Tiny:
    root, said = tmp_path_factory.mktemp("tiny"), list[str]()
    corpus = root / "corpus.jsonl"
    with corpus.open("w", encoding="utf-8") as file:
        for p in islice(problems("train"), 500):
            file.write(json.dumps({"prompt": p.prompt, "response": p.solution}) + "\n")
    run = replace(TARGET_RUN, corpus=str(corpus))
    target = train_target(run, root / "target", CPU, said.append)
    model = load_target(target, torch.float32, CPU)
    assert isinstance(model, Transformer)
    tokenizer = Tokenizer.load(target)
    drafting = replace(DRAFTER_RUN, corpus=str(corpus))
    drafter = train_drafter(drafting, model, tokenizer, root / "drafter", said.append)
    return Tiny(target, drafter, corpus, tuple(said))


@pytest.fixture(scope="session")
def engine_of(tiny: Tiny) -> Callable[..., Engine]:
    """An engine on the tiny target; `drafter="tiny"` is its own drafter."""

    def give(drafter: str = "none", **settings: Any) -> Engine:
        name = str(tiny.drafter) if drafter == "tiny" else drafter
        return load(**{"target": str(tiny.target), "drafter": name, "device": "cpu"} | settings)

    return give


@pytest.fixture
def copied(tiny: Tiny, tmp_path: Path) -> Tiny:
    """Both folders, to be broken."""
    return replace(
        tiny,
        target=Path(shutil.copytree(tiny.target, tmp_path / "target")),
        drafter=Path(shutil.copytree(tiny.drafter, tmp_path / "drafter")),
    )
