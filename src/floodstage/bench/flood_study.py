"""When does best-of-K pay? And how well does the energy find what is wrong?

All parents of a sample are drawn many times; for every number of draws it is counted how many are
distinct and how often the first, the lowest in energy, a random one and the best possible one are
exactly right. Wrong children for the energy are held out of training (see `training.renderer`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from floodstage.bench.flood_plots import draw_study
from floodstage.bench.measure import environment, same_settings
from floodstage.bench.records import whole_lines
from floodstage.bench.tables import Table, write_tables
from floodstage.core.files import write_whole
from floodstage.core.metrics import auroc, recall_at
from floodstage.decoding.draws import NOISES, Drawing, Draws
from floodstage.decoding.exactness import matches
from floodstage.decoding.flood import FloodDecoder
from floodstage.engine.flood import load_decoder
from floodstage.models.files import fingerprint
from floodstage.models.fractal import LEVELS
from floodstage.training.renderer import bucket, energy_of, held_out_misses, tables

HEAT = 2.5  # at which wrong draws of the model itself are collected


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """What is drawn: `parents` of each level, sampled evenly from all types."""

    renderer: str = "flood-renderer"
    k: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    steps: tuple[int, ...] = (1, 2, 4, 8)
    temperature: float = 1.0
    parents: int = 64
    seed: int = 0
    device: str = "auto"
    threads: int = 0


def run_study(config: StudyConfig, out: Path) -> list[Table]:
    """Measure what `out` lacks, then its tables. Raises RunError if `out` holds another run."""
    out.mkdir(parents=True, exist_ok=True)
    decoder = load_decoder(config.renderer, device=config.device, threads=config.threads)
    identity = {"settings": asdict(config), "weights": fingerprint(decoder.renderer)}
    same_settings(out, identity, environment(config.device))
    path = out / "records.jsonl"
    rows = [json.loads(line) for line in whole_lines(path)] if path.is_file() else []
    have = {(r["level"], r["noise"], r["steps"], r["k"]) for r in rows}
    todo = [
        (level, noise, steps)
        for level in range(len(LEVELS))
        for noise in NOISES
        for steps in config.steps
        if not all((LEVELS[level], noise, steps, k) in have for k in config.k)
    ]
    with path.open("a", encoding="utf-8") as file:
        for level, noise, steps in track(todo, "drawing", console=Console(stderr=True)):
            found = _choices(decoder, config, level, noise, steps)
            file.write("".join(json.dumps(row) + "\n" for row in found))
            file.flush()
            rows = [r for r in rows if _key(r) != _key(found[0])] + found
    shown = [_energy_table(decoder, config), _choice_table(rows, config)]
    write_tables(out, shown)
    for name, picture in draw_study(rows):
        write_whole(out / name, picture)
    return shown


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["level"], row["noise"], row["steps"]


def _seconds(decoder: FloodDecoder, ids: Tensor, level: int, drawing: Drawing) -> float:
    """The median of three runs, or fewer where they take long."""
    timed = FloodDecoder(decoder.renderer, decoder.hierarchy, drawing)
    found: list[float] = []
    while len(found) < 3 and sum(found) < 1.0:
        start = decoder.clock()
        timed.expand(ids, level)
        found.append(decoder.clock() - start)
    return median(found)


@torch.inference_mode()
def _choices(
    decoder: FloodDecoder, config: StudyConfig, level: int, noise: str, steps: int
) -> list[dict[str, Any]]:
    """A row for every K."""
    drawing = Drawing(
        temperature=config.temperature,
        greedy_first=False,
        noise=noise,
        steps=steps,
        seed=config.seed,
    )
    table = decoder.hierarchy.children(level)
    generator = torch.Generator().manual_seed(config.seed + 1)
    ids = torch.randperm(len(table), generator=generator)[: config.parents].sort().values
    ids = ids.to(decoder.renderer.device)
    numbers = torch.arange(max(config.k), device=ids.device)
    draws = decoder.drawer.draw(ids, level, numbers, drawing)
    energies = decoder.drawer.energies(ids, level, draws)
    right = _right(draws, [table[i] for i in ids.tolist()])
    kinds = _kinds(draws)
    rows = []
    for k in config.k:
        seconds = _seconds(decoder, ids, level, replace(drawing, k=k))
        lowest = energies[:, :k].argmin(1, keepdim=True).cpu()
        rows.append(
            {
                "level": LEVELS[level],
                "noise": noise,
                "steps": steps,
                "k": k,
                "distinct": sum(len(set(row[:k])) for row in kinds) / len(kinds),
                "first": float(right[:, 0].double().mean()),
                "lowest": float(right.gather(1, lowest).double().mean()),
                "random": float(right[:, :k].double().mean()),
                "oracle": float(right[:, :k].any(1).double().mean()),
                "ms_per_parent": 1e3 * seconds / len(ids),
            }
        )
    return rows


def _right(draws: Draws, wanted: list[tuple[int, ...]]) -> Tensor:
    """[U, D] bool: which draws are exactly their parent's children."""
    each = [want for want in wanted for _ in range(draws.lengths.shape[1])]
    found = matches(draws.children.flatten(0, 1), draws.lengths.flatten(), each)
    return found.view(draws.lengths.shape)


