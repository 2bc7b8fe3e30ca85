"""A process that is warm: it has imported what programs import, and forks a child for each.

It never sees a program: a child reads its own from a pipe, after it has locked itself up, so
nothing of one program is left for the next. One child at a time; whatever a child leaves behind is
killed before the next one.
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from floodstage.programs.sandbox import kernel
from floodstage.programs.sandbox.family import sweep
from floodstage.programs.sandbox.lockdown import Cell, Level, prepare_cell
from floodstage.programs.sandbox.wire import Order, pack, unpack

WARM = (
    "abc array base64 binascii bisect calendar cmath collections collections.abc contextlib copy "
    "dataclasses datetime decimal enum fractions functools hashlib heapq io itertools json math "
    "numbers operator pprint random re statistics string struct textwrap time traceback types "
    "typing unicodedata zlib"
)
"""What programs commonly import. Extension modules are loaded here, as no others can be later."""
MOST_DESCRIPTORS = 64
FIRST = 3
"""The number of a child's first descriptor behind the standard ones."""

Child: TypeAlias = Callable[[Sequence[int]], None]
"""What a locked child does with the descriptors it was given: program, result, more."""


def serve(control: socket.socket, level: Level, preload: Sequence[str], child: Child) -> NoReturn:
    """Be a zygote until the engine hangs up. `preload` are files of trusted modules."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    try:
        _warm(preload)
        cell = prepare_cell(level)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    except BaseException as error:
        control.send(pack({"fault": f"{type(error).__name__}: {error}"}))
        os._exit(1)
    control.send(pack({"ready": os.getpid()}))
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 4096, MOST_DESCRIPTORS)
        if not message:
            os._exit(0)
        order = unpack(message, Order)
        pid = os.fork()
        if pid == 0:
            _become(cell, order, descriptors, child)
        for descriptor in descriptors:
            os.close(descriptor)
        handle = os.pidfd_open(pid)
        socket.send_fds(control, [pack({"pid": pid})], [handle])
        os.close(handle)
        _, status, usage = os.wait4(pid, 0)
        sweep()
        ended = {
            "status": os.waitstatus_to_exitcode(status),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "rss_bytes": usage.ru_maxrss * 1024,
        }
        control.send(pack(ended))


def _warm(preload: Sequence[str]) -> None:
    """Import and freeze, so that every child begins alike."""
    for name in WARM.split():
        importlib.import_module(name)
    places = list(dict.fromkeys(str(Path(path).resolve().parent) for path in preload))
    sys.path[:0] = places
    for path in preload:
        importlib.import_module(Path(path).stem)
    ours = str(Path(__file__).parents[3])
    sys.path[:] = [place for place in sys.path if place not in {*places, ours}]
    time.tzset()
    gc.collect()
    gc.freeze()


def _become(cell: Cell, order: Order, descriptors: list[int], child: Child) -> NoReturn:
    """The child's whole life. The first descriptor is its standard output and error, the rest
    become 3, 4 and so on: they come in rising order, so none is overwritten before its move.
    Every page that is touched here is copied for every program, so as little as can be is."""
    try:
        os.dup2(descriptors[0], 1)
        os.dup2(descriptors[0], 2)
        for new, old in enumerate(descriptors[1:], FIRST):
            os.dup2(old, new)
        end = FIRST + len(descriptors) - 1
        os.closerange(end, 1 << 16)
        result = FIRST + 1
        try:
            cell.close(order.memory_bytes, order.cpu_s)
        except BaseException as error:
            os.write(result, pack({"lockdown": f"{type(error).__name__}: {error}"}) + b"\n")
            os._exit(1)
        os.write(result, b'{"ready":%r}\n' % time.process_time())
        random.seed(0)  # the module seeds itself anew after a fork
        child(range(FIRST, end))
    finally:
        os._exit(0)
