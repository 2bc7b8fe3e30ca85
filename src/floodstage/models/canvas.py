"""Grids as tensors: a denoiser that fills every cell at once, and its autoregressive twin.

The denoiser attends along rows, then along columns (then inside boxes), so its cost grows with
cells x (rows + columns) and not with cells squared (axial attention: Ho et al. 2019). Where a cell
is comes from tables added to it, of a period that wraps around; nothing depends on how large the
grid is. The twin writes the same cells one after another on the project's own runtime, with the
same layers, tables and heads. Knows no task and no schedule.

Shapes: B grids of H rows and W columns, N = B * H * W cells, V values, D hidden size.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from floodstage.core.errors import CheckpointError, ConfigError
from floodstage.models.config import TransformerConfig
from floodstage.models.layers import Attend, Layer, Linear, Norm, fuse_all
from floodstage.models.transformer import Transformer

DENOISER, WRITER = "CanvasDenoiser", "CanvasWriter"
_LINE = 16
"""Cells in a line for which attention is as sharp as the softmax has it; see `_sharpness`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasConfig:
    """Sizes of both models. `values` are 0 .. values - 1; `places` is the period of the position
    tables; `box` > 0 adds attention inside boxes of that side (sudoku's 3)."""

    task: str
    values: int
    places: int = 256
    box: int = 0
    hidden: int = 128
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    inner: int = 384

    def __post_init__(self) -> None:
        if self.hidden % self.heads or self.heads % self.kv_heads:
            raise ConfigError(
                f"hidden {self.hidden} must be a multiple of heads {self.heads}, and those of "
                f"kv_heads {self.kv_heads}."
            )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> CanvasConfig:
        """Read a `config.json`. Raises CheckpointError."""
        named = raw.get("architectures")
        if named not in ([DENOISER], [WRITER]):
            raise CheckpointError(
                f"Expected the config of a {DENOISER} or a {WRITER}, got one of {named!r}."
            )
        given = {f.name: raw.get(f.name) for f in fields(cls)}
        for name, value in given.items():
            if name == "task" and isinstance(value, str):
                continue
            least = 0 if name == "box" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise CheckpointError(
                    f"The canvas model's config needs a whole number {name!r} >= {least}, got "
                    f"{value!r}."
                )
        return cls(**given)  # type: ignore[arg-type]

    def to_dict(self, architecture: str) -> dict[str, Any]:
        return {"architectures": [architecture], **asdict(self)}

    def body(self) -> TransformerConfig:
        return TransformerConfig(
            model_type="qwen3",
            vocab_size=self.values,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.hidden // self.heads,
            norm_eps=1e-6,
            rope={"rope_type": "none", "rope_theta": 10000.0},
            context=1 << 20,
            tied=False,
            qk_norm=True,
            windows=(None,) * self.layers,
        )


Cells: TypeAlias = Sequence[Sequence[int | None]]


@dataclass(frozen=True, slots=True)
class Canvas:
    """Grids of one size. A hole holds the mask, which is the number of values."""

    cells: Tensor  # [B, H, W] int64
    locked: Tensor  # [B, H, W] bool: clues, which nothing may change
    rows: Tensor  # [B, H] int64 positions
    columns: Tensor  # [B, W]

    @classmethod
    def given(cls, grids: Sequence[Cells], mask: int, device: torch.device) -> Canvas:
        """Whole grids of one size from lists, whose holes are None; what is given is locked."""
        rows = [[[mask if x is None else x for x in row] for row in grid] for grid in grids]
        cells = torch.tensor(rows, device=device)
        return cls.of(cells, cells != mask)

    @classmethod
    def of(cls, cells: Tensor, locked: Tensor) -> Canvas:
        """Whole grids, whose positions count from 0."""
        b, h, w = cells.shape
        device = cells.device
        return cls(
            cells,
            locked,
            torch.arange(h, device=device).expand(b, h),
            torch.arange(w, device=device).expand(b, w),
        )


