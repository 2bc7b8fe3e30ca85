"""Spans as a picture: the JSON that chrome://tracing and Perfetto open. Pure; knows no file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from floodstage.core.spans import Event


def chrome_trace(events: Iterable[Event], began_s: float) -> dict[str, Any]:
    """Complete events in microseconds since `began_s`, one thread for each track, in the order
    in which the tracks were first seen."""
    threads: dict[str, int] = {}
    found: list[dict[str, Any]] = []
    for event in events:
        thread = threads.setdefault(event.track, len(threads))
        start_us = 1e6 * (event.start_s - began_s)
        found.append(
            {
                **{"name": event.name, "ph": "X", "pid": 0, "tid": thread},
                **{"ts": round(start_us, 3), "dur": round(1e6 * event.seconds, 3)},
            }
        )
    names = [
        {"name": "thread_name", "ph": "M", "pid": 0, "tid": thread, "args": {"name": track}}
        for track, thread in threads.items()
    ]
    return {"traceEvents": [*names, *found], "displayTimeUnit": "ms"}
