"""Block sizes scored by exponential averages of gain and time, and the same led by lengths (ADL).

The history-based policies of the published experiments on block-diffusion drafting. They choose
before the draft and see only what earlier cycles gained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from floodstage.core.errors import ConfigError
from floodstage.core.types import Proposal, StepRecord
from floodstage.scheduling.rolling import candidate_sizes


@dataclass(slots=True)
class Average:
    """An exponential average that starts at its first value."""

    value: float | None = None

    def add(self, x: float, alpha: float) -> None:
        self.value = x if self.value is None else (1 - alpha) * self.value + alpha * x


class EwmaScheduler:
    """Score = average gain / average seconds per block size; the best takes over when it beats the
    current one by `switch_margin` in `required_streak` cycles in a row.

    The first `warmup_cycles` try the sizes in turn and every `probe_interval`-th cycle tries
    another one than the current. `low_accept_streak` cycles in a row with gain / size below
    `low_accept_threshold` step down at once. After a change it rests for `cooldown_cycles`.
    """

    name = "ewma"
    needs_confidence = False

    def __init__(
        self,
        draft_len: int,
        *,
        block_sizes: tuple[int, ...] = (8, 12, 16),
        alpha: float = 0.10,
        switch_margin: float = 0.05,
        required_streak: int = 2,
        cooldown_cycles: int = 2,
        probe_interval: int = 12,
        warmup_cycles: int = 2,
        low_accept_threshold: float = 0.35,
        low_accept_streak: int = 2,
    ) -> None:
        self.sizes = candidate_sizes(draft_len, block_sizes)
        if not 0.0 < alpha <= 1.0:
            raise ConfigError(f"alpha must be in (0, 1], got {alpha!r}.")
        self.alpha, self.margin, self.required = alpha, switch_margin, required_streak
        self.cooldown_cycles, self.probe_interval = cooldown_cycles, probe_interval
        self.warmup = warmup_cycles
        self.low_threshold, self.low_required = low_accept_threshold, low_accept_streak
        self.gain = {size: Average() for size in self.sizes}
        self.time = {size: Average() for size in self.sizes}
        self.current = self.sizes[-1]
        self.cycle = self.probes = self.cooldown = self.low = self.streak = 0
        self.favourite: int | None = None

    def choose(self) -> int:
        return self._size() - 1

    def _size(self) -> int:
        if self.cycle < self.warmup:
            return self.sizes[self.cycle % len(self.sizes)]
        since = self.cycle - self.warmup
        if self.probe_interval > 0 and since % self.probe_interval == 0:
            others = [size for size in self.sizes if size != self.current]
            return others[self.probes % len(others)]
        return self.current

    def cut(self, drafts: Sequence[Proposal]) -> list[int]:
        return [draft.size for draft in drafts]

    def observe(self, record: StepRecord) -> None:
        size = record.drafted + 1
        if size not in self.gain:  # cut short by the end of a text
            return
        probed = self.cycle >= self.warmup and size != self.current
        warm = self.cycle < self.warmup
        self.cycle += 1
        self.probes += probed
        self.gain[size].add(record.gained, self.alpha)
        self.time[size].add(record.cycle_s, self.alpha)
        self.learn(record)
        if self._step_down(record, size) or warm:
            return
        if self.cooldown:
            self.cooldown -= 1
            return
        self._consider()

    def learn(self, record: StepRecord) -> None:
        """A place for what other policies keep."""

    def allowed(self) -> Sequence[int]:
        """The sizes that may be switched to."""
        return self.sizes

    def _step_down(self, record: StepRecord, size: int) -> bool:
        low = size == self.current and record.gained / size < self.low_threshold
        self.low = self.low + 1 if low else 0
        if self.low < self.low_required:
            return False
        self.low = 0
        self._switch(self.sizes[max(0, self.sizes.index(self.current) - 1)])
        return True

    def _consider(self) -> None:
        scores = {size: s for size in self.allowed() if (s := self._score(size)) is not None}
        now = self._score(self.current)
        best = max(scores, key=scores.__getitem__, default=self.current)
        if now is None or best == self.current or scores[best] <= now * (1 + self.margin):
            self.streak, self.favourite = 0, None
            return
        self.streak = self.streak + 1 if best == self.favourite else 1
        self.favourite = best
        if self.streak >= self.required:
            self._switch(best)

    def _score(self, size: int) -> float | None:
        gain, seconds = self.gain[size].value, self.time[size].value
        return None if gain is None or not seconds else gain / seconds

    def _switch(self, size: int) -> None:
        self.current, self.cooldown = size, self.cooldown_cycles
        self.streak, self.favourite = 0, None


class AdlScheduler(EwmaScheduler):
    """`ewma` whose choice stays near a target length: the average drafted length, `delta` longer
    while everything that is drafted gets accepted. `neighborhood` bounds the distance to it."""

    name = "adl"

    def __init__(
        self,
        draft_len: int,
        *,
        block_sizes: tuple[int, ...] = (8, 12, 16),
        rho: float = 0.3,
        delta: float = 2.0,
        neighborhood: int = 4,
        alpha: float = 0.10,
        switch_margin: float = 0.05,
        required_streak: int = 2,
        cooldown_cycles: int = 2,
        probe_interval: int = 12,
        warmup_cycles: int = 2,
        low_accept_threshold: float = 0.35,
        low_accept_streak: int = 2,
    ) -> None:
        super().__init__(
            draft_len,
            block_sizes=block_sizes,
            alpha=alpha,
            switch_margin=switch_margin,
            required_streak=required_streak,
            cooldown_cycles=cooldown_cycles,
            probe_interval=probe_interval,
            warmup_cycles=warmup_cycles,
            low_accept_threshold=low_accept_threshold,
            low_accept_streak=low_accept_streak,
        )
        self.rho, self.delta, self.neighborhood = rho, delta, neighborhood
        self.drafted, self.accepted = Average(), Average()

    def learn(self, record: StepRecord) -> None:
        self.drafted.add(record.drafted + 1, self.rho)
        self.accepted.add(record.gained, self.rho)

    def allowed(self) -> Sequence[int]:
        drafted, accepted = self.drafted.value, self.accepted.value
        if drafted is None or accepted is None:
            return self.sizes
        wanted = math.ceil(drafted + (self.delta if accepted >= drafted else 0.0))
        wanted = min(max(wanted, self.sizes[0]), self.sizes[-1])
        center = min(self.sizes, key=lambda size: (abs(size - wanted), -size))
        return [size for size in self.sizes if abs(size - center) <= self.neighborhood]
