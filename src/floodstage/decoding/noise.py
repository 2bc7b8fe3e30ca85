"""Random numbers that belong to places in the text, not to moments of the computation.

Row p of a sequence's noise is used for its p-th new token, however many passes it takes to get
there. So a sampled text is the same, token for token, whether it was drafted or not, alone or in
a batch: speculation changes the speed and nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from floodstage.ops.sampling import gumbel


class NoiseStream:
    """Gumbel noise [*, V] by position, made in order and kept until it is used."""

    def __init__(self, seed: int, vocab_size: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)
        self.vocab_size, self.device = vocab_size, device
        self.base = 0  # position of the first kept row
        self.kept: list[Tensor] = []

    def rows(self, positions: list[int]) -> Tensor:
        """[len(positions), V]. Positions before the last `forget` are gone."""
        while self.base + len(self.kept) <= max(positions):
            # One row a call: how the numbers of a longer call are laid out is the device's affair.
            uniform = torch.rand(self.vocab_size, generator=self.generator, device=self.device)
            self.kept.append(gumbel(uniform))
        return torch.stack([self.kept[p - self.base] for p in positions])

    def forget(self, position: int) -> None:
        """Rows before `position` will not be asked for again."""
        del self.kept[: position - self.base]
        self.base = position
