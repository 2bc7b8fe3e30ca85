"""Two runs of the same prompts beside each other: two commits, two machines, two settings.

Arms of equal name are paired, and within them prompts. The runs were not interleaved: a machine
that was busier during one of them shows up as a difference of the code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from floodstage.bench.analysis import (
    by_prompt,
    gained_by_prompt,
    interval,
    paired_speedup,
    resampled,
    tokens_per_s,
)
from floodstage.bench.tables import Table, flat
from floodstage.bench.tables import markdown as table_markdown
from floodstage.bench.trace import Answer, ArmTrace, RunTrace, describe
from floodstage.core.errors import ConfigError, RunError, unknown
from floodstage.core.metrics import Interval


@dataclass(frozen=True, slots=True)
class Pair:
    """Arm `arm_b` of the second run against `arm_a` of the first, on the prompts of both.

    `ratio` is tokens/s of B over A, `tau_difference` tau of B less that of A, both with a 95 %
    interval from resampling prompts. `identical` counts prompts with one and the same ids in
    every pass of both. tau is None where an arm recorded no cycles.
    """

    arm_a: str
    arm_b: str
    prompts: int
    tokens_per_s_a: float
    tokens_per_s_b: float
    ratio: Interval
    tau_a: float | None
    tau_b: float | None
    tau_difference: Interval | None
    identical: int

    @property
    def name(self) -> str:
        return self.arm_a if self.arm_a == self.arm_b else f"{self.arm_a} → {self.arm_b}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """Two runs compared. `settings` holds what differs in their env.json, by dotted name."""

    run_a: str
    run_b: str
    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    settings: Mapping[str, tuple[Any, Any]]
    notes: tuple[str, ...]  # what could not be used


def compare_runs(a: RunTrace, b: RunTrace, arms: str | None = None) -> Versus:
    """Compare run `b` with run `a`. `arms` is one name in both, or "NAME_A,NAME_B"."""
    _same_prompts(a, b)
    chosen = _chosen(a, b, arms)
    one, two = flat(a.env), flat(b.env)
    return Versus(
        run_a=a.name,
        run_b=b.name,
        pairs=tuple(_pair(a.arms[x], b.arms[y]) for x, y in chosen),
        only_a=tuple(x for x in a.arms if x not in b.arms) if arms is None else (),
        only_b=tuple(x for x in b.arms if x not in a.arms) if arms is None else (),
        settings={
            name: (one.get(name), two.get(name))
            for name in dict.fromkeys((*one, *two))
            if one.get(name) != two.get(name)
        },
        notes=tuple(
            f"{which} ({trace.name}): {said}"
            for which, trace in (("A", a), ("B", b))
            for said in (*describe(trace), *_failures(trace))
        ),
    )


def _failures(trace: RunTrace) -> list[str]:
    return [f"arm {arm} failed: {said}" for arm, every in trace.errors.items() for said in every]


def _same_prompts(a: RunTrace, b: RunTrace) -> None:
    hashes = []
    for trace in (a, b):
        known = trace.env.get("prompt_hash")
        if not known:
            why = trace.env_fault or "env.json has no prompt_hash"
            raise RunError(
                f"The run {trace.name!r} does not say which prompts it used ({why}), so it cannot "
                "be compared. Measure it again with `floodstage bench`."
            )
        hashes.append(known)
    if hashes[0] != hashes[1]:
        raise RunError(
            f"The runs used different prompts: prompt_hash {hashes[0]!r} in {a.name!r}, "
            f"{hashes[1]!r} in {b.name!r}, expected the same. Measure both with the same "
            "--workload, --prompts and --seed."
        )


def _chosen(a: RunTrace, b: RunTrace, arms: str | None) -> list[tuple[str, str]]:
    if arms is None:
        shared = [(name, name) for name in a.arms if name in b.arms]
        if not shared:
            raise RunError(
                f"The runs share no arm: {list(a.arms)!r} in {a.name!r}, {list(b.arms)!r} in "
                f"{b.name!r}. Pair two with --arm NAME_A,NAME_B."
            )
        return shared
    names = [name.strip() for name in arms.split(",")]
    if len(names) > 2 or not all(names):
        raise ConfigError(f"--arm takes NAME or NAME_A,NAME_B, got {arms!r}.")
    for name, trace in zip((names[0], names[-1]), (a, b), strict=True):
        if name not in trace.arms:
            raise unknown(f"arm of the run {trace.name!r}:", name, trace.arms)
    return [(names[0], names[-1])]


def _pair(a: ArmTrace, b: ArmTrace) -> Pair:
    ours, theirs = by_prompt(a), by_prompt(b)
    shared = sorted(set(ours) & set(theirs))
    ratio = paired_speedup(b, a)
    if ratio is None:
        raise RunError(
            f"The arms {a.name!r} and {b.name!r} have no prompt in common: measure both runs to "
            "the end, or choose other arms with --arm."
        )
    tau_a, tau_b, difference = _tau_difference(a, b, shared)
    return Pair(
        arm_a=a.name,
        arm_b=b.name,
        prompts=len(shared),
        tokens_per_s_a=tokens_per_s(x for i in shared for x in ours[i]),
        tokens_per_s_b=tokens_per_s(x for i in shared for x in theirs[i]),
        ratio=ratio,
        tau_a=tau_a,
        tau_b=tau_b,
        tau_difference=difference,
        identical=sum(_same([*ours[i], *theirs[i]]) for i in shared),
    )


def _same(answers: Sequence[Answer]) -> bool:
    """Whether all passes of both arms have the same ids, turn by turn."""
    return len({(a.turn, a.ids) for a in answers}) == len({a.turn for a in answers})


def _tau_difference(
    a: ArmTrace, b: ArmTrace, prompts: list[int]
) -> tuple[float | None, float | None, Interval | None]:
    """tau of both on the same prompts, and what B has more; the prompts are drawn in pairs."""
    gained_a, cycles_a = gained_by_prompt(a, prompts)
    gained_b, cycles_b = gained_by_prompt(b, prompts)
    tau_a = float(gained_a.sum() / cycles_a.sum()) if cycles_a.any() else None
    tau_b = float(gained_b.sum() / cycles_b.sum()) if cycles_b.any() else None
    both = (cycles_a > 0) & (cycles_b > 0)
    if tau_a is None or tau_b is None or not both.any():
        return tau_a, tau_b, None
    gained_a, cycles_a, gained_b, cycles_b = (
        x[both] for x in (gained_a, cycles_a, gained_b, cycles_b)
    )
    draws = resampled(int(both.sum()))
    drawn = (draws @ gained_b) / (draws @ cycles_b) - (draws @ gained_a) / (draws @ cycles_a)
    value = gained_b.sum() / cycles_b.sum() - gained_a.sum() / cycles_a.sum()
    return tau_a, tau_b, interval(float(value), drawn)


HEAD = ("arm", "prompts", "tokens/s A", "tokens/s B", "B / A [95 %]", "tau A", "tau B",
        "tau B − A [95 %]", "same ids")  # fmt: skip


def markdown(versus: Versus) -> str:
    """The comparison for people."""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    rows = tuple(
        (
            p.name,
            str(p.prompts),
            f"{p.tokens_per_s_a:,.1f}",
            f"{p.tokens_per_s_b:,.1f}",
            str(p.ratio),
            number(p.tau_a),
            number(p.tau_b),
            "" if p.tau_difference is None else str(p.tau_difference),
            f"{p.identical}/{p.prompts}",
        )
        for p in versus.pairs
    )
    lines = [f"A: {versus.run_a} · B: {versus.run_b}\n", table_markdown(Table("", HEAD, rows))]
    if versus.settings:
        changed = tuple((n, str(x), str(y)) for n, (x, y) in versus.settings.items())
        differ = Table("", ("setting", "A", "B"), changed)
        lines += ["Settings that differ:\n", table_markdown(differ)]
    else:
        lines.append("The settings and the machine are the same by env.json.\n")
    for which, names in (("A", versus.only_a), ("B", versus.only_b)):
        lines += [f"Only in {which}: {', '.join(names)}.\n"] if names else []
    lines.append(
        "B / A is of tokens/s, above 1 where B is faster; intervals are from resampling prompts. "
        "tau: mean tokens per target pass, the bonus token included. The runs were not "
        "interleaved: how busy the machine was counts too.\n"
    )
    return "\n".join(lines)


def document(versus: Versus) -> dict[str, Any]:
    """The comparison as JSON."""
    return asdict(versus)
