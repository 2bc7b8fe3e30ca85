"""Train canvas models: a denoiser to fill any holes of a grid, and its autoregressive twin.

Both learn from the same lessons. The denoiser sees a grid with all or some of its cells masked, a
few of the others wrong, and predicts every cell that is no clue. The twin reads the clues and then
writes the cells in reading order. Held out: 1 in 20 solutions (`affine`: constants, at every size),
and for `sum` and `affine` every size of more cells than a lesson has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from floodstage.decoding.refine import Refinement, fill
from floodstage.models.canvas import (
    DENOISER,
    WRITER,
    Canvas,
    CanvasConfig,
    Denoiser,
    Writer,
    fresh_canvas,
)
from floodstage.models.files import write_weights
from floodstage.models.load import load_canvas
from floodstage.text.grids import MODULUS, Puzzle, puzzles
from floodstage.training.card import write_card
from floodstage.training.fit import FitConfig, fit
from floodstage.training.lessons import Lesson, Source, source
from floodstage.training.run import Say, begin_run

_HALF, _NOISY, _WRONG = 0.5, 0.3, 0.1
"""The share of grids that are all masked; of those with wrong cells; and of their cells."""
_SHOWN = 0.2
"""The weight of a cell that is shown, right or wrong, beside one that is masked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasShape:
    """The size of a new model; both twins have the same."""

    hidden: int = 128
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    inner: int = 384

    def config(self, task: str) -> CanvasConfig:
        values = {"sum": 256, "affine": MODULUS}.get(task, 10)
        return CanvasConfig(
            task=task,
            values=values,
            # The law of affine repeats with its modulus, and so may places.
            places={"sum": 256, "affine": MODULUS}.get(task, 16),
            box=3 if task == "sudoku" else 0,
            hidden=self.hidden,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            inner=self.inner,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasRun:
    """A canvas model to train: a denoiser, or with `twin` its autoregressive twin. `pool` is how
    many puzzles of a size are made."""

    task: str
    twin: bool = False
    start: str | None = None  # folder of a model to go on from, with its shape
    pool: int = 4000
    shape: CanvasShape = field(default_factory=CanvasShape)
    fit: FitConfig = field(default_factory=FitConfig)


def train_canvas(run: CanvasRun, out: Path, device: torch.device, say: Say = print) -> Path:
    """Train a canvas model into `out`; the folder of the finished model.

    Raises CheckpointError if `out` holds a run of another configuration.
    """
    asked = held_out_instances(run.task)
    begin_run(out, asdict(run))
    architecture = WRITER if run.twin else DENOISER
    config = run.shape.config(run.task)
    if run.start is None:
        model = fresh_canvas(config, architecture, run.fit.seed).to(device)
    else:
        model = load_canvas(Path(run.start), dtype=torch.float32, device=device, kind=architecture)
        model.train()
    lessons = source(run.task, out / "puzzles", run.pool, config.places, say)
    fit(CanvasTask(model, lessons, run.fit, asked), run.fit, out, report=say)
    kind = (
        "Writes cells one by one (the autoregressive twin)"
        if run.twin
        else "Fills all cells at once"
    )
    write_card(out / "model", f"{kind}: grids of the task {run.task!r}", asdict(run))
    return out / "model"


@dataclass
class CanvasTask:
    """Either twin (see `fit.Task`)."""

    model: Denoiser | Writer
    source: Source
    config: FitConfig
    asked: tuple[Puzzle, ...]  # held-out instances of one size

    def batches(self, start: int) -> Iterator[tuple[Lesson, torch.Generator]]:
        for step in count(start):
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
            yield self.source.draw(self.config.tokens_per_step, generator), generator

    def loss(self, batch: tuple[Lesson, torch.Generator]) -> tuple[Tensor, int]:
        lesson, generator = batch
        size = lesson.solution.numel()
        if isinstance(self.model, Writer):
            return writing_loss(self.model, lesson, generator), size
        return filling_loss(self.model, lesson, generator), size

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        self.model.eval()
        wanted = torch.tensor([p.solution for p in self.asked])
        if isinstance(self.model, Writer):
            found = greedy_grids(self.model, self.asked)
        else:
            given = [p.given for p in self.asked]
            canvas = Canvas.given(given, self.model.mask_id, self.model.device)
            found = fill(self.model, canvas, Refinement()).cells.cpu()
        self.model.train()
        right = found == wanted
        h, w = wanted.shape[1:]
        return {
            f"exact_{h}x{w}": float(right.flatten(1).all(1).float().mean()),
            f"cells_{h}x{w}": float(right.float().mean()),
        }

    def export(self, folder: Path, history: list[dict[str, float]]) -> None:
        save_canvas(folder, self.model)
        (folder / "history.json").write_text(json.dumps(history, indent=1) + "\n")


@torch.no_grad()
def greedy_grids(model: Writer, asked: Sequence[Puzzle]) -> Tensor:
    """[n, H, W]: what the twin writes after the right cells, in one pass a grid. It is all right
    exactly where the grid it writes by itself is, up to rounding."""
    out = []
    for puzzle in asked:
        lesson = lesson_of(puzzle)
        ids, begin = sequence(model, lesson, torch.Generator().manual_seed(0))
        hidden, _ = model.read(ids.to(model.device))
        logits = model.lm_head(hidden[0, begin:])
        out.append(logits.argmax(-1).view(lesson.solution.shape[1:]).cpu())
    return torch.stack(out)


def held_out_instances(task: str) -> tuple[Puzzle, ...]:
    """What a run is judged on: sizes never seen in training, or puzzles."""
    size, number = {"sum": (64, 1), "affine": (64, 6)}.get(task, (9, 64))
    return tuple(islice(puzzles(task, size, size, "heldout", seed=77), number))


def lesson_of(puzzle: Puzzle) -> Lesson:
    given = torch.tensor([[[x is not None for x in row] for row in puzzle.given]])
    h, w = puzzle.height, puzzle.width
    solution = torch.tensor(puzzle.solution)[None]
    return Lesson(solution, given, torch.arange(h)[None], torch.arange(w)[None])


def filling_loss(model: Denoiser, lesson: Lesson, generator: torch.Generator) -> Tensor:
    """Cross entropy of the cells that are no clues: masked, or shown and perhaps wrong. Of the
    grids that are not all masked, most have few holes, as in the last passes of a refinement."""
    solution, open_cells = lesson.solution, ~lesson.given

    def chance(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    b, h, w = solution.shape
    share = torch.where(chance(b) < _HALF, 1.0, chance(b) ** 3)[:, None, None]
    masked = open_cells & (chance(b, h, w) < share)
    wrong = (chance(b)[:, None, None] < _NOISY) & (chance(b, h, w) < _WRONG)
    other = torch.randint(model.config.values, (b, h, w), generator=generator)
    cells = torch.where(wrong & open_cells, other, solution)
    cells = torch.where(masked, model.mask_id, cells)
    device = model.device
    canvas = Canvas(
        cells.to(device),
        lesson.given.to(device),
        lesson.rows.to(device),
        lesson.columns.to(device),
    )
    learn = open_cells if bool(open_cells.any()) else lesson.given
    losses = F.cross_entropy(
        model(canvas)[learn].float(), solution[learn].to(device), reduction="none"
    )
    weights = torch.where(masked[learn], 1.0, _SHOWN).to(device)
    return (losses * weights).sum() / weights.sum()


def sequence(model: Writer, lesson: Lesson, generator: torch.Generator) -> tuple[Tensor, int]:
    """[B, T] packed ids: clues in random order (repeated where a grid has fewer than others), the
    start, and all cells but the last; and where the start is."""
    solution, given = lesson.solution, lesson.given
    b, h, w = solution.shape
    rows = lesson.rows.repeat_interleave(w, 1)
    columns = lesson.columns.repeat(1, h)
    counts = given.sum((1, 2))
    most = int(counts.max())
    order = (torch.rand(b, h * w, generator=generator) - 2.0 * given.flatten(1)).argsort(1)
    index = order.gather(1, torch.arange(most) % counts.clamp(min=1)[:, None])
    flat = solution.flatten(1)
    clues = model.pack(
        flat.gather(1, index), torch.tensor(1), rows.gather(1, index), columns.gather(1, index)
    )
    last = torch.cat([torch.full((b, 1), model.canvas.values), flat[:, :-1]], 1)
    return torch.cat([clues, model.pack(last, torch.tensor(0), rows, columns)], 1), most


def writing_loss(model: Writer, lesson: Lesson, generator: torch.Generator) -> Tensor:
    """Cross entropy of every cell, given the clues and the cells before it."""
    ids, begin = sequence(model, lesson, generator)
    hidden, _ = model.read(ids.to(model.device))
    logits = model.lm_head(hidden[:, begin:]).float()
    return F.cross_entropy(logits.flatten(0, 1), lesson.solution.flatten().to(logits.device))


def save_canvas(folder: Path, model: Denoiser | Writer) -> None:
    """A folder that `load_canvas` reads: bf16 weights and the config."""
    if isinstance(model, Denoiser):
        raw = model.config.to_dict(DENOISER)
    else:
        raw = model.canvas.to_dict(WRITER)
    write_weights(folder, model.state_dict(), torch.bfloat16)
    (folder / "config.json").write_text(json.dumps(raw, indent=1) + "\n")
