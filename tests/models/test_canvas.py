"""Canvas models: attention along lines is what a mask would make it, and the twin's two readings
of a grid - cell by cell with a cache, and all at once - agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from floodstage.core.errors import CheckpointError, ConfigError
from floodstage.core.types import Request
from floodstage.decoding.loop import decode
from floodstage.decoding.verifiers import MatchVerifier
from floodstage.drafting.ngram import NgramDrafter
from floodstage.drafting.none import NoDrafter
from floodstage.models import canvas as module
from floodstage.models.canvas import (
    DENOISER,
    WRITER,
    Canvas,
    CanvasConfig,
    Denoiser,
    Writer,
    along,
    filling_flops,
    fresh_canvas,
    writing_flops,
)
from floodstage.models.load import load_canvas
from floodstage.scheduling.fixed import FixedScheduler
from floodstage.training.canvas import save_canvas

CONFIG = CanvasConfig(
    task="affine", values=11, places=16, hidden=24, layers=4, heads=4, kv_heads=2, inner=32
)


def scrambled(config: CanvasConfig, kind: str, seed: int = 0) -> Denoiser | Writer:
    """Random weights in float64, wide enough for every cell to matter to every other."""
    model = fresh_canvas(config, kind, seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                scale = 1.5 * p.shape[1] ** -0.5 if p.shape[0] != config.values + 1 else 1.0
                p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model.requires_grad_(False)


def denoiser(config: CanvasConfig = CONFIG, seed: int = 0) -> Denoiser:
    model = scrambled(config, DENOISER, seed)
    assert isinstance(model, Denoiser)
    return model


def writer(seed: int = 0) -> Writer:
    model = scrambled(CONFIG, WRITER, seed)
    assert isinstance(model, Writer)
    return model


def grids(count: int, h: int, w: int, seed: int = 0) -> Canvas:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(CONFIG.values + 1, (count, h, w), generator=generator)
    return Canvas.of(cells, (cells < 4))


@pytest.mark.parametrize("axis", range(3))
def test_attention_along_an_axis_is_attention_under_its_mask(axis: int) -> None:
    b, h, w, box = 2, 6, 9, 3
    generator = torch.Generator().manual_seed(axis)
    q = torch.randn(b * h * w, 4, 8, generator=generator, dtype=torch.float64)
    k, v = (torch.randn(b * h * w, 2, 8, generator=generator, dtype=torch.float64) for _ in "kv")
    found = along(module._AXES[axis], (b, h, w), box)(q, k, v)
    grid, i, j = torch.meshgrid(*map(torch.arange, (b, h, w)), indexing="ij")
    key = (i, j, i // box * 100 + j // box)[axis] + 1000 * grid
    line = key.flatten()
    mask = line[:, None] == line[None]
    size = (w, h, box * box)[axis]
    sharp = module._sharpness(size) * 8**-0.5
    heads = [
        torch.softmax((q[:, n] @ k[:, n // 2].T * sharp).masked_fill(~mask, -torch.inf), -1)
        @ v[:, n // 2]
        for n in range(4)
    ]
    torch.testing.assert_close(found, torch.cat(heads, -1))


def test_every_cell_depends_on_every_other() -> None:
    model, canvas = denoiser(), grids(1, 5, 7)
    before = model(canvas)
    for place in ((0, 0), (4, 6), (2, 3)):
        cells = canvas.cells.clone()
        cells[0, *place] = (cells[0, *place] + 1) % CONFIG.values
        changed = (model(replace(canvas, cells=cells)) - before).abs().amax(-1)
        assert (changed > 1e-9).all(), place


def test_a_grid_of_a_batch_gets_what_it_gets_alone() -> None:
    model, canvas = denoiser(), grids(3, 4, 6)
    together = model(canvas)
    for i in range(3):
        alone = Canvas(*(x[i : i + 1] for x in (canvas.cells, canvas.locked, canvas.rows,
                                                canvas.columns)))  # fmt: skip
        torch.testing.assert_close(model(alone), together[i : i + 1])


def test_places_repeat_after_their_period() -> None:
    model, canvas = denoiser(), grids(1, 4, 6)
    later = replace(canvas, rows=canvas.rows + 16, columns=canvas.columns + 32)
    torch.testing.assert_close(model(later), model(canvas))
    assert not torch.allclose(model(replace(canvas, rows=canvas.rows + 1)), model(canvas))
    assert not torch.allclose(model(replace(canvas, locked=~canvas.locked)), model(canvas))


def test_boxes_need_whole_boxes() -> None:
    model = denoiser(replace(CONFIG, box=3))
    assert model(grids(1, 6, 9)).shape == (1, 6, 9, CONFIG.values)
    with pytest.raises(ConfigError, match="boxes of 3 x 3; a grid of 4 x 9"):
        model(grids(1, 4, 9))


def prompt(model: Writer, clues: list[tuple[int, int, int]]) -> list[int]:
    packed = [
        int(model.pack(*(torch.tensor(x) for x in (value, 1, row, column))))
        for value, row, column in clues
    ]
    start = model.pack(*(torch.tensor(x) for x in (CONFIG.values, 0, 0, 0)))
    return [*packed, int(start)]


def written(model: Writer, prompts: list[list[int]], cells: int, draft: int = 0) -> list[list[int]]:
    out: list[list[int]] = [[] for _ in prompts]
    for step in decode(
        model,
        NgramDrafter(draft) if draft else NoDrafter(),
        MatchVerifier(),
        FixedScheduler(draft),
        [Request(prompt=tuple(p), max_new_tokens=cells) for p in prompts],
        slots=len(prompts),
    ):
        out[step.sequence].extend(step.tokens)
    return out


def read_again(model: Writer, head: list[int], cells: list[int], width: int) -> Tensor:
    """The likeliest cells after the written ones, all in one pass over packed ids."""
    packed = [
        int(model.pack(*(torch.tensor(x) for x in (v, 0, (n + 1) // width, (n + 1) % width))))
        for n, v in enumerate(cells[:-1])
    ]
    hidden, _ = model.read(torch.tensor([head + packed]))
    return model.lm_head(hidden[0, len(head) - 1 :]).argmax(-1)


@pytest.mark.parametrize("draft", [0, 4])
def test_the_twin_writes_what_it_reads(draft: int) -> None:
    base = writer()
    heads = [prompt(base, [(3, 0, 1), (7, 2, 2)]), prompt(base, [(1, 1, 0), (10, 3, 4)])]
    model = base.sized(3, 5)
    for head, cells in zip(heads, written(model, heads, 30, draft), strict=True):
        assert len(set(cells)) > 3  # else anything would agree
        assert read_again(base, head, cells, 5).tolist() == cells


def test_a_wrong_place_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law above catches a twin that counts its cells from another place."""
    base = writer()
    head = prompt(base, [(3, 0, 1), (7, 2, 2)])
    for model in (base.sized(2, 5), base.sized(3, 4)):
        cells = written(model, [head], 30)[0]
        assert read_again(base, head, cells, 5).tolist() != cells


