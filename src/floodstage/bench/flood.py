"""The ladder from one-at-a-time to flood: the same plan rendered by every arm, in turns.

A rung is a way to turn roots into text; some rungs plan first, so that the whole is timed, too.
Characters count only where the hierarchy's own table confirms their root. Records are appended as
they come; a run that was killed goes on. Everything shown is a function of the records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from floodstage.bench.flood_plots import draw_ladder
from floodstage.bench.measure import environment, same_settings
from floodstage.bench.records import whole_lines, write_whole
from floodstage.bench.tables import Table, markdown
from floodstage.core.metrics import Cost, Interval, speedup
from floodstage.core.types import Request
from floodstage.decoding.draws import Drawing, Memory
from floodstage.decoding.exactness import STAGES, exactness
from floodstage.decoding.flood import FloodDecoder
from floodstage.decoding.loop import decode
from floodstage.decoding.sequential import render_sequentially
from floodstage.engine.build import EngineConfig, build
from floodstage.engine.engine import Engine
from floodstage.engine.flood import Flood, FloodConfig, build_flood
from floodstage.engine.options import Options
from floodstage.text.hierarchy import SPECIAL
from floodstage.training.documents import corpus

BASE = "sequential"
CHARS = "character by character"
SPANS = "spans"


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderConfig:
    """What is compared. `k` is that of the rungs with many draws; `chars` names a character-level
    model, or "none"."""

    roots: tuple[int, ...] = (50, 200, 1000)
    k: int = 16
    repeats: int = 5
    manager: str = "flood-manager"
    renderer: str = "auto"
    chars: str = "flood-chars"
    corpus: str = "mathematics"
    temperature: float = 0.8
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a rung made of a plan."""

    pieces: list[list[int]]
    draws: int


Render = Callable[[Sequence[int]], Rendered]


@dataclass(frozen=True, slots=True)
class Rung:
    """`plans`: "" if it is given the roots, else "plain" or "drafted"."""

    name: str
    render: Render
    plans: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """What is loaded: the flood with its drafter, and its manager without."""

    flood: Flood
    plain: Engine
    chars: Engine | None

    def planner(self, kind: str) -> Engine:
        return self.flood.manager if kind == "drafted" else self.plain


def ladder(config: LadderConfig, out: Path) -> list[Table]:
    """Measure what `out` lacks, then its tables. Raises RunError if `out` holds another run."""
    out.mkdir(parents=True, exist_ok=True)
    same_settings(out, {"settings": asdict(config)}, environment(config.device))
    bench = load_bench(config)
    path = out / "records.jsonl"
    rows = [json.loads(line) for line in whole_lines(path)] if path.is_file() else []
    have = {(r["roots"], r["repeat"], r["rung"]) for r in rows}
    rungs = make_rungs(bench, config)
    todo = [(n, i) for n in config.roots for i in range(config.repeats)]
    with path.open("a", encoding="utf-8") as file:
        for size, repeat in track(todo, "measuring", console=Console(stderr=True)):
            done = {name for n, i, name in have if (n, i) == (size, repeat)}
            for row in _round(bench, config, rungs, size, repeat, done):
                file.write(json.dumps(row) + "\n")
                file.flush()
                rows.append(row)
    tables = [_exactness(bench, config), *summarise(rows, config)]
    write_whole(out / "summary.md", "\n".join(f"**{t.title}**\n\n{markdown(t)}" for t in tables))
    write_whole(out / "summary.json", json.dumps([asdict(t) for t in tables], indent=1) + "\n")
    for name, picture in draw_ladder(rows):
        write_whole(out / name, picture)
    return tables


def load_bench(config: LadderConfig) -> Bench:
    shared = {"device": config.device, "dtype": config.dtype, "threads": config.threads}
    flood = build_flood(FloodConfig(target=config.manager, renderer=config.renderer, **shared))  # type: ignore[arg-type]
    plain = build(EngineConfig(target=config.manager, drafter="none", **shared))  # type: ignore[arg-type]
    chars = None
    if config.chars != "none":
        chars = build(EngineConfig(target=config.chars, drafter="none", **shared))  # type: ignore[arg-type]
    return Bench(flood, plain, chars)


