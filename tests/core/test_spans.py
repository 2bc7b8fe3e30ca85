"""Spans: self times sum to the whole."""

from __future__ import annotations

import math

import pytest

from floodstage.core.spans import Spans


class Clock:
    """Ticks that a test sets."""

    now = 10.0

    def __call__(self) -> float:
        return self.now


def test_self_times_sum_to_the_wall() -> None:
    clock = Clock()
    spans = Spans(clock)
    clock.now += 1.0  # nobody's
    for _ in range(2):
        with spans("render"):
            clock.now += 0.25
            with spans("chunks"):
                clock.now += 3.0
            with spans("chars"):
                clock.now += 0.5
    with spans("chunks"):  # of the same name, elsewhere in the tree
        clock.now += 4.0
    clock.now += 2.0
    spans.stop()
    rows = {row.path: row for row in spans.rows()}
    assert rows[("wall",)].seconds == 14.5
    assert spans.unaccounted_s == rows[("wall",)].self_s == 3.0
    assert rows[("wall", "render")].self_s == 0.5
    assert rows[("wall", "render", "chunks")].seconds == 6.0
    assert rows[("wall", "render", "chunks")].calls == 2
    assert rows[("wall", "chunks")].seconds == 4.0
    assert math.isclose(sum(row.self_s for row in rows.values()), 14.5)


def test_a_span_that_fails_is_still_closed() -> None:
    clock = Clock()
    spans = Spans(clock)

    def fail() -> None:
        with spans("work"):
            clock.now += 1.0
            raise ValueError("oops")

    with pytest.raises(ValueError, match="oops"):
        fail()
    with spans("more"):
        clock.now += 1.0
    assert [row.path for row in spans.rows()] == [("wall",), ("wall", "work"), ("wall", "more")]
