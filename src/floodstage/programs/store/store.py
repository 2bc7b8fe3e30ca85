"""The store of a run: one SQLite file, sources by content, verdicts and trials in one transaction.

Only the driver writes. Whatever was committed survives a kill; a run that goes on skips what is
here. A store belongs to one set of tasks, limits and interpreter and refuses any other.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from floodstage.core.errors import RunError
from floodstage.programs.records import OPEN_KINDS, Candidate, Kind, Trial, Verdict

SCHEMA = 2
BATCH, BATCH_S = 200, 0.5
"""A transaction holds so many verdicts or those of so long; a killed run does these again."""
_VERDICT = [f.name for f in fields(Verdict)]
_TRIAL = [f.name for f in fields(Trial)]
_verdict_values, _trial_values = attrgetter(*_VERDICT), attrgetter(*_TRIAL)
_INSERT = "INSERT OR REPLACE INTO {} VALUES ({})"
_INSERT_VERDICT = _INSERT.format("verdicts", ", ".join("?" * (len(_VERDICT) + 3)))
_INSERT_TRIAL = _INSERT.format("trials", ", ".join("?" * (len(_TRIAL) + 2)))
_TABLES = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sources (digest TEXT PRIMARY KEY, source BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS verdicts (
    {", ".join(_VERDICT)}, digest TEXT NOT NULL, origin TEXT NOT NULL, entry TEXT,
    PRIMARY KEY (candidate_id));
CREATE TABLE IF NOT EXISTS trials (
    candidate_id TEXT NOT NULL, sample INTEGER NOT NULL, {", ".join(_TRIAL)},
    PRIMARY KEY (candidate_id, sample));
"""


