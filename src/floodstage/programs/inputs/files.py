"""JSON and JSONL from files, plain or gzipped, with errors that say where. Knows no format."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from floodstage.core.errors import InputError

Row: TypeAlias = dict[str, Any]


def text_of(path: Path) -> str:
    """A UTF-8 file as text, unpacked if it ends in .gz. Raises InputError."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not UTF-8 text: {error}.") from error


def json_of(path: Path) -> Any:
    """The one JSON value of a file. Raises InputError."""
    try:
        return json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is not JSON: {error}.") from error


def rows_of(path: Path) -> Iterator[tuple[str, Row]]:
    """The objects of a JSONL file, each with the words that say where it stands. Empty lines are
    skipped. Raises InputError."""
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{str(path)!r} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise InputError(f"{where} is {type(row).__name__}, expected a JSON object.")
        yield where, row


def field_of(row: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """`row[name]`, of the type that is wanted. Raises InputError."""
    if name not in row:
        raise InputError(f"{where} lacks {name!r}; it has {', '.join(sorted(row)) or 'nothing'}.")
    if not isinstance(row[name], kind):
        raise InputError(
            f"{where}: {name!r} must be {kind.__name__}, got {type(row[name]).__name__}."
        )
    return row[name]


def texts_of(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    """`row[name]` as a list of strings; empty where it is missing. Raises InputError."""
    found = row.get(name) or []
    if not isinstance(found, list) or not all(isinstance(x, str) for x in found):
        raise InputError(f"{where}: {name!r} must be a list of strings.")
    return found
