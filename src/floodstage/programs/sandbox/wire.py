"""What crosses between driver, engine, zygote and child: JSON objects, their frames, the orders.

Every record here is trusted on one side only: what comes from a child is looked at key by key by
who reads it.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

FRAME = struct.Struct("!I")
FORGET = b'{"forget":'
"""How a payload begins that takes jobs back, by their ids."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Order:
    """Engine to zygote: fork a child with so much memory and CPU time, all in all."""

    memory_bytes: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Setup:
    """Driver to engine, once: the level to reach and the trusted modules to preload."""

    level: str
    preload: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """Driver to engine: a program and what is done with it.

    `inputs` of a data job are the tagged arguments of each sample. Expected outputs are not here.
    `stop` ends the job at the first sample that uses up a limit or crashes. `apart`: its samples
    may run in processes of their own, so a long job may be handed back with the rest undone.
    """

    id: int
    source: str
    entries: tuple[str, ...]
    limits: dict[str, Any]
    inputs: tuple[Any, ...] = ()
    stop: bool = True
    prompt: str = ""
    checks: str | None = None  # not None: a split job
    calls_check: bool = True
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """Engine to driver: the trials of a job, as keyword arguments of `records.Trial`, fewer than
    samples where the rest is handed back; or why the engine itself failed, whereupon it ends.

    `began_s` and `ended_s` are on the node's monotonic clock; `killing_s` is how much of it passed
    between SIGKILLs and their ends.
    """

    id: int
    trials: list[dict[str, Any]] = field(default_factory=list)
    began_s: float = 0.0
    ended_s: float = 0.0
    killing_s: float = 0.0
    fault: str = ""

    @property
    def busy_s(self) -> float:
        return self.ended_s - self.began_s


def shallow(record: Job | Reply | Order) -> dict[str, Any]:
    """The fields of a record as they are: `asdict` would copy every grid."""
    return {f.name: getattr(record, f.name) for f in fields(record)}


def pack(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def unpack(text: bytes | bytearray, kind: type[T]) -> T:
    """A record of one of the kinds above, from trusted bytes."""
    return kind(**json.loads(text))


def frame(payload: bytes) -> bytes:
    return FRAME.pack(len(payload)) + payload


def take_frame(buffer: bytearray) -> bytes | None:
    """The first whole frame, taken off the buffer; None if there is none yet."""
    if len(buffer) < FRAME.size:
        return None
    (size,) = FRAME.unpack_from(buffer)
    if len(buffer) < FRAME.size + size:
        return None
    payload = bytes(buffer[FRAME.size : FRAME.size + size])
    del buffer[: FRAME.size + size]
    return payload