class Store:
    """`with Store(folder, identity) as store:` then `store.add(...)`. `identity` says what a
    verdict depends on; without one the store is read. Raises RunError where the folder holds a
    run of another identity."""

    def __init__(self, folder: Path, identity: Mapping[str, Any] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "verdicts.sqlite"
        self.pending, self.committed_s = 0, time.monotonic()
        self.open = True
        try:
            self.base = sqlite3.connect(self.path)
            self.base.execute("PRAGMA journal_mode=WAL")
            self.base.execute("PRAGMA synchronous=NORMAL")
            self.base.executescript(_TABLES)
            self._same({"schema": SCHEMA, **(identity or {})})
        except sqlite3.DatabaseError as error:
            raise RunError(f"{str(self.path)!r} cannot be used: {error}.") from error

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit, fold the log into the file, let go. Twice is once."""
        if self.open:
            self.open = False
            self.base.commit()
            self.base.close()

    def _same(self, identity: Mapping[str, Any]) -> None:
        held = dict(self.base.execute("SELECT key, value FROM meta"))
        for key, value in identity.items():
            text = json.dumps(value, sort_keys=True)
            if held and held.get(key) != text:
                raise RunError(
                    f"{str(self.path.parent)!r} holds a run of another {key}: choose another "
                    f"folder. It has {held.get(key)}, this run {text}."
                )
            self.base.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, text))
        self.base.commit()

    def add(self, candidate: Candidate, verdict: Verdict, trials: Iterable[Trial] = ()) -> None:
        """Keep a verdict with its trials; all of it or nothing survives a kill."""
        digest = candidate.digest
        source = candidate.source.encode("utf-8", "surrogatepass")
        self.base.execute("INSERT OR IGNORE INTO sources VALUES (?, ?)", (digest, source))
        self.base.execute("DELETE FROM trials WHERE candidate_id = ?", (candidate.id,))
        row = (*_verdict_values(verdict), digest, candidate.origin, candidate.entry)
        self.base.execute(_INSERT_VERDICT, row)
        rows = [(candidate.id, i, *_trial_values(trial)) for i, trial in enumerate(trials)]
        self.base.executemany(_INSERT_TRIAL, rows)
        self.pending += 1
        if self.pending >= BATCH or time.monotonic() - self.committed_s >= BATCH_S:
            self.commit()

    def commit(self) -> None:
        """Everything added so far survives from here on."""
        self.base.commit()
        self.pending, self.committed_s = 0, time.monotonic()

    def done(self) -> dict[str, str]:
        """Candidates with a verdict that need not run again, and the digest of what was run."""
        kinds = ", ".join(f"'{kind}'" for kind in sorted(OPEN_KINDS))
        rows = self.base.execute(
            f"SELECT candidate_id, digest FROM verdicts WHERE kind NOT IN ({kinds})"
        )
        return dict(rows.fetchall())

    def verdicts(self) -> Iterator[Verdict]:
        """Every verdict, in the order of the first time it was added."""
        rows = self.base.execute(f"SELECT {', '.join(_VERDICT)} FROM verdicts ORDER BY rowid")
        for candidate_id, task_id, kind, *rest in rows:
            yield Verdict(candidate_id, task_id, Kind(kind), *rest)

    def trials(self, candidate_id: str) -> list[Trial]:
        """The trials of a candidate, in the order of its samples."""
        rows = self.base.execute(
            f"SELECT {', '.join(_TRIAL)} FROM trials WHERE candidate_id = ? ORDER BY sample",
            (candidate_id,),
        )
        return [Trial(Kind(kind), *rest) for kind, *rest in rows]

    def source(self, candidate_id: str) -> str:
        """The program of a candidate. Raises RunError."""
        return self.candidate(candidate_id).source

    def origin(self, candidate_id: str) -> str:
        """Where a candidate was read, and of a mutant from what it was made. Raises RunError."""
        row = self.base.execute(
            "SELECT origin FROM verdicts WHERE candidate_id = ?", (candidate_id,)
        ).fetchone()
        if row is None:
            raise RunError(f"{str(self.path)!r} has no candidate {candidate_id!r}.")
        return str(row[0])

    def candidate(self, candidate_id: str) -> Candidate:
        """A candidate as it was given. Raises RunError."""
        found = next(self._candidates("WHERE candidate_id = ?", candidate_id), None)
        if found is None:
            raise RunError(
                f"The program of {candidate_id!r} ({self.origin(candidate_id)}) is not in "
                f"{str(self.path)!r}: it was not among the best that `programs gc --keep` kept."
            )
        return found

    def candidates(self) -> Iterator[Candidate]:
        """Every candidate whose program is kept, in the order of the verdicts."""
        return self._candidates("ORDER BY verdicts.rowid")

    def _candidates(self, which: str, *values: str) -> Iterator[Candidate]:
        columns = "candidate_id, task_id, source, origin, entry"
        rows = self.base.execute(
            f"SELECT {columns} FROM verdicts JOIN sources USING (digest) {which}", values
        )
        for candidate_id, task_id, source, origin, entry in rows:
            text = bytes(source).decode("utf-8", "surrogatepass")
            yield Candidate(candidate_id, task_id, text, origin, entry)

    def digests(self) -> dict[str, str]:
        """The address of every candidate's program."""
        return dict(self.base.execute("SELECT candidate_id, digest FROM verdicts").fetchall())

    def rows(self, query: str) -> Iterator[list[tuple[Any, ...]]]:
        """What a query gives, in parts of some thousand rows."""
        found = self.base.execute(query)
        while part := found.fetchmany(8192):
            yield part

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget trials and programs of every other candidate; all verdicts stay."""
        self.base.execute("CREATE TEMP TABLE kept (candidate_id TEXT PRIMARY KEY)")
        self.base.executemany("INSERT INTO kept VALUES (?)", ((name,) for name in names))
        self.base.execute("DELETE FROM trials WHERE candidate_id NOT IN kept")
        self.base.execute(
            "DELETE FROM sources WHERE digest NOT IN "
            "(SELECT digest FROM verdicts WHERE candidate_id IN kept)"
        )
        self.base.execute("DROP TABLE kept")

    def collect(self) -> int:
        """Remove programs and trials that no verdict refers to and give their space back; how
        many programs are left."""
        self.base.execute("DELETE FROM sources WHERE digest NOT IN (SELECT digest FROM verdicts)")
        self.base.execute(
            "DELETE FROM trials WHERE candidate_id NOT IN (SELECT candidate_id FROM verdicts)"
        )
        self.commit()
        self.base.execute("VACUUM")
        return int(self.base.execute("SELECT count(*) FROM sources").fetchone()[0])

    def identity(self) -> dict[str, Any]:
        """What the verdicts depend on, as it was given; the schema is left out."""
        held = self.base.execute("SELECT key, value FROM meta WHERE key != 'schema'")
        return {key: json.loads(value) for key, value in held}