def _kinds(draws: Draws) -> list[list[tuple[int, ...]]]:
    """Each draw as a value that is equal for equal draws."""
    both = torch.cat([draws.lengths[..., None], draws.children], -1).tolist()
    return [[tuple(draw) for draw in row] for row in both]


def _energy_table(decoder: FloodDecoder, config: StudyConfig) -> Table:
    """Wrong children of three kinds against all right ones."""
    rows = []
    truth = tables(decoder.hierarchy, torch.arange(decoder.hierarchy.roots))
    net = decoder.renderer
    for level, table in enumerate(truth):
        every = torch.arange(len(table.lengths))
        right = energy_of(net, level, every, table.children, table.lengths).tolist()
        generator = torch.Generator().manual_seed(config.seed)
        other = torch.randint(len(every), (40 * len(every),), generator=generator)
        parents = every.repeat(40)
        kinds = {
            "children of another parent": (parents, table.children[other], table.lengths[other]),
            "near misses": held_out_misses(
                table, level, net.config.children[level], draws=60, seed=config.seed + 3
            ),
            "its own wrong draws": _own_draws(decoder, level, config),
        }
        for kind, (asked, children, lengths) in kinds.items():
            differs = (children != table.children[asked]).any(1) | (lengths != table.lengths[asked])
            keep = differs & (bucket(level, asked, children, lengths) == 0)
            if not bool(keep.any()):
                rows.append((LEVELS[level], kind, "0", "", "", ""))
                continue
            wrong = energy_of(net, level, asked[keep], children[keep], lengths[keep]).tolist()
            passed = sum(e < 0 for e in wrong) / len(wrong)
            rows.append(
                (
                    LEVELS[level],
                    kind,
                    f"{len(wrong):,}",
                    f"{auroc(right, wrong):.5f}",
                    f"{100 * recall_at(right, wrong, 0.01):.2f} %",
                    f"{100 * passed:.2f} %",
                )
            )
    head = ("level", "wrong children", "candidates", "AUROC", "recall at 1 % FPR", "energy < 0")
    note = (
        "Against the right children of every type. Candidates hash into the bucket that training "
        "never shows as wrong; a parent is a bare symbol, so there is no held-out type to know. "
        f"Own draws at temperature {HEAT}. The last column is what the threshold 0 lets through."
    )
    return Table("The energy", head, tuple(rows), note)


def _own_draws(
    decoder: FloodDecoder, level: int, config: StudyConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Different draws of every parent, hot: parents [n], children [n, S], lengths [n]."""
    drawing = Drawing(temperature=HEAT, greedy_first=False, seed=config.seed + 5)
    ids = torch.arange(decoder.renderer.config.parents[level], device=decoder.renderer.device)
    numbers = torch.arange(32, device=ids.device)
    draws = decoder.drawer.draw(ids, level, numbers, drawing)
    rows = torch.cat(
        [
            ids.repeat_interleave(len(numbers))[:, None],
            draws.lengths.flatten()[:, None],
            draws.children.flatten(0, 1),
        ],
        1,
    )
    rows = torch.unique(rows, dim=0).cpu()
    return rows[:, 0], rows[:, 2:], rows[:, 1]


def _choice_table(rows: list[dict[str, Any]], config: StudyConfig) -> Table:
    cells = []
    for r in rows:
        cells.append(
            (
                r["level"],
                r["noise"],
                str(r["steps"]),
                str(r["k"]),
                f"{r['distinct']:.2f}",
                *(f"{100 * r[c]:.1f} %" for c in ("first", "random", "lowest", "oracle")),
                f"{r['ms_per_parent']:.2f}",
            )
        )
    head = (
        *("level", "noise", "steps", "K", "distinct", "first", "random", "lowest energy"),
        *("oracle", "ms a parent"),
    )
    note = (
        f"{config.parents} parents of each level, evenly from all types, every draw at temperature "
        f"{config.temperature:g} (none greedy)."
    )
    return Table("Draws and which is kept", head, tuple(cells), note)
