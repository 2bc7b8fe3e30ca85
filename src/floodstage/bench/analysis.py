"""The figures of a run: one line per arm, its regret, and what runs along an axis.

A pure function of what `trace` read. tau is the mean number of tokens gained per target pass, the
bonus token included and the prefill left out. Knows no files and draws nothing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from floodstage.bench.curves import (
    Block,
    Lag,
    Position,
    Reliability,
    RowCost,
    autocorrelation,
    blocks,
    cost_curve,
    positions,
    reliability,
)
from floodstage.bench.trace import Answer, ArmTrace, Cycles, Floats, RunTrace
from floodstage.core.errors import unknown
from floodstage.core.metrics import Interval

DRAWS = 2000
"""Resamples of every bootstrap, as many as in `core.metrics.speedup`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures:
    """One line of the table; None where the arm's records cannot tell.

    `legacy_*` are the figures of published tables, kept apart from ours: see `legacy_tpot_s`.
    `derived_speedup` is the baseline's TPOT over the arm's; `speedup` is of whole answers.
    `identical` counts the prompts of `compared` with the baseline's very ids.
    """

    arm: str
    lossless: bool
    prompts: int
    answers: int
    tokens: int
    tokens_per_s: float
    ttft_ms: float | None
    tpot_ms: float | None
    legacy_tpot_ms: float | None
    speedup: Interval | None
    derived_speedup: float | None
    legacy_speedup: float | None
    cycles: int
    tau: Interval | None
    tau_sample_mean: float | None
    gained_p10: float | None
    gained_median: float | None
    gained_p90: float | None
    mean_output_tokens: float
    capped: float  # share of answers that ended at the token limit
    identical: int
    compared: int
    right: float | None
    repeated_4grams: float
    wasted_rows: float | None  # share of verified rows that were not accepted
    accepted_per_cycle: float | None
    retention: float | None  # accepted per cycle, over that of the longest fixed arm of its drafter
    seeded_per_cycle: float | None
    seeded_cycles: float | None  # share of cycles
    switch_rate: float | None
    autocorrelation_1: float | None


@dataclass(frozen=True, slots=True)
class Regret:
    """Tokens per second over those of a reference arm; `regret` is what is lacking to 1.

    The best fixed arm was chosen on the same records it is compared on, which favours it.
    """

    arm: str
    reference: str
    kind: str  # "best fixed" or "oracle"
    ratio: Interval
    regret: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """All that a report says about a run."""

    baseline: str | None  # None: no arm gave an answer
    arms: tuple[ArmFigures, ...]
    regret: tuple[Regret, ...]
    positions: tuple[Position, ...]
    cost: tuple[RowCost, ...]
    blocks: tuple[Block, ...]
    autocorrelation: tuple[Lag, ...]
    reliability: tuple[Reliability, ...]
    errors: Mapping[str, tuple[str, ...]]
    skipped_lines: int


def analyze(trace: RunTrace, baseline: str | None = None) -> Analysis:
    """All figures; speedups are over `baseline`, the first arm by default."""
    if baseline is not None and baseline not in trace.arms:
        raise unknown("arm", baseline, trace.arms)
    arms = trace.arms
    first = next(iter(arms), None) if baseline is None else baseline
    figures = [_figures(arm, arms[first]) for arm in arms.values()] if first is not None else []
    figures = _with_retention(arms, figures)
    return Analysis(
        baseline=first,
        arms=tuple(figures),
        regret=tuple(_regret(trace.arms, figures)),
        positions=tuple(p for arm in arms.values() for p in positions(arm)),
        cost=tuple(cost_curve(arms)),
        blocks=tuple(b for arm in arms.values() for b in blocks(arm)),
        autocorrelation=tuple(x for arm in arms.values() for x in autocorrelation(arm)),
        reliability=tuple(r for arm in arms.values() if (r := reliability(arm)) is not None),
        errors=trace.errors,
        skipped_lines=len(trace.faults),
    )


def by_prompt(arm: ArmTrace) -> dict[int, list[Answer]]:
    """The arm's answers to every prompt, in the order of the records."""
    found: dict[int, list[Answer]] = {}
    for answer in arm.answers:
        found.setdefault(answer.prompt, []).append(answer)
    return found


def paired_speedup(arm: ArmTrace, other: ArmTrace) -> Interval | None:
    """Tokens per second of `arm` over those of `other`, on the prompts that both answered: what
    `core.metrics.speedup` gives, in a fraction of its time."""
    ours, theirs = by_prompt(arm), by_prompt(other)
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        return None
    tokens, seconds = _costs([ours[i] for i in shared])
    base_tokens, base_seconds = _costs([theirs[i] for i in shared])
    draws = resampled(len(shared))
    drawn = (draws @ tokens) / (draws @ seconds) / ((draws @ base_tokens) / (draws @ base_seconds))
    speed, base_speed = tokens.sum() / seconds.sum(), base_tokens.sum() / base_seconds.sum()
    return interval(float(speed / base_speed), drawn)


