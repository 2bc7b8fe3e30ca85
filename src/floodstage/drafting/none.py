"""No drafting: plain autoregression, through the same loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from floodstage.core.types import Commit, TokenId
from floodstage.drafting.each import EachSession


@dataclass(frozen=True, slots=True)
class NoDrafter:
    device: torch.device | str = "cpu"
    name: str = "none"
    taps: tuple[int, ...] = ()
    draft_len: int = 0

    def begin(self, slots: int, capacity: int) -> EachSession:
        return EachSession(lambda request: Silence(), self.device)


class Silence:
    def propose(self, pending: TokenId, budget: int) -> Sequence[TokenId]:
        return ()

    def observe(self, commit: Commit) -> None:
        pass
