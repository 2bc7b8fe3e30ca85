"""Figures along an axis: by draft position, by rows, by draft length, by lag.

Every function takes the cycles of arms as arrays and gives rows of a table. They describe what was
measured under each arm's own choices; none of them says what another choice would have given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from floodstage.bench.trace import ArmTrace, Cycles, Floats, Ints

BINS = 15
LAGS = 16
POOLED = "(all arms)"
SELECTED = "confounded by selection"
"""Throughput by draft length under a policy: the policy chose the length, so the cycles at one
length are not those at another."""


@dataclass(frozen=True, slots=True)
class Position:
    """Draft position k of one arm.

    `survival` is the share of the cycles that verified a k-th token and kept it; `hazard` the
    share that lost it among those that had kept all before it. `kaplan_meier` multiplies the
    hazards up and so allows for drafts that were cut short.
    """

    arm: str
    position: int
    cycles: int
    survival: float
    at_risk: int
    hazard: float | None
    kaplan_meier: float | None


@dataclass(frozen=True, slots=True)
class RowCost:
    """Seconds of cycles whose target pass had `rows` rows: medians, and p10 and p90."""

    arm: str
    rows: int
    cycles: int
    verify_judge_s: float
    verify_judge_p10_s: float
    verify_judge_p90_s: float
    draft_s: float


@dataclass(frozen=True, slots=True)
class Block:
    """The cycles of an arm that drafted `drafted` tokens. See SELECTED."""

    arm: str
    drafted: int
    cycles: int
    share: float
    tokens: int
    seconds: float
    tokens_per_s: float | None
    note: str = SELECTED


@dataclass(frozen=True, slots=True)
class Lag:
    """Autocorrelation of gained within answers, each prompt's mean taken off first.

    Taking it off pulls the figure down by about one over the cycles of a prompt. Greedy passes of
    a prompt are the same text twice: `pairs` then counts each of its pairs twice.
    """

    arm: str
    lag: int
    pairs: int
    autocorrelation: float | None


@dataclass(frozen=True, slots=True)
class Bin:
    """The nodes whose confidence lies in [low, high), the last bin closed."""

    arm: str
    low: float
    high: float
    nodes: int
    confidence: float | None  # their mean
    accepted: float | None  # share


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well the raw confidence of position k predicts that it is accepted once it is reached.

    Nodes at risk are positions 1 .. min(accepted + 1, reach) of every traced chain: what lies
    beyond the first rejection was never judged. `auc` is None where all had one outcome.
    """

    arm: str
    nodes: int
    confidence: float
    accepted: float
    ece: float
    brier: float
    auc: float | None
    bins: tuple[Bin, ...]


def positions(arm: ArmTrace) -> Iterator[Position]:
    """Survival and hazard of positions 1, 2, ... as deep as any draft of the arm went."""
    reach, accepted = arm.cycles.reach, arm.cycles.accepted
    deepest = int(reach.max(initial=0))
    cycles = _at_least(reach, deepest)
    kept = _at_least(accepted, deepest)
    at_risk = _at_least(np.minimum(accepted + 1, reach), deepest)
    alive: float | None = 1.0
    for k in range(deepest):
        hazard = 1 - _share(kept[k], at_risk[k]) if at_risk[k] else None
        alive = None if hazard is None or alive is None else alive * (1 - hazard)
        yield Position(
            arm=arm.name,
            position=k + 1,
            cycles=int(cycles[k]),
            survival=_share(kept[k], cycles[k]),
            at_risk=int(at_risk[k]),
            hazard=hazard,
            kaplan_meier=alive,
        )


def cost_curve(arms: Mapping[str, ArmTrace]) -> list[RowCost]:
    """The cost of a cycle by rows, per arm and of all cycles of the run pooled."""
    lines = [line for name, arm in arms.items() for line in _costs(name, [arm.cycles])]
    traced = [arm.cycles for arm in arms.values() if len(arm.cycles)]
    return lines + list(_costs(POOLED, traced) if traced else ())


def blocks(arm: ArmTrace) -> Iterator[Block]:
    """Realised throughput per drafted length."""
    c = arm.cycles
    for length, chosen in _groups(c.drafted):
        tokens, seconds = int(c.gained[chosen].sum()), float(c.cycle_s[chosen].sum())
        yield Block(
            arm=arm.name,
            drafted=length,
            cycles=len(chosen),
            share=len(chosen) / len(c),
            tokens=tokens,
            seconds=seconds,
            tokens_per_s=tokens / seconds if seconds else None,
        )


