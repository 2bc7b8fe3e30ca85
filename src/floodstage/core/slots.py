"""The one rule of leaving: sequences stay packed, the last one moves into the gap."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def vacate(row: list[T], slot: int) -> None:
    """Take entry `slot` out of `row`; the last entry moves there."""
    last = row.pop()
    if slot < len(row):
        row[slot] = last
