"""Where the time went: a tree of named spans on one clock, whose self times sum to the whole.

Knows nothing of what is timed. A span entered again under the same parent is the same row, with
more calls.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime, perf_counter

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


@dataclass(frozen=True, slots=True)
class Event:
    """One stretch of time, for a picture; `start_s` is on the clock of its `Spans`."""

    track: str
    name: str
    start_s: float
    seconds: float


class Spans:
    """`with spans("render"):` times what is inside, under the span that is open.

    The first span is the whole, from `start` to the end of the last span; its self time is what no
    span accounts for. On an accelerator the clock must wait for the device. With `keep_events`
    every stretch is kept as well as the sums.
    """

    def __init__(self, clock: Clock = perf_counter, *, keep_events: bool = False) -> None:
        self.clock = clock
        self.root = Span("wall", calls=1)
        self.open = [self.root]
        self.events: list[Event] | None = [] if keep_events else None
        self.began = clock()

    def __call__(self, name: str) -> _Open:
        start = self.clock()  # first, so that what a span costs is in its own row
        above = self.open[-1].children
        span = above.get(name)
        if span is None:
            span = above[name] = Span(name)
        return _Open(self, span, start)

    def before(self, name: str, seconds: float) -> None:
        """Count what took place just before anything that has been counted so far."""
        self.began -= seconds
        self.root.seconds += seconds
        span = self.root.children.setdefault(name, Span(name))
        span.seconds += seconds
        span.calls += 1
        self.picture("driver", name, self.began, self.began + seconds)

    def picture(self, track: str, name: str, start_s: float, end_s: float) -> None:
        """Keep a stretch of somebody else's time for the picture; it is in no row."""
        if self.events is not None:
            self.events.append(Event(track, name, start_s, end_s - start_s))

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


class _Open:
    """A span while it is open. A class of its own: a generator would cost as much as it times."""

    __slots__ = ("span", "spans", "start")

    def __init__(self, spans: Spans, span: Span, start: float) -> None:
        self.spans, self.span, self.start = spans, span, start

    def __enter__(self) -> None:
        self.spans.open.append(self.span)

    def __exit__(self, *error: object) -> None:
        spans, span = self.spans, self.span
        spans.open.pop()
        span.calls += 1
        now = spans.clock()
        span.seconds += now - self.start
        spans.root.seconds = now - spans.began
        if spans.events is not None:
            spans.picture("driver", span.name, self.start, now)


def process_age_s() -> float:
    """Seconds since this process was started, to a kernel's tick (10 ms); 0 where not known."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, clock_gettime(CLOCK_BOOTTIME) - started_s)