@pytest.mark.parametrize("kind", [DENOISER, WRITER])
def test_files_come_back(kind: str, tmp_path: Path) -> None:
    model = fresh_canvas(CONFIG, kind, 1)
    save_canvas(tmp_path, model)
    back = load_canvas(tmp_path, dtype=torch.float32, device=torch.device("cpu"), kind=kind)
    for name, p in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], p.bfloat16().float())
    other = WRITER if kind == DENOISER else DENOISER
    with pytest.raises(CheckpointError, match=f"holds a {kind}, expected a {other}"):
        load_canvas(tmp_path, dtype=torch.float32, device=torch.device("cpu"), kind=other)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"inner": 32', '"inner": 0'))
    with pytest.raises(CheckpointError, match="'inner' >= 1, got 0"):
        load_canvas(tmp_path, dtype=torch.float32, device=torch.device("cpu"), kind=kind)
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match="truncated or corrupt"):
        load_canvas(tmp_path, dtype=torch.float32, device=torch.device("cpu"), kind=kind)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="multiple of heads"):
        replace(CONFIG, heads=5)


def test_flops_are_those_of_the_products() -> None:
    """Against torch's own count of what runs, which sees only the plain kernel of attention."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = denoiser()
    canvas = grids(1, 6, 9)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(canvas)
    assert filling_flops(CONFIG, 6, 9) == pytest.approx(counter.get_total_flops(), rel=0.02)
    base = writer()
    head = prompt(base, [(3, 0, 1)])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        written(base.sized(2, 8), [head], 64)
    found = writing_flops(CONFIG, 64, 2)
    assert found == pytest.approx(counter.get_total_flops(), rel=0.05)
