"""Verify a draft up to the first token that its drafter itself hardly believes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from floodstage.core.errors import ConfigError
from floodstage.core.types import Proposal, StepRecord
from floodstage.scheduling.survival import survival


@dataclass(frozen=True, slots=True)
class ConfidenceScheduler:
    """Draft `draft_len` tokens; verify while the product of the confidences is >= `threshold`.

    The product estimates the chance that a token is reached and accepted at all. A token is left
    out because of those before it and of how sure the drafter was before it drew (see
    `Draft.confidence`), so the output keeps the target's law.
    """

    draft_len: int
    threshold: float = 0.2
    name: str = "confidence"
    needs_confidence: bool = True

    def __post_init__(self) -> None:
        if self.draft_len < 0 or not 0.0 <= self.threshold <= 1.0:
            raise ConfigError(
                "draft_len must be >= 0 and threshold in [0, 1], "
                f"got {self.draft_len!r} and {self.threshold!r}."
            )

    def choose(self) -> int:
        return self.draft_len

    def cut(self, drafts: Sequence[Proposal]) -> list[int]:
        return [self._cut(draft) for draft in drafts]

    def _cut(self, draft: Proposal) -> int:
        for i, chance in enumerate(survival(draft)):
            if chance < self.threshold:
                return i
        return draft.size

    def observe(self, record: StepRecord) -> None:
        pass