def make_rungs(bench: Bench, config: LadderConfig) -> list[Rung]:
    """From the table to the flood, slowest first."""
    flood = bench.flood
    one = Drawing(seed=config.seed)
    many = replace(one, k=config.k)
    decoder = flood.decoder(one)

    def by(decoder: FloodDecoder, roots: Sequence[int]) -> Rendered:
        found = decoder.render(roots)
        return Rendered(found.pieces, int(found.chunks.draws.sum() + found.chars.draws.sum()))

    def slowly(remember: bool, roots: Sequence[int]) -> Rendered:
        memory = Memory.of(flood.renderer) if remember else None
        return Rendered(render_sequentially(decoder, roots, memory).pieces, 0)

    def table(roots: Sequence[int]) -> Rendered:
        return Rendered([flood.hierarchy.spell([r]) for r in roots], 0)

    return [
        Rung("table", table),
        Rung(BASE, partial(slowly, False), "plain"),
        Rung("sequential, equal parents once", partial(slowly, True)),
        Rung("flood K=1, equal parents again", partial(by, flood.decoder(one, once=False))),
        Rung("flood K=1", partial(by, decoder), "plain"),
        Rung(f"flood K={config.k}", partial(by, flood.decoder(many))),
        Rung("flood, threshold and retry", partial(by, flood.decoder(replace(one, threshold=0.0)))),
        Rung("flood K=1, drafted plan", partial(by, decoder), "drafted"),
        Rung(f"flood K={config.k}, drafted plan", partial(by, flood.decoder(many)), "drafted"),
    ]


def _request(bench: Bench, config: LadderConfig, size: int, repeat: int) -> Request:
    options = Options(temperature=config.temperature, seed=config.seed + repeat, ignore_eos=True)
    return bench.flood.plan(None, size, options)


def _write(engine: Engine, request: Request) -> list[int]:
    steps = decode(
        engine.target,
        engine.drafter,
        engine.verifier,
        engine.scheduler,
        [request],
        clock=engine.clock,
    )
    return [token for step in steps for token in step.tokens]


def _round(
    bench: Bench,
    config: LadderConfig,
    rungs: Sequence[Rung],
    size: int,
    repeat: int,
    done: set[str],
) -> Iterator[dict[str, Any]]:
    """Every rung that is not `done` once on one plan, and the character-level model on as many
    characters. A B B A: every second round runs in reverse."""
    request = _request(bench, config, size, repeat)
    plan = _write(bench.plain, request)
    roots = [t - SPECIAL for t in plan if t >= SPECIAL]
    truth = [bench.flood.hierarchy.spell([r]) for r in roots]
    clock = bench.plain.clock
    for rung in rungs[:: 1 - 2 * (repeat % 2)]:
        if rung.name in done:
            continue
        if repeat == 0:  # once for the shapes' sake
            rung.render(roots[:20])
        start = clock()
        own = _write(bench.planner(rung.plans), request) if rung.plans else plan
        planned = clock()
        found = rung.render(roots)
        end = clock()
        right = sum(len(a) for a, b in zip(found.pieces, truth, strict=True) if a == b)
        yield {
            "roots": size,
            "repeat": repeat,
            "rung": rung.name,
            "plan_s": planned - start if rung.plans else None,
            "render_s": end - planned,
            "rendered": len(roots),
            "chars": sum(map(len, found.pieces)),
            "right_chars": right,
            "exact": found.pieces == truth,
            "same_plan": own == plan,
            "draws": found.draws,
        }
    if SPANS not in done:
        yield _spans(bench, config, size, repeat)
    if bench.chars is not None and CHARS not in done:
        yield _chars(bench.chars, config, sum(map(len, truth)), size, repeat)


def _spans(bench: Bench, config: LadderConfig, size: int, repeat: int) -> dict[str, Any]:
    """Where a whole flood's time goes, with its plan drafted."""
    found = bench.flood.generate(
        None,
        roots=size,
        temperature=config.temperature,
        seed=config.seed + repeat,
        drawing=Drawing(k=config.k, seed=config.seed),
    )
    return {
        "roots": size,
        "repeat": repeat,
        "rung": SPANS,
        "tau": found.tau,
        "spans": [[list(s.path), s.seconds, s.self_s, s.calls] for s in found.spans],
    }


def _chars(
    engine: Engine, config: LadderConfig, count: int, size: int, repeat: int
) -> dict[str, Any]:
    """A character-level model writes `count` characters: its own, so there is nothing to be right
    about."""
    start = engine.clock()
    asked = Options(
        max_new_tokens=count,
        temperature=config.temperature,
        seed=config.seed + repeat,
        ignore_eos=True,
        chat=False,
    )
    written = _write(engine, engine.request("\n", asked))
    return {
        "roots": size,
        "repeat": repeat,
        "rung": CHARS,
        "plan_s": 0.0,
        "render_s": engine.clock() - start,
        "rendered": size,
        "chars": len(written),
        "right_chars": len(written),
        "exact": None,
        "same_plan": None,
        "draws": 0,
    }


