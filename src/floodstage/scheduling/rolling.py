"""Three draft lengths, chosen by the mean gain of the last few cycles."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

from floodstage.core.errors import ConfigError
from floodstage.core.types import Proposal, StepRecord


class RollingScheduler:
    """The mean gain over `window` cycles picks a block size: the largest at `high` or more, the
    middle at `mid` or more, else the smallest. Starts with the largest."""

    name = "rolling"
    needs_confidence = False

    def __init__(
        self,
        draft_len: int,
        *,
        block_sizes: tuple[int, ...] = (8, 12, 16),
        window: int = 4,
        high: float = 7.0,
        mid: float = 6.0,
    ) -> None:
        self.sizes = candidate_sizes(draft_len, block_sizes)
        if window < 1 or high < mid:
            raise ConfigError(
                f"window must be >= 1 and high >= mid, got {window!r}, {high!r} and {mid!r}."
            )
        self.high, self.mid = high, mid
        self.gains: deque[int] = deque(maxlen=window)

    def choose(self) -> int:
        mean = sum(self.gains) / len(self.gains) if self.gains else self.high
        place = -1 if mean >= self.high else len(self.sizes) // 2 if mean >= self.mid else 0
        return self.sizes[place] - 1

    def cut(self, drafts: Sequence[Proposal]) -> list[int]:
        return [draft.size for draft in drafts]

    def observe(self, record: StepRecord) -> None:
        if record.drafted:
            self.gains.append(record.gained)


def candidate_sizes(draft_len: int, block_sizes: Sequence[int]) -> tuple[int, ...]:
    """The block sizes (anchor counted) that a drafter of `draft_len` tokens can fill.

    Raises ConfigError unless they ascend and at least two are left.
    """
    if not block_sizes or block_sizes[0] < 2 or any(a >= b for a, b in pairwise(block_sizes)):
        raise ConfigError(f"block_sizes must ascend from 2 or more, got {block_sizes!r}.")
    sizes = tuple(size for size in block_sizes if size <= draft_len + 1)
    if len(sizes) < 2:
        raise ConfigError(
            f"A draft length of {draft_len} leaves {len(sizes)} of the block sizes "
            f"{block_sizes!r}; at least two are needed: give others."
        )
    return sizes
