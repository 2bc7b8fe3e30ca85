"""A manager and a renderer for it, trained once, for what needs files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from floodstage.text.hierarchy import HierarchyShape
from floodstage.training.fit import FitConfig
from floodstage.training.renderer import RendererShape
from floodstage.training.run import RendererRun, TargetRun, train_renderer, train_target
from floodstage.training.target import TargetShape

CPU = torch.device("cpu")
MANAGER_RUN = TargetRun(
    corpus="",  # a file, see `tiny_flood`
    longest=128,
    shape=TargetShape(layers=2, hidden=32, inner=64, heads=2, kv_heads=1, head_dim=16, context=320),
    hierarchy=HierarchyShape(chunks=380, roots=480),
    fit=FitConfig(steps=20, tokens_per_step=1024, evaluate_every=100),
)
RENDERER_RUN = RendererRun(
    manager="",
    corpus="",
    texts=50,
    shape=RendererShape(hidden=48, layers=2, heads=2, inner=64),
    fit=FitConfig(steps=250, tokens_per_step=1600, evaluate_every=250, decay=0.6),
)


@dataclass(frozen=True)
class TinyFlood:
    """Folders, and what was said while the renderer was trained."""

    manager: Path
    renderer: Path
    said: tuple[str, ...]


@pytest.fixture(scope="session")
def tiny_flood(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> TinyFlood:
    root, said = tmp_path_factory.mktemp("flood"), list[str]()
    manager = train_target(
        replace(MANAGER_RUN, corpus=str(tiny.corpus)), root / "tiny-manager", CPU, said.append
    )
    said.clear()
    run = replace(RENDERER_RUN, corpus=str(tiny.corpus), manager=str(manager))
    renderer = train_renderer(run, root / "tiny-renderer", CPU, said.append)
    return TinyFlood(manager, renderer, tuple(said))
