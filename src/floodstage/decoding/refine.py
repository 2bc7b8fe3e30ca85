"""Canvas refinement: every hole of a grid is predicted at once, sure cells are kept, and again.

A pass gives every cell a most likely value and a confidence. The schedule says which holes are
filled with theirs; the others stay masked for the next pass, which sees what was filled. A cell
filled earlier whose value has become unlikely can be masked again. Clues are never touched. Grids
of a batch that are done leave it. Knows no task: a checker is a function it is handed.

After MaskGIT (Chang et al. 2022: confidence, the cosine schedule) and the confidence threshold of
Fast-dLLM (Wu et al. 2025).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from torch import Tensor

from floodstage.core.errors import ConfigError, unknown
from floodstage.core.protocols import Clock
from floodstage.models.canvas import Canvas, Denoiser

SCHEDULES = ("threshold", "linear", "cosine", "one")

Check = Callable[[int, list[list[int]]], bool]
"""Whether grid number i of the batch, filled so, is right by its law."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """How holes are filled.

    `threshold`: those whose confidence reaches it, at least one; `linear` and `cosine`: so many
    that none is left after `passes`; `one`: one a pass, the surest, however many passes it takes.
    The last pass fills what is left. `remask` > 0 masks cells again whose value has become less
    likely than that, and then goes on until nothing changes. `propose`: after every pass the
    likeliest value of every hole is put to the checker, if there is one; a grid that satisfies it
    so is done.
    """

    passes: int = 10
    schedule: str = "threshold"
    threshold: float = 0.99
    remask: float = 0.5
    propose: bool = True

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        if self.passes < 1:
            raise ConfigError(f"passes must be >= 1, got {self.passes!r}.")
        for name in ("threshold", "remask"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must be in [0, 1], got {getattr(self, name)!r}.")


@dataclass(frozen=True, slots=True)
class PassRecord:
    """What one pass did to a batch. `errors` are unlocked, filled cells that differ from the truth,
    where it is known; seconds are wall time of the pass, its choices and checks included."""

    number: int  # from 1
    grids: int  # that were not done yet
    fixed: int  # holes filled
    changed: int  # filled cells that got another value
    remasked: int  # filled cells that became holes
    holes: int  # left
    confidence: float  # mean of the cells that were filled or changed
    least: float  # and the lowest
    errors: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass and the batch after it: cells [B, H, W], and which grids are done [B]."""

    record: PassRecord
    cells: Tensor
    done: Tensor


@dataclass(frozen=True, slots=True)
class Filled:
    """Filled grids: cells [B, H, W], how many passes each took [B], and the trace."""

    cells: Tensor
    passes: Tensor
    records: tuple[PassRecord, ...]


def fill(
    model: Denoiser,
    canvas: Canvas,
    refinement: Refinement,
    *,
    check: Check | None = None,
    truth: Tensor | None = None,
    clock: Clock = perf_counter,
) -> Filled:
    """Fill every hole; see `refine`."""
    return collect(canvas, refine(model, canvas, refinement, check=check, truth=truth, clock=clock))


def collect(canvas: Canvas, steps: Iterable[Pass]) -> Filled:
    """What passes over `canvas` came to."""
    passes = torch.zeros(len(canvas.cells), dtype=torch.int64)
    records: list[PassRecord] = []
    cells, done = canvas.cells, passes.bool()
    for step in steps:
        passes += ~done
        cells, done = step.cells, step.done
        records.append(step.record)
    return Filled(cells, passes, tuple(records))


