"""One word for a policy and its settings: `ewma`, `ewma(alpha=0.2)`, `rolling(block_sizes=4/8/16)`.

Settings are the keyword arguments of what the name stands for, separated by `;` (a comma already
separates arms), tuples by `/`. Unknown ones are errors with a suggestion.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, get_type_hints

from floodstage.core.errors import ConfigError, unknown

T = TypeVar("T")
_NOT_SETTINGS = ("name", "needs_confidence", "device", "taps", "draft_len")
"""Parameters with a default that are no policy's to choose; a draft length has its own option."""
_SPEC = re.compile(r"([\w-]+)(?:\((.*)\))?", re.DOTALL)


def make(kind: str, text: str, known: Mapping[str, Callable[..., T]], *args: Any) -> T:
    """What `text` says: the entry of `known` called with `args` and its settings.

    Raises ConfigError for an unknown name or setting, or a value of another type.
    """
    name, given = split(text)
    if name not in known:
        raise unknown(kind, name, known)
    return known[name](*args, **settings(f"setting of {name!r}", known[name], given))


def settings(kind: str, maker: Callable[..., Any], given: Mapping[str, str]) -> dict[str, Any]:
    """The given words as values of the types that `maker` declares for its keyword arguments."""
    whole = maker.func if isinstance(maker, partial) else maker
    hints = get_type_hints(vars(whole)["__init__"] if isinstance(whole, type) else whole)
    names = [
        name
        for name, p in inspect.signature(maker).parameters.items()
        if p.default is not inspect.Parameter.empty and name not in _NOT_SETTINGS
    ]
    out: dict[str, Any] = {}
    for key, word in given.items():
        if key not in names:
            raise unknown(kind, key, names)
        out[key] = _value(key, word, hints[key])
    return out


def split(text: str) -> tuple[str, dict[str, str]]:
    """The name and the given settings, as words."""
    found = _SPEC.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"Expected a name, or name(key=value;key=value), got {text!r}.")
    given: dict[str, str] = {}
    for part in filter(None, (found[2] or "").split(";")):
        key, equals, word = part.partition("=")
        if not equals:
            raise ConfigError(f"Expected key=value in {text!r}, got {part!r}.")
        given[key.strip()] = word.strip()
    return found[1], given


def _value(key: str, word: str, kind: Any) -> Any:
    inner = {tuple[int, ...]: int, tuple[float, ...]: float}.get(kind)
    try:
        if inner is not None:
            return tuple(inner(part) for part in word.split("/"))
        if kind is bool:
            return {"true": True, "false": False}[word.lower()]
        return kind(word)
    except (ValueError, KeyError) as error:
        wanted = "true or false" if kind is bool else getattr(kind, "__name__", str(kind))
        raise ConfigError(f"{key} must be {wanted}, got {word!r}.") from error
