"""The limits, held from outside while children run: CPU time decides, idle time is the backstop.

CPU time is read from the kernel's clock of the child, so a busy machine costs a program nothing. A
child that for `idle_s` neither computed nor waited for a core is idle and stopped as well.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from floodstage.programs.sandbox.ward import START_S, EngineFault, Ward

STARVED = 30.0
"""So many times its idle limit may a child take on a busy machine before we give up on it."""
LONGEST_NAP_S = 1.0
GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class DriverGone(Exception):
    """Nobody waits for the result any more."""


class Watch:
    """Children that belong together: one candidate, or a candidate and its checks."""

    def __init__(self, driver: int, wards: list[Ward], idle_s: float) -> None:
        self.driver, self.wards, self.idle_s = driver, wards, idle_s
        self.marked_s = time.monotonic()

    def run(self, progress: Callable[[], bool]) -> None:
        """Until all is said: `progress` is called whenever something was read, and says so.
        Raises EngineFault, DriverGone."""
        while not progress():
            self._wait([ward for ward in self.wards if ward.ended is None])

    def mark(self) -> None:
        """The limits count anew from here."""
        self.marked_s = time.monotonic()
        for ward in self.wards:
            ward.mark_cpu_s, ward.mark_waited_s = ward.cpu_s(), ward.waited_s()

    def _wait(self, living: list[Ward]) -> None:
        poll = select.poll()
        poll.register(self.driver, getattr(select, "POLLRDHUP", 0))
        actions: dict[int, Callable[[], None]] = {}
        for ward in living:
            for descriptor, act in ward.sources().items():
                poll.register(descriptor, select.POLLIN)
                actions[descriptor] = act
            if ward.rest:
                poll.register(ward.program, select.POLLOUT)
                actions[ward.program] = ward.feed
        events = dict(poll.poll(1000 * self._hold(living)))
        if events.pop(self.driver, 0) & GONE:
            raise DriverGone
        for descriptor, act in actions.items():  # output before result before the end
            if descriptor in events:
                act()

    def _hold(self, living: list[Ward]) -> float:
        """Kill what is over its limits; the seconds until it is worth looking again."""
        now = time.monotonic()
        nap = LONGEST_NAP_S
        for ward in living:
            if ward.ready_s is None:
                if now - ward.forked_s > START_S:
                    raise EngineFault(f"a child did not start within {START_S} s")
                continue
            left = ward.limits.cpu_s - (ward.cpu_s() - ward.mark_cpu_s)
            if left <= 0:
                ward.kill("cpu")
            nap = min(nap, max(left, 0.001))
        return min(nap, self._hold_idle(living, now))

    def _hold_idle(self, living: list[Ward], now: float) -> float:
        starts = [ward.ready_s for ward in self.wards]
        if None in starts:
            return LONGEST_NAP_S
        wall_s = now - max(self.marked_s, *(s for s in starts if s is not None))
        if wall_s < self.idle_s:
            return self.idle_s - wall_s
        busy = [
            w.cpu_s() - w.mark_cpu_s + (w.waited_s() - w.mark_waited_s if w in living else 0.0)
            for w in self.wards
        ]
        idle_s = wall_s - sum(busy)
        if idle_s >= self.idle_s:
            for ward in living:
                ward.kill("idle")
        elif wall_s > STARVED * self.idle_s:
            raise EngineFault(f"the machine gave a program no time within {wall_s:.0f} s")
        return max(self.idle_s - idle_s, 0.001)
