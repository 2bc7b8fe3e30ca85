"""The flood's renderer: one denoiser that expands a root into chunks and a chunk into characters.

Both levels share all weights but the heads. A row is a parent and the slots of its children; slots
hold noise (a mask, or random children) and are all predicted at once. How many children a parent
has is predicted first, from the parent alone, so that no slot is ever padding; the energy head
then says whether a parent and its children belong together. Knows no text and no sampling.

After the idea of patelnav/Fractal (2025), with lengths learnt, masks honoured, both levels in one
batch, and an energy that attends instead of averaging.

Shapes: R rows, S slots of the longest row, N packed places (parents and children), H hidden size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from floodstage.core.errors import CheckpointError
from floodstage.models.config import TransformerConfig
from floodstage.models.layers import Layer, Linear, Norm, Rotary, fuse_all

ARCHITECTURE = "FloodRenderer"
LEVELS = ("chunks", "chars")  # what level 0 and level 1 produce
_WAVES = 32  # of the noise level's embedding


@dataclass(frozen=True, slots=True, kw_only=True)
class RendererConfig:
    """Sizes. Ids are a hierarchy's: every character is a chunk, every chunk is a root."""

    roots: int
    chunks: int
    chars: int
    chunks_per_root: int = 4
    chars_per_chunk: int = 16
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    inner: int = 704

    @property
    def slots(self) -> tuple[int, int]:
        """Most children of a parent, by level."""
        return self.chunks_per_root, self.chars_per_chunk

    @property
    def children(self) -> tuple[int, int]:
        """How many child ids there are, by level."""
        return self.chunks, self.chars

    @property
    def parents(self) -> tuple[int, int]:
        return self.roots, self.chunks

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> RendererConfig:
        """Read a `config.json`. Raises CheckpointError."""
        if raw.get("architectures") != [ARCHITECTURE]:
            raise CheckpointError(
                f"Expected the config of a {ARCHITECTURE}, got one of {raw.get('architectures')!r}."
            )
        given = {f.name: raw.get(f.name) for f in fields(cls)}
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise CheckpointError(
                    f"The renderer's config needs a positive whole number {name!r}, got {value!r}."
                )
        return cls(**given)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        return {"architectures": [ARCHITECTURE], **asdict(self)}

    def body(self) -> TransformerConfig:
        return TransformerConfig(
            model_type="qwen3",
            vocab_size=self.roots,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.heads,
            head_dim=self.hidden // self.heads,
            norm_eps=1e-6,
            rope={"rope_type": "default", "rope_theta": 10000.0},
            context=1 + max(self.slots),
            tied=False,
            qk_norm=True,
            windows=(None,) * self.layers,
        )


@dataclass(frozen=True, slots=True)
class Families:
    """Parents with their children."""

    parents: Tensor  # [R]
    children: Tensor  # [R, S] child ids or the mask; past a row's length anything
    lengths: Tensor  # [R] how many children
    levels: Tensor  # [R] 0: root with chunks, 1: chunk with characters
    noise: Tensor  # [R] the share of slots that hold noise, in [0, 1]

    def __len__(self) -> int:
        return self.parents.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Families:
        return Families(
            self.parents[rows],
            self.children[rows],
            self.lengths[rows],
            self.levels[rows],
            self.noise[rows],
        )