def identical(arm: ArmTrace, other: ArmTrace) -> tuple[int, int]:
    """How many prompts have the ids of `other`'s first pass in every pass and turn, of how many
    that both answered."""
    ours, wanted = by_prompt(arm), first_ids(other)
    shared = set(ours) & {prompt for prompt, _ in wanted}
    same = sum(all(a.ids == wanted.get((i, a.turn)) for a in ours[i]) for i in shared)
    return same, len(shared)


def first_ids(arm: ArmTrace) -> dict[tuple[int, int], tuple[int, ...]]:
    """(prompt, turn) -> the ids of the first pass that is there."""
    return {(a.prompt, a.turn): a.ids for a in reversed(arm.answers)}


def tokens_per_s(answers: Iterable[Answer]) -> float:
    """Total tokens / total seconds."""
    tokens, seconds = _costs([list(answers)])
    return float(tokens[0] / seconds[0])


def tpot_s(answers: Iterable[Answer]) -> float | None:
    """Seconds per token after the first, of all answers pooled: sum(wall - TTFT) / sum(n - 1)."""
    timed = [(a.decode_s, len(a.ids) - 1) for a in answers if a.decode_s is not None]
    tokens = sum(n for _, n in timed)
    return sum(s for s, _ in timed) / tokens if tokens else None


def legacy_tpot_s(answers: Iterable[Answer]) -> float | None:
    """TPOT as the published DFlash tables have it: the clock starts after the first draft, all
    tokens are counted, the first too, and the mean is over answers. Of a single answer it is the
    lower of the two, the more so the shorter the answer."""
    known = [
        (a.decode_s - a.first_draft_s) / len(a.ids)
        for a in answers
        if a.decode_s is not None and a.first_draft_s is not None
    ]
    return _mean(known)


def gained_by_prompt(arm: ArmTrace, prompts: Sequence[int]) -> tuple[Floats, Floats]:
    """[n], [n]: tokens gained and cycles, for each prompt of `prompts`."""
    place = {prompt: i for i, prompt in enumerate(prompts)}
    c = arm.cycles
    where = np.array([place.get(a.prompt, len(place)) for a in arm.answers], np.int64)[c.answer]
    gained = np.bincount(where, c.gained, len(place) + 1).astype(np.float64)
    cycles = np.bincount(where, minlength=len(place) + 1).astype(np.float64)
    return gained[: len(place)], cycles[: len(place)]


@lru_cache(maxsize=4)
def resampled(n: int) -> Floats:
    """[DRAWS, n]: how often each of n prompts is drawn, n at a time, with replacement.

    The very draws of `core.metrics.speedup`, so that its intervals and these are the same; made
    once for all arms with as many prompts, where that function makes them for each.
    """
    rng = random.Random(0)
    counts = np.zeros((DRAWS, n))
    for row in counts:
        row += np.bincount(rng.choices(range(n), k=n), minlength=n)
    return counts


def interval(value: float, drawn: Floats) -> Interval:
    """A figure and the middle 95 % of its resamples."""
    drawn = np.sort(drawn)
    return Interval(
        value, float(drawn[int(0.025 * len(drawn))]), float(drawn[int(0.975 * len(drawn))])
    )


def draft_len(arm: str) -> tuple[str, int] | None:
    """(drafter, L) of a name such as `auto:8`, the fixed length L; None for any other name."""
    found = re.fullmatch(r"(.+):(\d+)", arm)
    return (found[1], int(found[2])) if found and "+" not in arm else None


