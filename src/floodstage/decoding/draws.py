"""What a flood draws and keeps: candidates, expansions, and how they are chosen. Values only.

Shapes: P parents, U different ones of them, D draws, S slots of the level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from floodstage.core.errors import ConfigError, unknown
from floodstage.models.fractal import Renderer

NOISES = ("mask", "uniform")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How children are drawn and which are kept.

    Of `k` draws the one of lowest energy is kept. With a `threshold`, parents whose best energy is
    not below it are drawn again, `k` more each time and up to `retries` times; then the best of all
    is kept. Draw 0 takes the likeliest children if `greedy_first`; the others draw at
    `temperature` (0: the likeliest, too). `steps` passes denoise a draw.
    """

    k: int = 1
    temperature: float = 1.0
    greedy_first: bool = True
    noise: str = "mask"
    steps: int = 1
    threshold: float | None = None
    retries: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.noise not in NOISES:
            raise unknown("noise", self.noise, NOISES)
        if self.k < 1 or self.steps < 1 or self.retries < 0 or self.temperature < 0:
            raise ConfigError(
                "Expected k >= 1, steps >= 1, retries >= 0 and temperature >= 0, got "
                f"{self.k!r}, {self.steps!r}, {self.retries!r} and {self.temperature!r}."
            )


@dataclass(frozen=True, slots=True)
class Draws:
    """Candidates: D for each of U parents."""

    children: Tensor  # [U, D, S], 0 past the length
    lengths: Tensor  # [U, D]

    def at(self, best: Tensor) -> tuple[Tensor, Tensor]:
        """Children [U, S] and lengths [U] of draw best[u]."""
        rows = torch.arange(best.shape[0], device=best.device)
        return self.children[rows, best], self.lengths[rows, best]


class Critic(Protocol):
    """Judges candidates: the renderer's energy here, a table or an execution elsewhere."""

    def __call__(self, parents: Tensor, level: int, draws: Draws) -> Tensor:
        """parents [U] -> energies [U, D]: the lower the better, below 0 more likely right than
        wrong."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """What became of P parents."""

    children: Tensor  # [P, S], 0 past the length
    lengths: Tensor  # [P]
    energies: Tensor  # [P] of the kept draw
    draws: Tensor  # [P] how many draws it took

    @property
    def mask(self) -> Tensor:
        """[P, S] bool: which slots hold a child."""
        return (
            torch.arange(self.children.shape[1], device=self.lengths.device)
            < (self.lengths[:, None])
        )

    @property
    def flat(self) -> Tensor:
        """All children in order, without the empty slots."""
        return self.children[self.mask]


@dataclass(slots=True)
class Memory:
    """What parents became, by level and id: a row per parent, filled when it is first drawn."""

    rows: list[Expansion]

    @classmethod
    def of(cls, renderer: Renderer) -> Memory:
        config, device = renderer.config, renderer.device
        return cls(
            [
                Expansion(
                    torch.zeros(parents, slots, dtype=torch.int64, device=device),
                    torch.zeros(parents, dtype=torch.int64, device=device),
                    torch.zeros(parents, device=device),
                    torch.zeros(parents, dtype=torch.int64, device=device),
                )
                for parents, slots in zip(config.parents, config.slots, strict=True)
            ]
        )

    def missing(self, parents: Tensor, level: int) -> Tensor:
        """The parents that were never drawn, each once."""
        ids: Tensor = torch.unique(parents)
        return ids[self.rows[level].draws[ids] == 0]

    def keep(self, parents: Tensor, level: int, found: Expansion) -> None:
        held = self.rows[level]
        held.children[parents] = found.children
        held.lengths[parents] = found.lengths
        held.energies[parents] = found.energies.float()
        held.draws[parents] = found.draws

    def read(self, parents: Tensor, level: int) -> Expansion:
        held = self.rows[level]
        return Expansion(
            held.children[parents],
            held.lengths[parents],
            held.energies[parents],
            held.draws[parents],
        )
