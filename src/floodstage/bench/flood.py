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

import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from floodstage.bench.flood_plots import draw_ladder
from floodstage.bench.flood_tables import BASE, CHARS, SPANS, TUNED, summarise
from floodstage.bench.measure import environment, same_settings
from floodstage.bench.records import keep_rows
from floodstage.bench.tables import Table, write_tables
from floodstage.core.errors import ConfigError
from floodstage.core.files import write_whole
from floodstage.core.types import Request
from floodstage.decoding.draws import Drawing, Memory
from floodstage.decoding.exactness import STAGES, exactness
from floodstage.decoding.flood import FloodDecoder
from floodstage.decoding.sequential import render_sequentially
from floodstage.engine.build import EngineConfig, build
from floodstage.engine.engine import Engine
from floodstage.engine.flood import Flood, FloodConfig, build_flood
from floodstage.engine.options import Options
from floodstage.models.files import fingerprint
from floodstage.text.hierarchy import SPECIAL
from floodstage.training.documents import corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderConfig:
    """What is compared. `k` is that of the rungs with many draws; `chars` names a character-level
    model, or "none"."""

    roots: tuple[int, ...] = (50, 200, 1000)
    k: int = 16
    repeats: int = 6
    manager: str = "flood-manager"
    renderer: str = "auto"
    chars: str = "flood-chars"
    corpus: str = "mathematics"
    temperature: float = 0.8
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0


Render = Callable[[Sequence[int]], list[list[int]]]
"""Roots -> the character ids of each."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A way to turn roots into text. `plans`: "" if it is given the roots, else "plain" or
    "drafted". The character-level model has no `render`: it writes a text of its own."""

    name: str
    render: Render | None
    plans: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """What is loaded: the flood with its drafter, and its manager without."""

    flood: Flood
    plain: Engine
    chars: Engine | None

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the weights, so that a run never mixes two models of one name."""
        return {name: fingerprint(model) for name, model in self._models().items()}

    @property
    def parameters(self) -> dict[str, int]:
        return {n: sum(p.numel() for p in m.parameters()) for n, m in self._models().items()}

    def _models(self) -> dict[str, nn.Module]:
        engines = {"manager": self.plain, "chars": self.chars}
        found = {n: e.target for n, e in engines.items() if e and isinstance(e.target, nn.Module)}
        return {**found, "renderer": self.flood.renderer}

    def planner(self, kind: str) -> Engine:
        return self.flood.manager if kind == "drafted" else self.plain


def ladder(config: LadderConfig, out: Path) -> list[Table]:
    """Measure what `out` lacks, then its tables. Raises RunError if `out` holds another run."""
    out.mkdir(parents=True, exist_ok=True)
    bench = load_bench(config)
    identity = {"settings": asdict(config), "weights": bench.fingerprints}
    same_settings(out, identity, environment(config.device) | {"parameters": bench.parameters})
    rows = keep_rows(out / "records.jsonl", partial(_rows, bench, config))
    held_out = _held_out(bench, config)
    tables = [
        _hierarchy(bench, held_out),
        _exactness(bench, config, held_out),
        _same_bytes(bench, config, out / "same_bytes.json"),
        *summarise(rows, config.roots, config.k),
    ]
    write_tables(out, tables)
    for name, picture in draw_ladder(rows):
        write_whole(out / name, picture)
    return tables


def _rows(
    bench: Bench, config: LadderConfig, have: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Every rung on every plan that `have` lacks."""
    known = {(r["roots"], r["repeat"], r["rung"]) for r in have}
    rungs = make_rungs(bench, config)
    todo = [(n, i) for n in config.roots for i in range(config.repeats)]
    names = {SPANS, *(r.name for r in rungs)}
    warm: set[tuple[str, int]] = set()
    for size, repeat in track(todo, "measuring", console=Console(stderr=True)):
        missing = names - {name for n, i, name in known if (n, i) == (size, repeat)}
        if missing:
            yield from _round(bench, config, rungs, size, repeat, missing, warm)


def load_bench(config: LadderConfig) -> Bench:
    shared = {"device": config.device, "dtype": config.dtype, "threads": config.threads}
    flood = build_flood(FloodConfig(target=config.manager, renderer=config.renderer, **shared))  # type: ignore[arg-type]
    plain = build(EngineConfig(target=config.manager, drafter="none", **shared))  # type: ignore[arg-type]
    chars = None
    if config.chars != "none":
        chars = build(EngineConfig(target=config.chars, drafter="none", **shared))  # type: ignore[arg-type]
        _check_chars(chars, config)
    return Bench(flood, plain, chars)


