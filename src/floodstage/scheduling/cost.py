"""Verify as much of a draft as pays: expected tokens against measured seconds.

Renewal reward: in the long run the rate is best when every cycle maximises
E[tokens] - rate * seconds, the rate being the one that is reached. The expectation comes from
calibrated survival (`survival`), the seconds from measured passes (`costs`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from floodstage.core.errors import ConfigError
from floodstage.core.types import Proposal, StepRecord
from floodstage.scheduling.costs import CostCurve
from floodstage.scheduling.survival import Calibration, at_risk, survival

MEASUREMENTS = 3
"""Passes of each explored length before a draft is cut."""


class CostScheduler:
    """Draft `draft_len` tokens, then verify the prefix (of a tree: its first nodes) that pays.

    The first cycles (and those of a batch larger than any before) explore a few lengths, to measure
    what a pass costs; until then nothing is cut for profit. With several sequences the rows of one
    pass go to whichever draft promises most. `guard` compares with every fixed length on the same
    cycles and falls back to the best one while it would have done better. Where even that loses to
    plain decoding it stops drafting and tries again later. What it learns is kept across texts.
    """

    name = "cost"
    needs_confidence = True

    def __init__(self, draft_len: int, *, guard: bool = True, memory: float = 0.995) -> None:
        if draft_len < 1 or not 0.0 < memory < 1.0:
            raise ConfigError(
                f"draft_len must be >= 1 and memory in (0, 1), got {draft_len!r} and {memory!r}."
            )
        self.draft_len, self.memory = draft_len, memory
        self.calibration, self.costs = Calibration(), CostCurve()
        self.exploration: list[int] = []
        self.rates: dict[int, Rate] = {}  # by batch size: what a second is worth differs
        self.guard = Guard(draft_len) if guard else None
        self.rest = Rest()
        self.shown: deque[tuple[Proposal, list[float]]] = deque()

    def choose(self) -> int:
        return 0 if self.rest.resting else self.draft_len

    def cut(self, drafts: Sequence[Proposal]) -> list[int]:
        sizes = [draft.size for draft in drafts]
        chances = [self.calibration.chances(draft) for draft in drafts]
        self.shown = deque(zip(drafts, chances, strict=True))
        batch = len(drafts)
        whole = batch * (self.draft_len + 1)
        if not self.exploration and max(sizes) == self.draft_len and not self.costs.covers(whole):
            self.exploration += explore(self.draft_len) * MEASUREMENTS
        if self.exploration:
            length = self.exploration.pop() if max(sizes) else self.draft_len
            return [min(length, size) for size in sizes]
        if self.guard is not None and self.guard.length is not None:
            return [min(self.guard.length, size) for size in sizes]
        rate = self.rates.get(batch)
        if rate is None or not rate.known:
            return sizes
        return allocate(
            [survival(d, c) for d, c in zip(drafts, chances, strict=True)],
            self.costs,
            rate.value,
        )

    def observe(self, record: StepRecord) -> None:
        draft, chances = self.shown.popleft()
        self.calibration.observe(draft, at_risk(draft, record))
        if record.rows:
            self.costs.add(record.rows, record.verify_s + record.judge_s)
        if self.exploration:
            return
        rate = self.rates.setdefault(record.batch, Rate(self.memory))
        rate.add(record.gained, record.cycle_s / record.batch)
        self.rest.observe(record, rate, self.costs)
        if self.guard is not None and draft.parents is None and draft.size:
            self.guard.observe(record, chances, self.costs, rate.value)


@dataclass(slots=True)
class Rate:
    """Tokens per second with a fading memory."""

    memory: float
    tokens: float = 0.0
    seconds: float = 0.0

    def add(self, tokens: float, seconds: float) -> None:
        self.tokens = self.memory * self.tokens + tokens
        self.seconds = self.memory * self.seconds + seconds

    @property
    def known(self) -> bool:
        return self.seconds > 0.0

    @property
    def value(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def explore(draft_len: int) -> list[int]:
    """Lengths that span the cost curve; the full length last, so that it is tried first."""
    return sorted({0, draft_len // 4, draft_len // 2, 3 * draft_len // 4, draft_len})


def allocate(chances: Sequence[Sequence[float]], costs: CostCurve, rate: float) -> list[int]:
    """Nodes to verify per draft: the pass of highest expected tokens - rate * seconds.

    `chances` are survival probabilities per node. A draft is a list in which a node stands after
    its parent, so only its first so many nodes can be taken; that is why a node counts no more
    than the least before it. All totals are tried: a cost curve may be a staircase.
    """
    promised: list[tuple[float, int, int]] = []
    for i, row in enumerate(chances):
        least = 1.0
        for k, chance in enumerate(row):
            least = min(least, chance)
            promised.append((-least, k, i))
    promised.sort()
    batch = len(chances)
    best, best_rows, tokens = -rate * costs.at(batch), 0, 0.0
    for rows, (chance, _, _) in enumerate(promised, start=1):
        tokens -= chance
        worth = tokens - rate * costs.at(batch + rows)
        if worth > best:
            best, best_rows = worth, rows
    sizes = [0] * batch
    for _, _, i in promised[:best_rows]:
        sizes[i] += 1
    return sizes


class Guard:
    """Fixed lengths as shadows: what each would have gained in the very cycles that were run.

    Where the shadow would have verified more than was verified and nothing was refused, what it
    would have gained is expected from the calibrated chances.
    """

    memory, patience, certainty = 0.99, 128, 2.0
    every = 4  # cycles per look: shadows cost time themselves

    def __init__(self, draft_len: int) -> None:
        self.shadows = {n: Shadow() for n in range(1, draft_len + 1)}
        self.length: int | None = None  # the fixed length in force
        self.left = self.cycle = 0

    def observe(
        self, record: StepRecord, chances: Sequence[float], costs: CostCurve, rate: float
    ) -> None:
        if self.length is not None:
            self.left -= 1
            if self.left <= 0:
                self.length = None
                self.shadows = {n: Shadow() for n in self.shadows}
            return
        self.cycle += 1
        if self.cycle % self.every:
            return
        spent = costs.at(record.rows)
        for n, shadow in self.shadows.items():
            n = min(n, len(chances))
            more = (n - record.verified) * record.batch
            seconds = (costs.at(max(1, record.rows + more)) - spent) / record.batch
            gained = counterfactual(record, chances, n)
            shadow.add(gained - record.gained - rate * seconds, self.memory)
        best = max(self.shadows, key=lambda n: self.shadows[n].mean)
        if self.shadows[best].surely_positive(self.certainty):
            self.length, self.left = best, self.patience


def counterfactual(record: StepRecord, chances: Sequence[float], length: int) -> float:
    """Tokens that verifying `length` tokens would have gained in this cycle."""
    if record.gained <= record.accepted:  # the text ended inside the draft
        return float(min(record.gained, length + 1))
    if length <= record.verified or record.accepted < record.verified:
        return float(min(record.accepted, length) + 1)
    expected, reach = float(record.gained), 1.0
    for chance in chances[record.verified : length]:
        reach *= chance
        expected += reach
    return expected


@dataclass(slots=True)
class Shadow:
    """Mean and spread of an advantage with a fading memory."""

    weight: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def add(self, x: float, memory: float) -> None:
        self.weight = memory * self.weight + 1.0
        self.total = memory * self.total + x
        self.squares = memory * self.squares + x * x

    @property
    def mean(self) -> float:
        return self.total / self.weight if self.weight else 0.0

    def surely_positive(self, certainty: float) -> bool:
        """Whether the mean is above zero by `certainty` standard errors, on enough cycles."""
        if self.weight < 24.0:
            return False
        variance = max(0.0, self.squares / self.weight - self.mean**2)
        return self.mean > certainty * math.sqrt(variance / self.weight)


@dataclass(slots=True)
class Rest:
    """Stops drafting for a while where it is slower than not drafting; longer each time."""

    seen: int = 0
    left: int = 0
    times: int = 0

    patience, length, most = 48, 64, 5

    @property
    def resting(self) -> bool:
        return self.left > 0

    def observe(self, record: StepRecord, rate: Rate, costs: CostCurve) -> None:
        if self.left > 0:
            self.left -= 1
            if self.left == 0:
                rate.tokens = rate.seconds = 0.0  # drafting is judged afresh
            return
        self.seen += 1
        if self.seen < self.patience:
            return
        self.seen = 0
        if rate.value >= record.batch / costs.at(record.batch):
            self.times = 0
            return
        self.left = self.length * 2 ** min(self.times, self.most)
        self.times += 1
