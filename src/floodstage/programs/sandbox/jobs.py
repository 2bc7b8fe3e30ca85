"""The two kinds of job: data (call the function on each sample) and split (let checks call it)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import Any

from floodstage.programs.records import Kind
from floodstage.programs.sandbox.checker import Checker
from floodstage.programs.sandbox.endings import Trial, ending, told, trial, undefined
from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.ward import EngineFault, Ward, Zygote
from floodstage.programs.sandbox.watch import Watch
from floodstage.programs.sandbox.wire import Job, pack

COSTLY = frozenset({Kind.TIMEOUT, Kind.MEMORY, Kind.CRASH, Kind.OUTPUT_LIMIT})
"""Endings that stop a job where it is told to stop."""
SLICE_S = 0.1
"""A job whose samples may run apart is handed back after so much time, with what is left of it."""


def run_data(job: Job, zygote: Zygote, driver: int) -> list[Trial]:
    """One trial for each sample. A child that dies at a sample is followed by another one for the
    rest, unless the job stops there. Of a job that has used up its slice the trials so far.
    Raises EngineFault, DriverGone."""
    limits, began_s = Limits(**job.limits), time.monotonic()
    left = list(enumerate(job.inputs))
    trials: list[Trial] = []
    while left:
        found = _some_samples(job, limits, left, zygote, driver)
        trials += found
        left = left[len(found) :]
        if job.stop and (costly := first_costly(found)) is not None:
            return trials + not_run(found[costly], len(left))
        if job.apart and time.monotonic() - began_s >= SLICE_S:
            break
    return trials


def first_costly(trials: Sequence[Trial]) -> int | None:
    """The position of the first trial that stops a job."""
    return next((i for i, t in enumerate(trials) if t["kind"] in COSTLY), None)


def not_run(after: Trial, count: int) -> list[Trial]:
    """The trials of the samples that a costly one left out."""
    return [trial(Kind.NOT_RUN, f"not run after {after['kind']}") for _ in range(count)]


def _some_samples(
    job: Job, limits: Limits, left: list[tuple[int, Any]], zygote: Zygote, driver: int
) -> list[Trial]:
    """The trials of the samples from the first of `left` on that one child gets through."""
    payload = pack({"source": job.source, "entries": job.entries, "inputs": left})
    cpu_s = limits.cpu_s * len(left)
    ward = Ward(zygote, payload, limits, total_cpu_s=cpu_s, most_lines=len(left) + 1)
    watch = Watch(driver, [ward], limits.idle_s)
    trials: list[Trial] = []

    def progress() -> bool:
        while ward.lines and len(trials) < len(left) and not ward.over:
            line = ward.lines.pop(0)
            if not trials and (fault := undefined(line)):
                trials.extend({**fault, **_spent(ward, watch)} for _ in left)
            elif (found := told(line, left[len(trials)][0])) is not None:
                trials.append({**found, **_spent(ward, watch)})
                if len(trials) < len(left) and (_stops(job, found) or _sliced(job, ward)):
                    ward.kill("done")
            else:
                ward.kill("protocol")
        ward.all_said = len(trials) == len(left)
        return ward.ended is not None

    try:
        watch.run(progress)
        if len(trials) < len(left) and ward.over != "done":
            trials.append({**ending(ward), **_spent(ward, watch)})
        elif ward.over == "output":  # what it printed was read after what it gave
            trials[-1].update(ending(ward))
    finally:
        ward.close()
    rss_bytes = ward.ended.rss_bytes if ward.ended else 0
    return [{**found, "rss_bytes": rss_bytes} for found in trials]


def _stops(job: Job, found: Trial) -> bool:
    return job.stop and found["kind"] in COSTLY


def _sliced(job: Job, ward: Ward) -> bool:
    ready_s = ward.ready_s
    return job.apart and ready_s is not None and time.monotonic() - ready_s >= SLICE_S


def _spent(ward: Ward, watch: Watch) -> Trial:
    """What was spent since the last mark, and a new mark."""
    now, cpu_s = time.monotonic(), ward.cpu_s()
    ready_s = ward.ready_s if ward.ready_s is not None else now
    first = watch.marked_s <= ready_s
    spent = {
        "cpu_s": max(0.0, cpu_s - ward.mark_cpu_s),
        "start_s": ready_s - ward.forked_s if first else 0.0,
        "run_s": now - max(ready_s, watch.marked_s),
    }
    watch.mark()
    return spent


def run_split(job: Job, zygote: Zygote, checker: Checker, driver: int) -> list[Trial]:
    """The one trial of a program under its checks. Raises EngineFault, DriverGone."""
    limits = Limits(**job.limits)
    program = pack({"source": job.source, "entries": job.entries})
    judge, talk = checker.begin(job, limits)
    try:
        candidate = Ward(zygote, program, limits, talk, total_cpu_s=limits.cpu_s, most_lines=1)
    finally:
        for descriptor in talk:
            os.close(descriptor)
    found: Trial = {}

    def progress() -> bool:
        if not found and judge.lines:
            found.update(json.loads(judge.lines.pop())["checked"])  # no candidate has this pipe
        told = bool(found) or judge.ended is not None
        if told and candidate.ready_s is not None and found.get("kind") != "gone":
            candidate.kill("done")  # else it has ended by itself, or its limits will end it
        return told and candidate.ended is not None

    try:
        Watch(driver, [candidate, judge], limits.idle_s).run(progress)
        spent, fresh = _spent_split(candidate), checker.fresh
        checker.done(judge)
    finally:
        candidate.close()
    if found.get("kind") == "exhausted":
        checker.end()
        if not fresh:  # what programs before this one gave may have used the memory up
            return run_split(job, zygote, checker, driver)
    return [{**_judged(candidate, judge, found), **spent}]


def _spent_split(candidate: Ward) -> Trial:
    now = time.monotonic()
    ready_s = candidate.ready_s or now
    return {
        "cpu_s": max(0.0, candidate.cpu_s() - candidate.start_cpu_s),
        "start_s": ready_s - candidate.forked_s,
        "run_s": now - ready_s,
        "rss_bytes": candidate.ended.rss_bytes if candidate.ended else 0,
    }


def _judged(candidate: Ward, judge: Ward, found: Trial) -> Trial:
    """What the checks said, unless the candidate was stopped or left before they had a say."""
    if candidate.over not in ("", "done"):
        return ending(candidate)
    if not found and judge.over in ("cpu", "idle"):
        return trial(Kind.TIMEOUT, "the checks took too long over its answers")
    if not found:
        status = judge.ended.status if judge.ended else 0
        raise EngineFault(f"the checks ended with status {status} and said nothing")
    kind = found["kind"]
    if kind != "gone":
        if kind == "exhausted" or (kind == "exception" and found["error"] == "MemoryError"):
            kind = Kind.MEMORY
        return {"detail": "", **found, "kind": kind}
    if candidate.lines and (fault := undefined(candidate.lines[0])):
        return fault
    return ending(candidate)
