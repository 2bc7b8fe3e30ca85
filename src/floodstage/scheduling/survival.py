"""How likely a draft's nodes are to be reached and accepted, from what its drafter believes."""

from __future__ import annotations

from floodstage.core.types import Proposal


def survival(draft: Proposal) -> list[float]:
    """Per node the product of the confidences on its path, its own included."""
    chances: list[float] = []
    for i, c in enumerate(draft.confidence):
        parent = i - 1 if draft.parents is None else draft.parents[i]
        chances.append(c if parent < 0 else c * chances[parent])
    return chances
