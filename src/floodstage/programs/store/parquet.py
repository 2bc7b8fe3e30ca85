"""Verdicts or trials of a store as a Parquet file, for pandas, pyarrow, DuckDB and the like.

Needs pyarrow (the extra `parquet`). The store's identity is in the file's metadata, under
`floodstage`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from floodstage.core.errors import ConfigError
from floodstage.programs.records import Trial, Verdict
from floodstage.programs.store.store import Store

VERDICTS = (
    "SELECT {columns}, digest, origin, entry, length(source) "
    "FROM verdicts LEFT JOIN sources USING (digest) ORDER BY verdicts.rowid"
)
TRIALS = (
    "SELECT candidate_id, task_id, sample, {columns} FROM trials "
    "JOIN (SELECT rowid AS place, candidate_id, task_id FROM verdicts) USING (candidate_id) "
    "ORDER BY place, sample"
)


def write_parquet(store: Store, path: Path, *, trials: bool = False) -> int:
    """One row for each verdict, in order, or with `trials` for each sample of each; how many.
    Columns are the fields of the records; `size_bytes` is null where a program is not kept.
    Raises ConfigError where pyarrow is missing."""
    if trials:
        names = [f.name for f in fields(Trial)]
        before = {"candidate_id": str, "task_id": str, "sample": int}
        query, kinds = TRIALS, {**before, **_kinds(Trial)}
    else:
        names = [f"verdicts.{f.name}" for f in fields(Verdict)]
        after = {"digest": str, "origin": str, "entry": str, "size_bytes": int}
        query, kinds = VERDICTS, {**_kinds(Verdict), **after}
    return _write(store, query.format(columns=", ".join(names)), kinds, path)


def _kinds(record: type) -> dict[str, type]:
    """The columns of a record: a kind is a word to everybody else."""
    plain: dict[Any, type] = {"str": str, "int": int, "float": float, "Kind": str}
    return {f.name: plain[f.type] for f in fields(record)}


def _write(store: Store, query: str, kinds: dict[str, type], path: Path) -> int:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise ConfigError(
            f"Parquet is written by the package 'pyarrow', which cannot be imported ({error}): "
            "pip install 'floodstage[parquet]'."
        ) from error
    words: dict[type, Callable[[], Any]] = {str: pa.string, int: pa.int64, float: pa.float64}
    about = {"floodstage": json.dumps(store.identity())}
    schema = pa.schema([(name, words[kind]()) for name, kind in kinds.items()], metadata=about)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, count = path.with_name(f".{path.name}.part"), 0
    with ParquetWriter(part, schema) as writer:
        for rows in store.rows(query):
            columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True))
            arrays = [
                pa.array(values, words[kind]())
                for values, kind in zip(columns, kinds.values(), strict=True)
            ]
            writer.write_table(pa.table(arrays, schema=schema))
            count += len(rows)
    part.replace(path)
    return count
