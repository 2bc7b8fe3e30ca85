"""Passes of a decode cycle in few fixed shapes, so that CUDA can replay each as one graph.

A cycle is hundreds of small kernels, and launching them one by one costs several times what they
compute. So every sequence brings the same number of rows (a shorter one repeats its last row,
which writes its cell once more with the same values) and looks at the same number of cells (those
past its end are masked); both numbers are rounded up, so that few shapes occur. Without capture
the same code runs anywhere. Here are the mechanism and the target's pass; the block-diffusion
drafter's is in `block_pass`. Knows neither weights nor tokens' meaning.

Shapes: n sequences, R rows each, K cells seen, N packed rows given.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from floodstage.models.cache import KVCache, ParentLists, Rows, additive, ancestry, upload
from floodstage.models.layers import Rotary

if TYPE_CHECKING:
    from floodstage.models.transformer import Transformer

ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
STEP = 256
"""Cells: the least width, and what widths and capacities are multiples of."""

Output = tuple[Tensor, Tensor | None]


class Model(Protocol):
    """Whose passes are captured."""

    rotary: Rotary

    def room(self, slots: int, capacity: int) -> KVCache: ...


class Pass(ABC):
    """One shape: its input buffers and, once recorded, its graph. Holds no cache."""

    def __init__(self, rotary: Rotary) -> None:
        self.rotary = rotary
        self.ran = False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.output: Output | None = None

    @abstractmethod
    def compute(self, cache: KVCache) -> Output:
        """The pass over the buffers, with shapes that depend on nothing else."""

    def record(self, cache: KVCache, pool: Any) -> None:
        """Capture the pass. The buffers must be loaded: it runs once before, to warm up."""
        with torch.cuda.device(cache.keys[0].device):
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.compute(cache)
            torch.cuda.current_stream().wait_stream(side)
            # The table may be replaced by a longer one; a graph goes on reading this one.
            self.tables = (self.rotary.cos, self.rotary.sin)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                self.output = self.compute(cache)
            self.graph = graph

    def play(self, cache: KVCache) -> Output:
        if self.graph is None or self.output is None:
            return self.compute(cache)
        self.graph.replay()
        return self.output


P = TypeVar("P", bound=Pass)


class Graphs:
    """The passes known for each cache of one model, and caches that wait for another state.

    A shape's first pass runs kernel by kernel (most shapes of a prompt occur once), its second is
    captured. A graph holds the addresses of its cache; that is why caches are lent again.
    """

    def __init__(self, model: Model, *, capture: bool = True) -> None:
        self.model, self.capture = model, capture
        self.passes: weakref.WeakKeyDictionary[KVCache, dict[Hashable, Any]] = (
            weakref.WeakKeyDictionary()
        )
        self.spare: list[KVCache] = []
        self.pool: Any = None

    def lend(self, slots: int, capacity: int) -> KVCache:
        """An empty cache with at least so many slots and cells."""
        for cache in self.spare:
            if cache.slots >= slots and cache.capacity >= capacity:
                self.spare.remove(cache)
                cache.lengths = []
                return cache
        self.spare.clear()
        return self.model.room(slots, -(-capacity // STEP) * STEP)

    def expect_back(self, state: object, cache: KVCache) -> None:
        """Take `cache` back when nobody holds `state` any more."""
        weakref.finalize(state, self._take_back, cache).atexit = False

    def _take_back(self, cache: KVCache) -> None:
        self.spare = [cache, *self.spare][:2]

    def fits(self, counts: Sequence[int]) -> bool:
        """Whether so many rows of each sequence are those of a cycle."""
        return min(counts) > 0 and max(counts) <= ROWS[-1]

    def known(self, cache: KVCache, shape: Hashable, make: Callable[[], P]) -> P:
        """The pass of `shape`, to be loaded; `make` makes it when it is met first."""
        passes = self.passes.setdefault(cache, {})
        if shape not in passes:
            passes[shape] = make()
        found: P = passes[shape]
        return found

    def play(self, one: Pass, cache: KVCache) -> Output:
        """Run a loaded pass. What it gives is overwritten by the next that is played."""
        if one.ran and self.capture and one.graph is None:
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            one.record(cache, self.pool)
        one.ran = True
        return one.play(cache)


@dataclass(frozen=True, slots=True)
class Shape:
    """What one graph of a target is good for."""

    sequences: int
    rows: int
    width: int
    tree: bool
    taps: tuple[int, ...]


class TargetPass(Pass):
    """The layers of a `Transformer`: hidden [n * R, H] before the final norm, taps [n * R, D]."""

    def __init__(self, model: Transformer, shape: Shape) -> None:
        super().__init__(model.rotary)
        self.model, self.shape = model, shape
        n, rows, device = shape.sequences, shape.rows, model.device
        self.ids = torch.zeros(n * rows, dtype=torch.long, device=device)
        self.plan = torch.zeros(4, n, rows, dtype=torch.long, device=device)
        self.sees = torch.zeros(n, rows, rows, dtype=torch.bool, device=device)

    def load(self, ids: Tensor, plan: Tensor, sees: Tensor | None) -> None:
        """Fill the buffers: ids [N], and what `fixed_plan` gave."""
        self.ids[: ids.shape[0]].copy_(ids)
        self.plan.copy_(upload(plan, self.plan.device))
        if sees is not None:
            self.sees.copy_(upload(sees, self.sees.device))

    def compute(self, cache: KVCache) -> Output:
        shape, config = self.shape, self.model.config
        cells, positions, take, _ = self.plan.unbind(0)
        seen, at = self._seen(cells, positions)
        masks: dict[int | None, Tensor | None] = {}
        for window in set(config.windows):
            near = seen
            if window is not None:
                near = seen & (at[:, None] > positions[:, :, None] - window)
            masks[window] = additive(near, config.heads // config.kv_heads, self.model.dtype)
        rows = fixed_rows(cells, positions, shape.width)
        return self.model.through(cache, self.ids[take.flatten()], rows, masks, shape.taps)

    def _seen(self, cells: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Which cells each row sees [n, R, K], and at which position each cell is [n or 1, K]."""
        n, rows, width = self.shape.sequences, self.shape.rows, self.shape.width
        key = torch.arange(width, device=cells.device)
        if not self.shape.tree:
            return key <= cells[:, :, None], key[None]
        row = key - cells[:, :1]  # [n, K]: which new row wrote the cell, if one did
        nearest = row.clamp(0, rows - 1)
        fresh = self.sees.gather(2, nearest[:, None].expand(n, rows, width))
        seen = (row < 0)[:, None] | (fresh & ((row >= 0) & (row < rows))[:, None])
        return seen, torch.where(row < 0, key, positions.gather(1, nearest))


