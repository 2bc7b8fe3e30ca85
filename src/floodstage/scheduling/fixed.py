"""Always the same draft length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from floodstage.core.errors import ConfigError
from floodstage.core.types import Proposal, StepRecord


@dataclass(frozen=True, slots=True)
class FixedScheduler:
    """Draft `draft_len` tokens and verify them all. `trace` has the drafter's confidence kept in
    the records, which costs a copy to the host."""

    draft_len: int
    trace: bool = False
    name: str = "fixed"

    def __post_init__(self) -> None:
        if self.draft_len < 0:
            raise ConfigError(f"draft_len must be >= 0, got {self.draft_len!r}.")

    @property
    def needs_confidence(self) -> bool:
        return self.trace

    def choose(self) -> int:
        return self.draft_len

    def cut(self, drafts: Sequence[Proposal]) -> list[int]:
        return [draft.size for draft in drafts]

    def observe(self, record: StepRecord) -> None:
        pass