def _check_chars(engine: Engine, config: LadderConfig) -> None:
    """Raises ConfigError for a model whose tokens are more than characters, and for one too short
    for the longest plan (a root has about four characters)."""
    text = "What is 17 + 24?"
    if len(engine.tokenizer.encode(text)) != len(text):
        raise ConfigError(f"{config.chars!r} writes tokens of several characters: give another.")
    if engine.target.context < 5 * max(config.roots):
        raise ConfigError(
            f"{config.chars!r} has a context of {engine.target.context}, too short for the "
            f"characters of {max(config.roots)} roots: give another, or fewer roots."
        )


def make_rungs(bench: Bench, config: LadderConfig) -> list[Rung]:
    """From the table to the flood, slowest first."""
    flood = bench.flood
    one = Drawing(seed=config.seed)
    many = replace(one, k=config.k)
    decoder = flood.decoder(one)

    def by(decoder: FloodDecoder, roots: Sequence[int]) -> list[list[int]]:
        return decoder.render(roots).pieces

    def slowly(remember: bool, roots: Sequence[int]) -> list[list[int]]:
        memory = Memory.of(flood.renderer) if remember else None
        return render_sequentially(decoder, roots, memory).pieces

    def table(roots: Sequence[int]) -> list[list[int]]:
        return [flood.hierarchy.spell([r]) for r in roots]

    return [
        Rung("table", table),
        Rung(BASE, partial(slowly, False), "plain"),
        Rung(TUNED, partial(slowly, True), "plain"),
        Rung("flood K=1, equal parents again", partial(by, flood.decoder(one, once=False))),
        Rung("flood K=1", partial(by, decoder), "plain"),
        Rung(f"flood K={config.k}", partial(by, flood.decoder(many))),
        Rung("flood, threshold and retry", partial(by, flood.decoder(replace(one, threshold=0.0)))),
        Rung("flood K=1, drafted plan", partial(by, decoder), "drafted"),
        Rung(f"flood K={config.k}, drafted plan", partial(by, flood.decoder(many)), "drafted"),
        *([Rung(CHARS, None)] if bench.chars is not None else []),
    ]


def _request(bench: Bench, config: LadderConfig, size: int, repeat: int) -> Request:
    options = Options(temperature=config.temperature, seed=config.seed + repeat, ignore_eos=True)
    return bench.flood.plan(None, size, options)


def _write(engine: Engine, request: Request) -> list[int]:
    return [token for step in engine.steps(request) for token in step.tokens]


def _round(
    bench: Bench,
    config: LadderConfig,
    rungs: Sequence[Rung],
    size: int,
    repeat: int,
    missing: set[str],
    warm: set[tuple[str, int]],
) -> Iterator[dict[str, Any]]:
    """Every `missing` rung once on one plan. A B B A: every second round runs in reverse. A rung's
    first run at a size is not counted."""
    request = _request(bench, config, size, repeat)
    plan = _write(bench.plain, request)
    roots = [t - SPECIAL for t in plan if t >= SPECIAL]
    truth = [bench.flood.hierarchy.spell([r]) for r in roots]

    def run(rung: Rung) -> dict[str, Any]:
        if rung.render is None:
            return _chars(bench, config, sum(map(len, truth)), repeat)
        clock = bench.plain.clock
        start = clock()
        own = _write(bench.planner(rung.plans), request) if rung.plans else plan
        planned = clock()
        found = rung.render(roots)
        end = clock()
        right = sum(len(a) for a, b in zip(found, truth, strict=True) if a == b)
        return {
            "plan_s": planned - start if rung.plans else None,
            "render_s": end - planned,
            "rendered": len(roots),
            "chars": sum(map(len, found)),
            "right_chars": right,
            "exact": found == truth,
            "same_plan": own == plan,
        }

    for rung in rungs[:: 1 - 2 * (repeat % 2)]:
        if rung.name not in missing:
            continue
        if (rung.name, size) not in warm:
            warm.add((rung.name, size))
            if rung.render is not None and rung.name in (BASE, TUNED):
                rung.render(roots[:10])  # its passes have one shape whatever the size
            else:
                run(rung)
        yield {"roots": size, "repeat": repeat, "rung": rung.name, **run(rung)}
    if SPANS in missing:
        yield {
            "roots": size,
            "repeat": repeat,
            "rung": SPANS,
            **_spans(bench, config, size, repeat),
        }