class Renderer(nn.Module):
    """The weights, and the pass over families."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.config = config
        body, hidden = config.body(), config.hidden
        self.embed_tokens = nn.Embedding(config.roots + 1, hidden)  # the last is the mask
        self.embed_level = nn.Embedding(len(LEVELS), hidden)
        self.noise_in = Linear(2 * _WAVES, hidden)
        self.noise_out = Linear(hidden, hidden)
        self.layers = nn.ModuleList(Layer(body) for _ in range(config.layers))
        self.norm = Norm(hidden, body.norm_eps)
        self.child_heads = nn.ModuleList(Linear(hidden, n, bias=False) for n in config.children)
        self.length_heads = nn.ModuleList(Linear(hidden, n, bias=False) for n in config.slots)
        self.energy_in = Linear(hidden, hidden // 2)
        self.energy_out = Linear(hidden // 2, 1)
        self.rotary = Rotary(body)

    @property
    def mask_id(self) -> int:
        return self.config.roots

    @property
    def device(self) -> torch.device:
        return self.embed_tokens.weight.device

    def fuse(self) -> Renderer:
        """Lay together what inference uses together."""
        fuse_all(self.layers)
        return self

    def forward(self, rows: Families) -> Tensor:
        """Hidden states [R, 1 + S, H]: column 0 is the parent's; zero past a row's length."""
        n, width = rows.children.shape[0], rows.children.shape[1] + 1
        lengths, order = rows.lengths.sort(stable=True)
        column = torch.arange(width, device=lengths.device)
        places = (column <= lengths[:, None]).flatten().nonzero()[:, 0]  # [N] of sorted rows
        row = order[places // width]
        column = places % width
        tokens = torch.cat([rows.parents[:, None], rows.children], 1)[row, column]
        x = self.embed_tokens(tokens) + self._conditions(rows)[row]
        self.rotary.reserve(width, x)
        cos, sin = self.rotary(column)
        alike = Counter(lengths.tolist())  # in the order of the sorted rows
        shapes = [(many, 1 + size) for size, many in alike.items()]
        sizes = [many * size for many, size in shapes]

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            parts = (x.split_with_sizes(sizes) for x in (q, k, v))
            return torch.cat([_attend(*part) for part in zip(shapes, *parts, strict=True)])

        for layer in self.layers:
            x = layer(x, cos, sin, attend)
        x = self.norm(x)
        out: Tensor = x.new_zeros(n * width, x.shape[-1])
        return out.index_copy(0, row * width + column, x).view(n, width, -1)

    def _conditions(self, rows: Families) -> Tensor:
        """[R, H] what level and noise add to every place of a row."""
        waves = torch.arange(_WAVES, device=rows.noise.device, dtype=torch.float32)
        angles = rows.noise.float()[:, None] * torch.pi * 2 ** (waves * 8 / _WAVES)
        known = torch.cat([angles.cos(), angles.sin()], -1).to(self.embed_level.weight.dtype)
        noise: Tensor = self.noise_out(F.silu(self.noise_in(known)))
        level: Tensor = self.embed_level(rows.levels)
        return noise + level

    def child_logits(self, hidden: Tensor, level: int) -> Tensor:
        """Slots' hidden states [..., H] -> [..., children of the level]."""
        out: Tensor = self.child_heads[level](hidden)
        return out

    def length_logits(self, hidden: Tensor, level: int) -> Tensor:
        """Hidden states [R, H] of parents that stand alone -> [R, slots]: column i is i + 1
        children."""
        out: Tensor = self.length_heads[level](hidden)
        return out

    def energy(self, hidden: Tensor) -> Tensor:
        """Hidden states [R, H] of parents beside clean children -> [R], a logit: below zero where
        they belong together."""
        out: Tensor = self.energy_out(F.silu(self.energy_in(hidden)))
        return out[..., 0]


def _attend(shape: tuple[int, int], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Rows of one length attend inside themselves: [rows * length, heads, d] -> [.., heads * d].
    Rows of other lengths are not in the batch, so there is no padding to mask."""
    if shape[1] == 1:
        return v.flatten(1)
    q, k, v = (part.view(*shape, *part.shape[1:]).transpose(1, 2) for part in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).flatten(2).flatten(0, 1)


def fresh_renderer(config: RendererConfig, seed: int) -> Renderer:
    """Random weights; what is added to the residual stream begins at zero."""
    torch.manual_seed(seed)
    model = Renderer(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "_out.weight")):
                p.zero_()
            elif "embed" in name:
                p.normal_(std=1.0 if "tokens" in name else 0.1)
            elif p.ndim == 2:
                p.normal_(std=p.shape[1] ** -0.5)
    return model
