"""Suffix seeding: what an earlier draft held behind its rejected token goes into the next block.

`sparse` and `dense` are the published modes: the rejected token and all after it go to the slots
2, 4, 6, ... or 1, 2, 3, ... of the next block, one place too late, and into slots that were never
clean in training. `aligned` puts every token where it was predicted to stand. `branch` does not
touch the block: the aligned tokens are verified as a second branch of the draft tree.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from floodstage.core.errors import ConfigError, unknown

MODES = ("none", "sparse", "dense", "aligned", "branch")


@dataclass(frozen=True, slots=True)
class Seeding:
    """A mode of MODES; at most `seed_max_tokens` tokens of a draft are used again (-1: all)."""

    mode: str = "none"
    seed_max_tokens: int = -1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("seeding", self.mode, MODES)
        if self.seed_max_tokens < -1:
            raise ConfigError(f"seed_max_tokens must be >= -1, got {self.seed_max_tokens!r}.")

    def recycled(self, draft: Tensor, accepted: int) -> Tensor:
        """Of a draft [k] of which `accepted` tokens were kept, what may be used again. Nothing if
        nothing was rejected."""
        if accepted >= draft.shape[0] or self.mode == "none":
            return draft[:0]
        rest = draft[accepted:] if self.mode in ("sparse", "dense") else draft[accepted + 1 :]
        return rest if self.seed_max_tokens < 0 else rest[: self.seed_max_tokens]

    def place(self, block: Tensor, recycled: Tensor) -> int:
        """Write recycled tokens into a block [slots] behind its anchor; how many there was room
        for."""
        if self.mode == "branch":
            return 0
        room = block[2::2] if self.mode == "sparse" else block[1:]
        count = min(room.shape[0], recycled.shape[0])
        room[:count] = recycled[:count]
        return count
