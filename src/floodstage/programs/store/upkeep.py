"""Keep a store small: the best programs of each task in full, of all others the verdict."""

from __future__ import annotations

from dataclasses import dataclass

from floodstage.programs.store.export import best_programs
from floodstage.programs.store.store import Store


@dataclass(frozen=True, slots=True)
class Swept:
    """How many programs a store held before and after, and its size on disk."""

    programs_before: int
    programs_after: int
    before_bytes: int
    after_bytes: int


def sweep(store: Store, keep: int | None = None) -> Swept:
    """Remove what no verdict refers to. With `keep`, also the programs, trials and outputs of all
    but so many of each task, ranked on demo samples alone; their verdicts stay, so that a run
    that goes on does not run them again. Raises ConfigError."""
    store.commit()
    before = int(store.base.execute("SELECT count(*) FROM sources").fetchone()[0])
    before_bytes = store.path.stat().st_size
    if keep is not None:
        best = best_programs(store, keep, least=0, demo_only=True)
        store.keep_only(one.candidate_id for programs in best.values() for one in programs)
    after = store.collect()
    store.base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Swept(before, after, before_bytes, store.path.stat().st_size)
