"""What a target pass costs by its rows, measured from the passes themselves."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from statistics import median


class CostCurve:
    """Median seconds by rows, made monotone, linear in between. Follows the machine: only the last
    `kept` measurements of each number of rows count."""

    def __init__(self, kept: int = 15, refresh: int = 16) -> None:
        self.kept, self.refresh = kept, refresh
        self.cells: dict[int, deque[float]] = {}
        self.rows: list[int] = []
        self.seconds: list[float] = []
        self.dense: list[float] = []  # seconds of 0, 1, 2, ... rows: asked many times a cycle
        self.fresh = 0

    def add(self, rows: int, seconds: float) -> None:
        cell = bucket(rows)
        known = cell in self.cells
        self.cells.setdefault(cell, deque(maxlen=self.kept)).append(seconds)
        self.fresh += 1
        if not known or self.fresh >= self.refresh:
            self._fit()

    def __len__(self) -> int:
        return len(self.cells)

    def covers(self, rows: int) -> bool:
        """Whether passes of about so many rows have been measured."""
        return bool(self.rows) and rows <= 1.1 * self.rows[-1]

    def at(self, rows: int) -> float:
        """Seconds of a pass of `rows` rows. Raises ValueError where nothing was measured."""
        if 0 <= rows < len(self.dense):
            return self.dense[rows]
        return self._between(rows)

    def _between(self, rows: int) -> float:
        if not self.rows:
            raise ValueError("No pass has been measured yet.")
        if len(self.rows) == 1:
            return self.seconds[0]
        i = min(max(bisect_left(self.rows, rows), 1), len(self.rows) - 1)
        (x0, x1), (y0, y1) = self.rows[i - 1 : i + 1], self.seconds[i - 1 : i + 1]
        return max(0.0, y0 + (y1 - y0) * (rows - x0) / (x1 - x0))

    def _fit(self) -> None:
        self.fresh = 0
        self.rows = sorted(self.cells)
        self.seconds = monotone(
            [median(self.cells[r]) for r in self.rows], [len(self.cells[r]) for r in self.rows]
        )
        self.dense = [self._between(rows) for rows in range(self.rows[-1] + 1)]


def bucket(rows: int) -> int:
    """Small passes each have a cell of their own, larger ones share it with their neighbours."""
    return rows if rows <= 32 else 8 * round(rows / 8)


def monotone(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing sequence nearest to `values` in weighted squares (pool adjacent
    violators)."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, members
    for value, weight in zip(values, weights, strict=True):
        mean, total, members = value, float(weight), 1
        while pools and pools[-1][0] > mean:
            before, heavy, count = pools.pop()
            mean = (mean * total + before * heavy) / (total + heavy)
            total, members = total + heavy, members + count
        pools.append((mean, total, members))
    return [mean for mean, _, members in pools for _ in range(members)]