def _exactness(bench: Bench, config: LadderConfig) -> Table:
    """All types of both levels, by K=1 and by best of k."""
    hierarchy = bench.flood.hierarchy
    texts = islice(corpus(config.corpus, "heldout", 400, seed=config.seed), 400)
    held_out = [r for p in texts for r in hierarchy.encode(p.prompt + p.response)]
    rows = []
    for k in (1, config.k):
        found = exactness(bench.flood.decoder(Drawing(k=k, seed=config.seed)), held_out)
        even, weighted = found.over_types(), found.weighted()
        for stage, right in zip(STAGES, found.right, strict=True):
            rows.append(
                (
                    stage.replace("_", " -> "),
                    str(k),
                    f"{int(right.sum()):,} of {len(right):,}",
                    f"{100 * even[stage]:.2f} %",
                    f"{100 * weighted[stage]:.4f} %",
                )
            )
    head = ("step", "K", "exact types", "over types", "weighted by held-out text")
    return Table("Exactness against the hierarchy's own table", head, tuple(rows))


def summarise(rows: Sequence[dict[str, Any]], config: LadderConfig) -> list[Table]:
    """The ladder, the whole way, and where the time goes: functions of the records."""
    tables = []
    for size in config.roots:
        mine = [r for r in rows if r["roots"] == size]
        if mine:
            tables.append(_ladder_table(size, mine))
    spans = [r for r in rows if r["rung"] == SPANS]
    return [*tables, _span_table(spans, config)]


def _ladder_table(size: int, rows: Sequence[dict[str, Any]]) -> Table:
    timed = [r for r in rows if r["rung"] != SPANS]
    names = list(dict.fromkeys(r["rung"] for r in sorted(timed, key=lambda r: r["repeat"])))
    base = _of(timed, BASE)
    lines = []
    for name in names:
        mine = _of(timed, name)
        seconds = sum(r["render_s"] for r in mine)
        exact = [r["exact"] for r in mine if r["exact"] is not None]
        whole = all(r["plan_s"] is not None for r in mine)
        planned = whole and exact
        lines.append(
            (
                name,
                f"{1e3 * seconds / len(mine):,.1f}",
                f"{sum(r['rendered'] for r in mine) / seconds:,.0f}" if exact else "",
                f"{sum(r['right_chars'] for r in mine) / seconds:,.0f}",
                f"{sum(exact)}/{len(exact)}" if exact else "its own",
                str(_ratio(mine, base, whole=False)) if exact else "",
                f"{1e3 * sum(r['plan_s'] for r in mine) / len(mine):,.0f}" if planned else "",
                str(_ratio(mine, base, whole=True)) if whole else "",
                f"{sum(r['same_plan'] for r in mine)}/{len(mine)}" if planned else "",
            )
        )
    head = (
        *("rung", "render ms", "roots/s", "correct chars/s", "text exact", "render speedup [95 %]"),
        *("plan ms", "whole speedup [95 %]", "same plan"),
    )
    chars = sum(r["chars"] for r in base) / len(base) if base else 0
    note = (
        f"{size} roots are {chars:,.0f} characters on average. Speedups are over {BASE!r}, by "
        "correct characters per second, paired by plan; 'whole' is plan and rendering together, "
        "in one run. Rungs without a plan of their own were given the roots."
    )
    return Table(f"{size} roots", head, tuple(lines), note)


def _of(rows: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return sorted((r for r in rows if r["rung"] == name), key=lambda r: int(r["repeat"]))


def _ratio(
    mine: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]], *, whole: bool
) -> Interval:
    def cost(r: dict[str, Any]) -> Cost:
        return Cost(r["right_chars"], r["render_s"] + (r["plan_s"] if whole else 0.0))

    return speedup([cost(r) for r in mine], [cost(r) for r in base])


def _span_table(rows: Sequence[dict[str, Any]], config: LadderConfig) -> Table:
    """Self times by span, summed over repeats."""
    totals: dict[tuple[str, ...], dict[int, float]] = {}
    for row in rows:
        for path, _, self_s, _ in row["spans"]:
            at = totals.setdefault(tuple(path), {})
            at[row["roots"]] = at.get(row["roots"], 0.0) + self_s
    walls = {n: sum(t.get(n, 0.0) for t in totals.values()) for n in config.roots}
    lines = []
    for path, by_size in totals.items():
        name = "unaccounted" if len(path) == 1 else " / ".join(path[1:])
        cells = []
        for n in config.roots:
            repeats = sum(r["roots"] == n for r in rows) or 1
            seconds = by_size.get(n, 0.0)
            cells.append(f"{1e3 * seconds / repeats:,.2f}")
            cells.append(f"{100 * seconds / walls[n]:.1f} %" if walls[n] else "")
        lines.append((name, *cells))
    sums = []
    for n in config.roots:
        repeats = sum(r["roots"] == n for r in rows) or 1
        sums += [f"{1e3 * walls[n] / repeats:,.2f}", "100 %"]
    head = ("span", *(h for n in config.roots for h in (f"{n} roots, ms", "share")))
    note = (
        f"Self times of a whole flood, plan drafted, K={config.k}: wall clock, mean of the "
        "repeats. They sum to the wall; 'unaccounted' is what no span holds."
    )
    return Table("Where the time goes", head, (*lines, ("wall", *sums)), note)