def run_target(
    graphs: Graphs,
    model: Transformer,
    cache: KVCache,
    ids: Tensor,
    bases: Sequence[int],
    counts: Sequence[int],
    parents: ParentLists | None,
    taps: Sequence[int],
) -> Output:
    """`Transformer.run` for ids [N] of sequences in slots 0 to n - 1. Gives fresh tensors."""
    end = max(b + c for b, c in zip(bases, counts, strict=True))
    rows, width = rows_for(max(counts)), width_for(end, cache.capacity)
    shape = Shape(len(counts), rows, width, parents is not None, tuple(taps))
    one = graphs.known(cache, shape, lambda: TargetPass(model, shape))
    one.load(ids, *fixed_plan(bases, counts, parents, rows))
    hidden, kept = graphs.play(one, cache)
    where = one.plan[3].flatten()[: ids.shape[0]]
    return hidden[where], None if kept is None else kept[where]


def fixed_rows(cells: Tensor, positions: Tensor, width: int) -> Rows:
    """The plan of rows [n, R] of slots 0 to n - 1 whose cells only the device knows."""
    n, rows = cells.shape
    return Rows(
        first=0,
        counts=(rows,) * n,
        bases=(),
        slots=torch.arange(n, device=cells.device)[:, None].expand(n, rows).flatten(),
        cells=cells.flatten(),
        positions=positions.flatten(),
        padded=None,
        mask=None,
        width=width,
    )


def fixed_plan(
    bases: Sequence[int], counts: Sequence[int], parents: ParentLists | None, rows: int
) -> tuple[Tensor, Tensor | None]:
    """What `TargetPass` must be told, on the host: [4, n, R] of each row's cell, position and place
    among the packed rows, and (its first N numbers) where the packed rows are in [n * R]; and for
    trees who sees which new row, [n, R, R] bool."""
    count = torch.tensor(counts)[:, None]
    every = torch.arange(rows)
    step = every.minimum(count - 1)  # [n, R]
    cells = torch.tensor(bases)[:, None] + step
    take = torch.tensor([0, *accumulate(counts)][:-1])[:, None] + step
    places = torch.zeros(len(counts) * rows, dtype=torch.long)
    places[: sum(counts)] = (every < count).flatten().nonzero()[:, 0]
    positions, sees = cells, None
    if parents is not None:
        positions, sees = cells.clone(), step[:, :, None] >= every
        for i, parent in enumerate(parents):
            if parent is not None:
                depths, own = ancestry(parent, counts[i])
                positions[i] = bases[i] + depths[step[i]]
                sees[i] = False
                sees[i, :, : counts[i]] = own[step[i]]
    return torch.stack([cells, positions, take, places.view_as(cells)]), sees


def rows_for(count: int) -> int:
    """The bucket for `count` rows."""
    return next(size for size in ROWS if size >= count)


def width_for(cells: int, capacity: int) -> int:
    """The bucket for `cells`: multiples of STEP that grow by a quarter, at most `capacity`."""
    width = STEP
    while width < cells:
        width += max(STEP, width // 4 // STEP * STEP)
    return min(width, capacity)