class Places(nn.Module):
    """What a cell is made of before any layer: its value, its row, its column, its kind."""

    def __init__(self, config: CanvasConfig) -> None:
        super().__init__()
        self.period = config.places
        self.embed_value = nn.Embedding(config.values + 1, config.hidden)  # the last: mask, start
        self.embed_row = nn.Embedding(config.places, config.hidden)
        self.embed_column = nn.Embedding(config.places, config.hidden)
        self.embed_kind = nn.Embedding(2, config.hidden)  # 1: a clue

    def forward(self, values: Tensor, kinds: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """int64 tensors that broadcast -> [..., D]"""
        where = self.embed_row(rows % self.period) + self.embed_column(columns % self.period)
        out: Tensor = self.embed_value(values) + self.embed_kind(kinds) + where
        return out


class Denoiser(nn.Module):
    """Logits of every cell from all cells, in one pass."""

    def __init__(self, config: CanvasConfig) -> None:
        super().__init__()
        self.config = config
        body = config.body()
        self.places = Places(config)
        self.layers = nn.ModuleList(Layer(body) for _ in range(config.layers))
        self.norm = Norm(config.hidden, body.norm_eps)
        self.lm_head = Linear(config.hidden, config.values, bias=False)

    @property
    def mask_id(self) -> int:
        return self.config.values

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device

    def fuse(self) -> Denoiser:
        """Lay together what inference uses together."""
        fuse_all(self.layers)
        return self

    def forward(self, canvas: Canvas) -> Tensor:
        """[B, H, W, V]. Raises ConfigError if the grid cannot be cut into the model's boxes."""
        b, h, w = shape = canvas.cells.shape
        box = self.config.box
        if box and (h % box or w % box):
            raise ConfigError(
                f"The model attends in boxes of {box} x {box}; a grid of {h} x {w} has no whole "
                "number of them."
            )
        x = self.places(
            canvas.cells,
            canvas.locked.long(),
            canvas.rows[:, :, None],
            canvas.columns[:, None, :],
        ).flatten(0, 2)
        ways = [along(axis, (b, h, w), box) for axis in (_AXES if box else _AXES[:2])]
        for i, layer in enumerate(self.layers):
            x = layer(x, None, None, ways[i % len(ways)])
        out: Tensor = self.lm_head(self.norm(x))
        return out.view(*shape, -1)


# A grid is seen as [B, H / s, s, W / s, s], s being a box's side. Per axis: the dimensions that
# tell lines apart, then those along a line.
_AXES = ((0, 1, 2, 3, 4), (0, 3, 4, 1, 2), (0, 1, 3, 2, 4))


def along(axis: tuple[int, ...], shape: tuple[int, int, int], box: int) -> Attend:
    """Attention inside every line of one axis; cells packed as [N, heads, d]."""
    (b, h, w), side = shape, box or 1
    seen = (b, h // side, side, w // side, side)
    turned = tuple(seen[d] for d in axis)
    back = [axis.index(d) for d in range(5)]
    line = turned[3] * turned[4]
    sharp = _sharpness(line)

    def lines(x: Tensor) -> Tensor:
        heads, d = x.shape[1:]
        x = x.view(*seen, heads, d).permute(*axis, 5, 6)
        return x.reshape(-1, line, heads, d).transpose(1, 2)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads, d = q.shape[1:]
        out = F.scaled_dot_product_attention(
            lines(q),
            lines(k),
            lines(v),
            scale=sharp * d**-0.5,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        out = out.transpose(1, 2).reshape(*turned, heads * d)
        return out.permute(*back, 5).reshape(-1, heads * d)

    return attend


def _sharpness(line: int) -> float:
    """Scores grow with the logarithm of how many are compared, so that a cell found among few is
    found among many (Chiang & Cholak 2022)."""
    return math.log(1 + line) / math.log(1 + _LINE)


class Writer(Transformer):
    """The twin: a causal model that writes a grid's cells in reading order.

    A prompt is the clues, in any order, and then a start; its tokens are `pack`ed: a value and the
    place it belongs to. What the model itself writes are bare values, whose place follows from how
    many were written: so a model is first made `sized` for the prompt's length and the grid's
    width.
    """

    def __init__(self, config: CanvasConfig) -> None:
        super().__init__(config.body())
        self.canvas = config
        self.model.embed_tokens = Places(config)  # type: ignore[assignment]
        self.prompt, self.width = 1, 1

    def sized(self, prompt: int, width: int) -> Writer:
        """The same weights for prompts of `prompt` tokens and grids of `width` columns."""
        other = copy.copy(self)
        other.prompt, other.width, other.graphs = prompt, width, None
        return other

    def pack(self, values: Tensor, clues: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """One number for a value (or the start), whether it is a clue, and a place: a clue's own,
        else that of the cell to be written next. All but bare values 0 .. V - 1."""
        places, ids = self.canvas.places, self.canvas.values + 1
        where = rows % places * places + columns % places
        return self.vocab_size + (where * 2 + clues) * ids + values

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        places, values = self.canvas.places, self.canvas.values
        # The token at position p is cell p - prompt; the next one's place goes with it.
        bare = ids < values
        cell = positions - self.prompt + 1
        row, column = cell // self.width, cell % self.width
        rest = torch.where(bare, ids, ids - values)
        value = torch.where(bare, ids, rest % (values + 1))
        kind = torch.where(bare, 0, rest // (values + 1) % 2)
        where = rest // (2 * (values + 1))
        row = torch.where(bare, row, where // places)
        column = torch.where(bare, column, where % places)
        out: Tensor = self.model.embed_tokens(value, kind, row, column)
        return out


def fresh_canvas(config: CanvasConfig, architecture: str, seed: int) -> Denoiser | Writer:
    """Random weights; what is added to the residual stream begins at zero, numbers as waves."""
    torch.manual_seed(seed)
    model = Denoiser(config) if architecture == DENOISER else Writer(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                p.zero_()
            elif "embed_kind" in name:
                p.normal_(std=0.1)
            elif "embed" in name:
                period = config.values if "embed_value" in name else config.places
                p.copy_(_waves(len(p), config.hidden, period))
            elif "head" in name:
                p.normal_(std=0.02)
            elif p.ndim == 2:
                p.normal_(std=p.shape[1] ** -0.5)
    return model


def _waves(count: int, hidden: int, period: int) -> Tensor:
    """[count, hidden]: numbers as points on circles, where adding is turning (Zhou et al. 2025),
    each table turned its own way and mixed with noise."""
    at = torch.arange(count, dtype=torch.float64)[:, None]
    every = torch.arange(1, hidden // 2 + 1)
    angles = 2 * math.pi * at * every / period
    table = torch.cat([angles.cos(), angles.sin()], -1)
    table = F.pad(table, (0, hidden - table.shape[1])).float()
    turn, _ = torch.linalg.qr(torch.randn(hidden, hidden))
    out: Tensor = table @ turn + 0.2 * torch.randn(count, hidden)
    return out


def _per_cell(config: CanvasConfig) -> int:
    """Multiplications and additions of the linear layers for one cell."""
    c, d = config, config.hidden // config.heads
    attention = c.hidden * d * (c.heads + 2 * c.kv_heads) + c.hidden * d * c.heads
    return 2 * (c.layers * (attention + 3 * c.hidden * c.inner) + c.hidden * c.values)


def filling_flops(config: CanvasConfig, height: int, width: int) -> int:
    """Of one pass over one grid."""
    cells, ways = height * width, 3 if config.box else 2
    line = {0: width, 1: height, 2: config.box**2}
    compared = sum(line[i % ways] for i in range(config.layers))
    return cells * (_per_cell(config) + 4 * config.hidden * compared)


def writing_flops(config: CanvasConfig, cells: int, prompt: int, *, rows: int | None = None) -> int:
    """Of writing one grid after a prompt, with a cache: `rows` are those that were run, drafted
    ones included (default: one for every cell)."""
    rows = cells if rows is None else rows
    mean = prompt + cells / 2
    own = prompt * (_per_cell(config) + 2 * config.layers * config.hidden * prompt)
    return int(own + rows * (_per_cell(config) + 4 * config.layers * config.hidden * mean))