def autocorrelation(arm: ArmTrace, lags: Iterable[int] = range(1, LAGS + 1)) -> Iterator[Lag]:
    """By lag: the mean product of two demeaned gains over the mean square of all."""
    c = arm.cycles
    if not len(c):
        return
    prompts = np.array([a.prompt for a in arm.answers])[c.answer]
    _, prompt = np.unique(prompts, return_inverse=True)
    mean = np.bincount(prompt, c.gained) / np.bincount(prompt)
    off = c.gained - mean[prompt]
    square = float((off**2).mean())
    for lag in lags:
        paired = c.answer[lag:] == c.answer[:-lag]
        pairs = int(paired.sum())
        product = float((off[lag:] * off[:-lag])[paired].sum())
        known = pairs > 0 and square > 0
        yield Lag(arm.name, lag, pairs, product / pairs / square if known else None)


def reliability(arm: ArmTrace) -> Reliability | None:
    """None for an arm that traced no confidence, or that verified a tree."""
    confidence, accepted = nodes_at_risk(arm.cycles)
    if not len(confidence) or (arm.cycles.reach != arm.cycles.verified).any():
        return None
    edges = np.linspace(0, 1, BINS + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, BINS - 1)
    nodes = np.bincount(which, minlength=BINS)
    summed = np.bincount(which, confidence, BINS)
    kept = np.bincount(which, accepted, BINS)
    return Reliability(
        arm=arm.name,
        nodes=len(confidence),
        confidence=float(confidence.mean()),
        accepted=float(accepted.mean()),
        ece=float(np.abs(summed - kept).sum() / len(confidence)),
        brier=float(((confidence - accepted) ** 2).mean()),
        auc=_auc(confidence, accepted),
        bins=tuple(
            Bin(
                arm=arm.name,
                low=float(edges[b]),
                high=float(edges[b + 1]),
                nodes=int(nodes[b]),
                confidence=float(summed[b] / nodes[b]) if nodes[b] else None,
                accepted=float(kept[b] / nodes[b]) if nodes[b] else None,
            )
            for b in range(BINS)
        ),
    )


def nodes_at_risk(c: Cycles) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The confidence of every node that was judged, and whether it was accepted."""
    cycle = np.repeat(np.arange(len(c)), c.traced)
    start = np.cumsum(c.traced) - c.traced
    position = np.arange(len(c.confidence)) - start[cycle] + 1
    judged = position <= np.minimum(c.accepted + 1, c.reach)[cycle]
    return c.confidence[judged], (position <= c.accepted[cycle])[judged]


def _at_least(values: Ints, deepest: int) -> Ints:
    """[deepest] for k = 1, 2, ...: how many values are k or more."""
    counts = np.bincount(values, minlength=deepest + 1)
    return counts[::-1].cumsum()[::-1][1:]


def _share(part: np.int64, whole: np.int64) -> float:
    return float(part / whole)


def _groups(keys: Ints) -> Iterator[tuple[int, Ints]]:
    """Every distinct key in order, and where it stands."""
    order = np.argsort(keys, kind="stable")
    values, starts = np.unique(keys[order], return_index=True)
    ends = np.append(starts, len(keys))[1:]
    for value, start, end in zip(values, starts, ends, strict=True):
        yield int(value), order[start:end]


def _costs(name: str, traced: list[Cycles]) -> Iterator[RowCost]:
    rows = np.concatenate([c.rows for c in traced])
    verify = np.concatenate([c.verify_s + c.judge_s for c in traced])
    draft = np.concatenate([c.draft_s for c in traced])
    if not len(rows):
        return
    for count, chosen in _groups(rows):
        low, middle, high = np.percentile(verify[chosen], (10, 50, 90))
        yield RowCost(
            arm=name,
            rows=count,
            cycles=len(chosen),
            verify_judge_s=float(middle),
            verify_judge_p10_s=float(low),
            verify_judge_p90_s=float(high),
            draft_s=float(np.median(draft[chosen])),
        )


def _auc(score: Floats, outcome: npt.NDArray[np.bool_]) -> float | None:
    """The chance that an accepted node had more confidence than a rejected one; ties count half."""
    wins, losses = int(outcome.sum()), int((~outcome).sum())
    if not wins or not losses:
        return None
    _, which, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2  # the mean rank of equal scores, from 1
    return float((rank[which[outcome]].sum() - wins * (wins + 1) / 2) / (wins * losses))
