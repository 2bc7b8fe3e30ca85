"""Figures of merit as pure functions of records.

tau is the mean number of tokens gained per target pass, the bonus token included, the prefill not
counted. Position k of a draft is its k-th token after the pending one, k = 1, 2, ...
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from floodstage.core.types import StepRecord


def tau(records: Iterable[StepRecord]) -> float:
    """Mean gained per cycle; 1.0 where there was none."""
    gained = [r.gained for r in records if not r.prefill]
    return sum(gained) / len(gained) if gained else 1.0


def acceptance_by_position(records: Iterable[StepRecord]) -> list[float]:
    """For position k = 1.. the share of cycles that verified a k-th token and kept it.

    This is survival, not a conditional rate: it falls with k. A tree counts by its longest path.
    """
    reached: list[int] = []
    kept: list[int] = []
    for r in records:
        if r.prefill:
            continue
        grow = r.reach - len(reached)
        reached.extend([0] * grow)
        kept.extend([0] * grow)
        for k in range(r.reach):
            reached[k] += 1
            kept[k] += k < r.accepted
    return [k / n for k, n in zip(kept, reached, strict=True)]


def repeated_ngrams(ids: Sequence[int], n: int = 4) -> float:
    """Share of n-grams that occurred before in the same text: how much it loops."""
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one prompt gave and took under one arm."""

    tokens: int
    seconds: float


def speedup(
    arm: Sequence[Cost], baseline: Sequence[Cost], *, draws: int = 2000, seed: int = 0
) -> Interval:
    """Tokens per second of `arm` over those of `baseline`, both as total tokens / total seconds.

    Entry i of both is the same prompt; the interval is from resampling prompts. Where both wrote
    the same tokens this is the ratio of their seconds.
    """
    if len(arm) != len(baseline) or not arm:
        raise ValueError(f"Expected as many prompts, got {len(arm)} and {len(baseline)}.")

    def ratio(chosen: Sequence[int]) -> float:
        ours = sum(arm[i].tokens for i in chosen) / sum(arm[i].seconds for i in chosen)
        theirs = sum(baseline[i].tokens for i in chosen) / sum(baseline[i].seconds for i in chosen)
        return ours / theirs

    rng, n = random.Random(seed), len(arm)
    drawn = sorted(ratio(rng.choices(range(n), k=n)) for _ in range(draws))
    return Interval(ratio(range(n)), drawn[int(0.025 * draws)], drawn[int(0.975 * draws)])


def auroc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """The chance that a wrong candidate has a higher energy than a right one; ties count half."""
    ordered = sorted([(e, 0) for e in right] + [(e, 1) for e in wrong])
    below = wins = 0.0
    at = 0
    while at < len(ordered):
        end = at
        while end < len(ordered) and ordered[end][0] == ordered[at][0]:
            end += 1
        tied = sum(label for _, label in ordered[at:end])
        wins += tied * (below + (end - at - tied) / 2)
        below += end - at - tied
        at = end
    return wins / (len(right) * len(wrong))


def recall_at(right: Sequence[float], wrong: Sequence[float], false_positives: float) -> float:
    """The share of wrong candidates whose energy is above all but the share `false_positives` of
    the right ones."""
    bar = sorted(right)[max(0, math.ceil(len(right) * (1 - false_positives)) - 1)]
    return sum(e > bar for e in wrong) / len(wrong)
