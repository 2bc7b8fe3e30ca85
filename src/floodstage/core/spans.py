"""Where the time went: a tree of named spans on one clock, whose self times sum to the whole.

Knows nothing of what is timed. A span entered again under the same parent is the same row, with
more calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from floodstage.core.protocols import Clock


@dataclass(slots=True)
class Span:
    """Wall-clock seconds of all calls, those of its children included."""

    name: str
    seconds: float = 0.0
    calls: int = 0
    children: dict[str, Span] = field(default_factory=dict)

    @property
    def self_s(self) -> float:
        return self.seconds - sum(child.seconds for child in self.children.values())


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One line of the tree. The `self_s` of all rows sum to the `seconds` of the first."""

    path: tuple[str, ...]
    seconds: float
    self_s: float
    calls: int


class Spans:
    """`with spans("render"):` times what is inside, under the span that is open.

    The first span is the whole, from `start` to the end of the last span; its self time is what no
    span accounts for. On an accelerator the clock must wait for the device.
    """

    def __init__(self, clock: Clock = perf_counter) -> None:
        self.clock = clock
        self.root = Span("wall", calls=1)
        self.open = [self.root]
        self.began = clock()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        span = self.open[-1].children.setdefault(name, Span(name))
        self.open.append(span)
        start = self.clock()
        try:
            yield
        finally:
            now = self.clock()
            span.seconds += now - start
            span.calls += 1
            self.open.pop()
            self.root.seconds = now - self.began

    def leave_out(self, seconds: float) -> None:
        """Do not count what passed outside, in the hands of somebody else."""
        self.began += seconds

    def stop(self) -> None:
        """Count what passed since the last span as the whole's own."""
        self.root.seconds = self.clock() - self.began

    @property
    def unaccounted_s(self) -> float:
        return self.root.self_s

    def rows(self) -> list[SpanRow]:
        """Every span, parents before their children."""
        found: list[SpanRow] = []

        def walk(span: Span, above: tuple[str, ...]) -> None:
            path = (*above, span.name)
            found.append(SpanRow(path, span.seconds, span.self_s, span.calls))
            for child in span.children.values():
                walk(child, path)

        walk(self.root, ())
        return found