def _figures(arm: ArmTrace, base: ArmTrace) -> ArmFigures:
    answers, c = arm.answers, arm.cycles
    ttft = [a.ttft_s for a in answers if a.ttft_s is not None and a.decode_s is not None]
    tpot, legacy = tpot_s(answers), legacy_tpot_s(answers)
    same, compared = identical(arm, base)
    p10, median, p90 = _percentiles(c)
    verified, n = int(c.verified.sum()), len(c)
    return ArmFigures(
        arm=arm.name,
        lossless=arm.lossless,
        prompts=len(by_prompt(arm)),
        answers=len(answers),
        tokens=sum(len(a.ids) for a in answers),
        tokens_per_s=tokens_per_s(answers),
        ttft_ms=_ms(_mean(ttft)),
        tpot_ms=_ms(tpot),
        legacy_tpot_ms=_ms(legacy),
        speedup=paired_speedup(arm, base),
        derived_speedup=_ratio(tpot_s(base.answers), tpot),
        legacy_speedup=_ratio(legacy_tpot_s(base.answers), legacy),
        cycles=n,
        tau=_tau(arm),
        tau_sample_mean=_tau_sample_mean(c),
        gained_p10=p10,
        gained_median=median,
        gained_p90=p90,
        mean_output_tokens=sum(len(a.ids) for a in answers) / len(answers),
        capped=sum(a.finish == "length" for a in answers) / len(answers),
        identical=same,
        compared=compared,
        right=_mean([float(a.right) for a in answers if a.right is not None]),
        repeated_4grams=sum(a.repeated_4grams for a in answers) / len(answers),
        wasted_rows=1 - float(c.accepted.sum()) / verified if verified else None,
        accepted_per_cycle=float(c.accepted.mean()) if n else None,
        retention=None,
        seeded_per_cycle=float(c.seeded.mean()) if n else None,
        seeded_cycles=float((c.seeded > 0).mean()) if n else None,
        switch_rate=switch_rate(c),
        autocorrelation_1=next((x.autocorrelation for x in autocorrelation(arm, (1,))), None),
    )


def switch_rate(c: Cycles) -> float | None:
    """Share of consecutive cycles of an answer that drafted another number of tokens. The last
    cycle of an answer is left out, and every one that drafted all that the token limit left room
    for: its length was no choice."""
    inner = ~c.cut  # so that no pair reaches into the next answer either
    paired = inner[1:] & inner[:-1]
    changed = (c.drafted[1:] != c.drafted[:-1]) & paired
    return float(changed.sum() / paired.sum()) if paired.any() else None


def _tau(arm: ArmTrace) -> Interval | None:
    """Mean over all cycles, the interval from resampling prompts."""
    gained, cycles = gained_by_prompt(arm, sorted(by_prompt(arm)))
    gained, cycles = gained[cycles > 0], cycles[cycles > 0]
    if not len(cycles):
        return None
    drawn = resampled(len(cycles))
    return interval(float(gained.sum() / cycles.sum()), (drawn @ gained) / (drawn @ cycles))


def _tau_sample_mean(c: Cycles) -> float | None:
    """Mean over answers of each answer's own mean; answers without a cycle are left out."""
    if not len(c):
        return None
    cycles = np.bincount(c.answer)
    gained = np.bincount(c.answer, c.gained)
    return float((gained[cycles > 0] / cycles[cycles > 0]).mean())


def _percentiles(c: Cycles) -> tuple[float | None, float | None, float | None]:
    if not len(c):
        return None, None, None
    p10, median, p90 = np.percentile(c.gained, (10, 50, 90))
    return float(p10), float(median), float(p90)


def _with_retention(
    arms: Mapping[str, ArmTrace], figures: Sequence[ArmFigures]
) -> list[ArmFigures]:
    longest: dict[str, tuple[int, float]] = {}  # by drafter: its longest fixed arm
    for f in figures:
        if "+" not in f.arm and f.accepted_per_cycle:
            own = (f.arm, int(arms[f.arm].cycles.drafted.max()))  # `auto`: the drafter's own length
            drafter, length = draft_len(f.arm) or own
            longest[drafter] = max((length, f.accepted_per_cycle), longest.get(drafter, (0, 0.0)))

    def retention(f: ArmFigures) -> float | None:
        whole = longest.get(re.sub(r"(:\d+)?(\+.*)?$", "", f.arm))
        return _ratio(f.accepted_per_cycle, whole[1]) if whole else None

    return [replace(f, retention=retention(f)) for f in figures]


def _regret(arms: Mapping[str, ArmTrace], figures: Sequence[ArmFigures]) -> list[Regret]:
    ours = [f for f in figures if f.cycles]  # a peer's length is no setting of ours
    groups = {
        "best fixed": [f for f in ours if "+" not in f.arm],
        "oracle": [f for f in ours if "+oracle" in f.arm],
    }
    found: list[Regret] = []
    for kind, known in groups.items():
        if not known:
            continue
        best = max(known, key=lambda f: f.tokens_per_s).arm
        for f in ours:
            ratio = paired_speedup(arms[f.arm], arms[best])
            if ratio is not None:
                found.append(Regret(f.arm, best, kind, ratio, 1 - ratio.value))
    return found


def _costs(prompts: Sequence[Sequence[Answer]]) -> tuple[Floats, Floats]:
    """Tokens and seconds of all passes, by prompt."""
    tokens = np.array([sum(len(a.ids) for a in answers) for answers in prompts], np.float64)
    return tokens, np.array([sum(a.wall_s for a in answers) for answers in prompts], np.float64)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None
