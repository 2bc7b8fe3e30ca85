"""Plain Python values as tagged JSON, and back as plain builtins. JSON only, never pickle.

A list is a JSON array; every other container is an object of one tag. An object of a subclass
becomes its builtin base, read by the base's own methods, so that no method of a program comes
along: an `__eq__` that always agrees stays where it was made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

DEEPEST = 100
MOST_NODES = 1_000_000
SAFE_INT = 1 << 63
INTS = {int}
ATOMS = {int, str, float, bool, type(None)}


class Unsendable(Exception):
    """A value is no plain data, or too deep, or too large; says which type or bound."""


class Malformed(Exception):
    """A text is not what `encode` writes."""


def dumps(value: Any) -> str:
    """One line of tagged JSON. Raises Unsendable."""
    return json.dumps(encode(value), separators=(",", ":"), allow_nan=False)


def loads(text: str | bytes) -> Any:
    """The value of a text, made of builtins alone. Raises Malformed."""
    try:
        return decode(json.loads(text))
    except (ValueError, RecursionError, TypeError, OverflowError) as error:
        raise Malformed(f"{type(error).__name__}: {str(error)[:100]}") from None


def encode(value: Any) -> Any:
    """What the json module can write. Raises Unsendable."""
    return _Encoder().encode(value, 0)


class _Encoder:
    def __init__(self) -> None:
        self.nodes = 0

    def encode(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if issubclass(kind, int):
            plain = int.__int__(value)
            return plain if -SAFE_INT < plain < SAFE_INT else {"i": hex(plain)}
        if issubclass(kind, float):
            real = float.__float__(value)
            return real if math.isfinite(real) else {"f": repr(real)}
        if issubclass(kind, str):
            return str.__str__(value)
        if issubclass(kind, complex):
            return {"c": [self.encode(value.real, 0), self.encode(value.imag, 0)]}
        if issubclass(kind, bytes | bytearray):
            return {"b" if issubclass(kind, bytes) else "y": bytes(memoryview(value)).hex()}
        if kind is range:
            return {"r": [self.encode(x, 0) for x in (value.start, value.stop, value.step)]}
        return self.container(value, kind, depth)

    def container(self, value: Any, kind: type, depth: int) -> Any:
        if depth >= DEEPEST:
            raise Unsendable(f"nested more than {DEEPEST} deep")
        if issubclass(kind, list):
            return self.items(list.__iter__(value), depth)
        if issubclass(kind, tuple):
            return {"t": self.items(tuple.__iter__(value), depth)}
        if issubclass(kind, dict):
            return {"d": [self.items(pair, depth) for pair in dict.items(value)]}
        if issubclass(kind, set):
            return {"s": self.items(set.__iter__(value), depth)}
        if issubclass(kind, frozenset):
            return {"z": self.items(frozenset.__iter__(value), depth)}
        raise Unsendable(f"a value of type {kind.__name__} is no plain data")

    def items(self, values: Any, depth: int) -> list[Any]:
        parts = list(values)
        self.nodes += len(parts)
        if self.nodes > MOST_NODES:
            raise Unsendable(f"more than {MOST_NODES} parts")
        if set(map(type, parts)) == INTS and min(parts) > -SAFE_INT and max(parts) < SAFE_INT:
            return parts  # rows of grids are most of what is sent
        return [self.encode(x, depth + 1) for x in parts]


def decode(value: Any) -> Any:
    """The builtin value that `encode` was given. Raises ValueError, TypeError."""
    if isinstance(value, list):
        return value if ATOMS.issuperset(map(type, value)) else [decode(x) for x in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError("an object of one tag was expected")
    ((tag, inner),) = value.items()
    return _tagged(tag, inner)


def _tagged(tag: str, inner: Any) -> Any:
    match tag, inner:
        case "i", str():
            return int(inner, 16)
        case "f", "nan" | "inf" | "-inf":
            return float(inner)
        case "b" | "y", str():
            return (bytes if tag == "b" else bytearray).fromhex(inner)
        case "t" | "s" | "z" | "r" | "c" | "d", list():
            return _BUILD[tag](decode(inner))
    raise ValueError(f"unknown tag {tag[:20]!r}")


_BUILD: dict[str, Callable[[list[Any]], Any]] = {
    "t": tuple,
    "s": set,
    "z": frozenset,
    "d": dict,
    "r": lambda parts: range(*parts),
    "c": lambda parts: complex(*parts),
}
