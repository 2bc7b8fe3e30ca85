"""The checks' process, seen from the engine: it stays for some programs, then a new one comes.

To fork one for each program would double what a verdict costs. Every program still has its own
pair of pipes, made before the process was locked up, so nothing that one leaves is read as another
one's answer.
"""

from __future__ import annotations

import os
import select
from collections import deque
from contextlib import suppress
from dataclasses import replace

from floodstage.programs.sandbox.limits import Limits
from floodstage.programs.sandbox.ward import Ward, Zygote
from floodstage.programs.sandbox.wire import Job, pack

SHIFT = 16
"""So many programs are served by one process."""
CHECKS_CPU = 5.0
"""The checks may use so many times the candidate's CPU time, and a second."""


class Checker:
    """What checks programs, on a zygote of its own."""

    def __init__(self, zygote: Zygote) -> None:
        self.zygote = zygote
        self.ward: Ward | None = None
        self.limits: Limits | None = None
        self.ends = deque[tuple[int, int]]()

    def begin(self, job: Job, limits: Limits) -> tuple[Ward, tuple[int, int]]:
        """Start on the checks of a job: their process, and the two ends that are the candidate's,
        for the caller to close. Raises EngineFault."""
        checks = {
            **{"prompt": job.prompt, "checks": job.checks, "entries": job.entries},
            **{"calls_check": job.calls_check, "result_bytes": limits.result_bytes},
        }
        if self.ward is None or self.limits != limits or self._has_died():
            self.end()
            self.ward, self.limits = self._start(limits), limits
        ward = self.ward
        ward.printed_bytes = 0
        ward.mark_cpu_s, ward.mark_waited_s = ward.cpu_s(), ward.waited_s()
        ward.give(pack(checks) + b"\n")
        return ward, self.ends.popleft()

    def done(self, ward: Ward) -> None:
        """A job is over; `ward` stays if it is fit for another one."""
        if ward.ended is not None or ward.killed_s is not None or ward.rest or not self.ends:
            self.end()

    @property
    def fresh(self) -> bool:
        """Whether the process has served no more than one program."""
        return self.ward is None or len(self.ends) >= SHIFT - 1

    def _has_died(self) -> bool:
        """Whether the process has ended by itself since its last program."""
        return bool(select.select([self.zygote.control], [], [], 0)[0])

    def end(self) -> None:
        """Let the process go. Raises EngineFault."""
        for end in self.ends:
            _close(*end)
        self.ends.clear()
        if self.ward is not None:
            ward, self.ward = self.ward, None
            try:
                ward.end()
            finally:
                ward.close()

    def _start(self, limits: Limits) -> Ward:
        patient = replace(limits, cpu_s=CHECKS_CPU * limits.cpu_s + 1.0)
        talk: list[int] = []
        try:
            for _ in range(SHIFT):
                asked, asking = os.pipe2(os.O_CLOEXEC)
                answer, answering = os.pipe2(os.O_CLOEXEC)
                talk += (asking, answer)
                self.ends.append((asked, answering))
            total_cpu_s, lines = SHIFT * patient.cpu_s, SHIFT + 1
            return Ward(self.zygote, b"", patient, talk, total_cpu_s=total_cpu_s,
                        most_lines=lines, stays=True)  # fmt: skip
        finally:
            _close(*talk)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