@torch.inference_mode()
def refine(
    model: Denoiser,
    canvas: Canvas,
    refinement: Refinement,
    *,
    check: Check | None = None,
    truth: Tensor | None = None,
    clock: Clock = perf_counter,
) -> Iterator[Pass]:
    """Passes until every grid is done: it has no hole and nothing would change, or `check` is
    satisfied. `truth` [B, H, W] is only counted against, never shown to the model. No pass is run
    for grids that begin without a hole."""
    mask, holes = model.mask_id, canvas.cells == model.mask_id
    cells = canvas.cells.clone()
    total = holes.sum((1, 2))
    done = (total == 0).cpu()
    one = refinement.schedule == "one"
    limit = total if one else torch.full_like(total, refinement.passes)
    for number in range(1, int(limit.max()) + 1):
        if bool(done.all()):
            return
        start = clock()
        live = (~done).nonzero()[:, 0].to(cells.device)
        before = cells[live]
        some = replace(canvas, cells=before, locked=canvas.locked[live])
        some = replace(some, rows=canvas.rows[live], columns=canvas.columns[live])
        value, sure, own = predict(model(some), before, mask)
        masked = before == mask
        doubted = ~masked & ~some.locked & (own < refinement.remask)
        wanting = masked | doubted
        last = limit[live] == number
        chosen = choose(refinement, number, wanting, sure, total[live]) | last[:, None, None]
        after = torch.where(wanting, torch.where(chosen, value, mask), before)
        finished = last.cpu() | _settled(refinement, before, after, mask)
        if check is not None and (refinement.propose or refinement.remask > 0):
            whole = torch.where(wanting, value, before) if refinement.propose else after
            right = _checked(check, live, whole, ~finished, mask)
            after = torch.where(right.to(after.device)[:, None, None], whole, after)
            finished |= right
        cells = cells.index_copy(0, live, after)
        record = _record(number, before, after, mask, sure, doubted)
        done[live.cpu()] = finished
        if truth is not None:
            wrong = (cells != truth) & (cells != mask) & ~canvas.locked
            record = replace(record, errors=int(wrong.sum()))
        yield Pass(replace(record, seconds=clock() - start), cells, done.clone())


def predict(logits: Tensor, cells: Tensor, mask: int) -> tuple[Tensor, Tensor, Tensor]:
    """[B, H, W, V] -> the likeliest value, its probability, and that of the value a cell holds
    (of a hole: 0), each [B, H, W]."""
    logits = logits.float()
    top, value = logits.max(-1)
    total = logits.logsumexp(-1)
    held = cells.clamp(max=mask - 1)[..., None]
    own = (logits.gather(-1, held)[..., 0] - total).exp()
    return value, (top - total).exp(), own.masked_fill(cells == mask, 0.0)


def choose(
    refinement: Refinement, number: int, wanting: Tensor, sure: Tensor, total: Tensor
) -> Tensor:
    """[B, H, W] bool: which of the `wanting` cells pass `number` fills. `total` [B] is how many
    holes the grids began with."""
    flat = sure.masked_fill(~wanting, -1.0).flatten(1)
    if refinement.schedule == "threshold":
        surest = torch.zeros_like(flat, dtype=torch.bool)
        surest.scatter_(1, flat.argmax(1, keepdim=True), True)
        return wanting & ((sure >= refinement.threshold) | surest.view_as(wanting))
    order = flat.argsort(1, descending=True)
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, place).view_as(wanting)  # 0: the surest
    left = holes_left(refinement, number, total)
    count = (wanting.sum((1, 2)) - left).clamp(min=1)
    return wanting & (rank < count[:, None, None])


def holes_left(refinement: Refinement, number: int, total: Tensor) -> Tensor:
    """How many of `total` holes a schedule leaves after pass `number`."""
    if refinement.schedule == "one":
        return (total - number).clamp(min=0)
    at = number / refinement.passes
    share = 1 - at if refinement.schedule == "linear" else math.cos(math.pi / 2 * at)
    return (total * max(0.0, share)).floor().long()


def _record(
    number: int, before: Tensor, after: Tensor, mask: int, sure: Tensor, doubted: Tensor
) -> PassRecord:
    new = (after != before) & (after != mask)
    confidence = sure[new]
    some = confidence.numel() > 0
    return PassRecord(
        number=number,
        grids=len(before),
        fixed=int((new & (before == mask)).sum()),
        changed=int((new & (before != mask)).sum()),
        remasked=int((doubted & (after == mask)).sum()),
        holes=int((after == mask).sum()),
        confidence=float(confidence.mean()) if some else 1.0,
        least=float(confidence.min()) if some else 1.0,
        errors=None,
        seconds=0.0,
    )


def _settled(refinement: Refinement, before: Tensor, after: Tensor, mask: int) -> Tensor:
    """[live grids] bool, on the host: no hole is left, and nothing would change any more."""
    whole = (after != mask).all(2).all(1)
    # Without masking again a filled grid never changes.
    still = (after == before).all(2).all(1) if refinement.remask > 0 else whole
    return (whole & still).cpu()


def _checked(check: Check, live: Tensor, grids: Tensor, asked: Tensor, mask: int) -> Tensor:
    """[live grids] bool, on the host: which of the `asked` grids are whole and satisfy `check`."""
    right = torch.zeros(len(grids), dtype=torch.bool)
    for i in (asked & (grids != mask).all(2).all(1).cpu()).nonzero()[:, 0].tolist():
        right[i] = check(int(live[i]), grids[i].tolist())
    return right