def _spans(bench: Bench, config: LadderConfig, size: int, repeat: int) -> dict[str, Any]:
    """Where a whole flood's time goes, with its plan drafted."""
    start = bench.plain.clock()
    found = bench.flood.generate(
        None,
        roots=size,
        temperature=config.temperature,
        seed=config.seed + repeat,
        drawing=Drawing(k=config.k, seed=config.seed),
    )
    return {
        "wall_s": bench.plain.clock() - start,
        "tau": found.tau,
        "spans": [[list(s.path), s.seconds, s.self_s, s.calls] for s in found.spans],
    }


def _chars(bench: Bench, config: LadderConfig, count: int, repeat: int) -> dict[str, Any]:
    """A character-level model writes `count` characters: its own, so there is nothing to be right
    about."""
    engine = bench.chars
    assert engine is not None
    asked = Options(
        max_new_tokens=count,
        temperature=config.temperature,
        seed=config.seed + repeat,
        ignore_eos=True,
        chat=False,
    )
    start = engine.clock()
    written = _write(engine, engine.request("\n", asked))
    return {
        "plan_s": 0.0,
        "render_s": engine.clock() - start,
        "rendered": 0,
        "chars": len(written),
        "right_chars": len(written),
        "exact": None,
        "same_plan": None,
    }


def _held_out(bench: Bench, config: LadderConfig) -> list[int]:
    """Roots of held-out text."""
    texts = islice(corpus(config.corpus, "heldout", 400, seed=config.seed), 400)
    return [r for p in texts for r in bench.flood.hierarchy.encode(p.prompt + p.response)]


def _hierarchy(bench: Bench, held_out: Sequence[int]) -> Table:
    found = bench.flood.hierarchy.report(held_out)
    rows = tuple((name, f"{value:,.4g}" if value % 1 else f"{value:,.0f}") for name, value in found)
    return Table("The hierarchy on held-out text", ("figure", "value"), rows)


def _exactness(bench: Bench, config: LadderConfig, held_out: Sequence[int]) -> Table:
    """All types of both levels, by K=1 and by best of k."""
    rows = []
    for k in (1, config.k):
        found = exactness(
            bench.flood.decoder(Drawing(k=k, seed=config.seed)), torch.tensor(held_out)
        )
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


def _same_bytes(bench: Bench, config: LadderConfig, rows_path: Path) -> Table:
    """Every mode by the flood and by the sequential reference, on one plan."""
    if not rows_path.is_file():
        write_whole(rows_path, json.dumps(list(_compare(bench, config)), indent=1))
    rows = json.loads(rows_path.read_text())
    head = (
        *("mode", "K", "same bytes", "sequential draws", "flood draws"),
        *("sequential s", "flood s"),
    )
    cells = tuple(
        (
            r["mode"],
            str(r["k"]),
            "yes" if r["same"] else "NO",
            f"{r['sequential_draws']:,}",
            f"{r['flood_draws']:,}",
            f"{r['sequential_s']:.2f}",
            f"{r['flood_s']:.3f}",
        )
        for r in rows
    )
    note = (
        f"{SAMPLED} roots; the flood draws equal parents once. Only 'likeliest' has a greedy first "
        "draw. Single runs: the seconds are rough."
    )
    return Table("The flood's text beside the sequential reference's", head, cells, note)


SAMPLED = 8
MODES = {
    "likeliest": Drawing(),
    "sampled": Drawing(greedy_first=False),
    "uniform noise": Drawing(noise="uniform", greedy_first=False),
    "4 steps": Drawing(steps=4, greedy_first=False),
    "hot, threshold and retry": Drawing(
        greedy_first=False, temperature=2.0, threshold=0.0, retries=5
    ),
}


def _compare(bench: Bench, config: LadderConfig) -> Iterator[dict[str, Any]]:
    plan = _write(bench.plain, _request(bench, config, SAMPLED, 0))
    roots = [t - SPECIAL for t in plan if t >= SPECIAL]
    clock = bench.plain.clock
    for mode, drawing in MODES.items():
        for k in sorted({1, 4, config.k}):
            decoder = bench.flood.decoder(replace(drawing, k=k, seed=config.seed))
            start = clock()
            slow = render_sequentially(decoder, roots)
            middle = clock()
            slow_draws, decoder.drawn = decoder.drawn, 0
            fast = decoder.render(roots)
            end = clock()
            yield {
                "mode": mode,
                "k": k,
                "same": slow.text == fast.text and slow.pieces == fast.pieces,
                "sequential_draws": slow_draws,
                "flood_draws": decoder.drawn,
                "sequential_s": middle - start,
                "flood_s": end - middle,
            }
