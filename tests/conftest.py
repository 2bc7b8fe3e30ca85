"""A tiny target and a drafter for it, trained once: the models of every test that needs files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from floodstage.engine.build import load, load_target
from floodstage.engine.engine import Engine
from floodstage.models.transformer import Transformer
from floodstage.text.tokenizer import Tokenizer
from floodstage.training.drafter import DrafterShape
from floodstage.training.fit import FitConfig
from floodstage.training.run import DrafterRun, TargetRun, train_drafter, train_target
from floodstage.training.target import TargetShape

CPU = torch.device("cpu")
CONTEXT, VOCAB, BLOCK = 320, 300, 6

TARGET_RUN = TargetRun(
    corpus="mathematics",
    texts=400,
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
    corpus="mathematics",
    texts=24,
    new_tokens=24,
    shape=DrafterShape(layers=1, block_size=BLOCK, taps=(0, 1), anchors=4),
    fit=FitConfig(steps=12, tokens_per_step=1024, evaluate_every=100),
)


@dataclass(frozen=True)
class Tiny:
    """The folders of a target and of its drafter, and what was said while they were trained."""

    target: Path
    drafter: Path
    said: tuple[str, ...]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Tiny:
    root, said = tmp_path_factory.mktemp("tiny"), list[str]()
    target = train_target(TARGET_RUN, root / "target", CPU, said.append)
    model = load_target(target, torch.float32, CPU)
    assert isinstance(model, Transformer)
    tokenizer = Tokenizer.load(target)
    drafter = train_drafter(DRAFTER_RUN, model, tokenizer, root / "drafter", said.append)
    return Tiny(target, drafter, tuple(said))


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
    target = Path(shutil.copytree(tiny.target, tmp_path / "target"))
    return Tiny(target, Path(shutil.copytree(tiny.drafter, tmp_path / "drafter")), tiny.said)
