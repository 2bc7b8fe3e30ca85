"""Every error raised on purpose.

Error
├── ConfigError            a setting is unknown, missing or out of range (also a ValueError)
├── CheckpointError        a file of a model is missing, truncated, corrupt or of another shape
├── ModelError             a model cannot do what was asked of it
│   ├── PairingError       a drafter and a target do not belong together
│   ├── ContextError       a text is longer than a model or its cache can hold
│   └── RollbackError      a state was asked to go back past what it holds
├── RunError               a run folder or a record in it cannot be used
├── InputError             a file of tasks or of programs cannot be read (says file and line)
└── SandboxError           programs cannot be run apart from the machine as safely as was asked

A message says what was given (`!r`), what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Error(Exception):
    """Base of every error raised on purpose by floodstage."""


class ConfigError(Error, ValueError):
    """A setting is unknown, missing or out of range."""


class CheckpointError(Error):
    """A file of a model is missing, truncated, corrupt or of another shape."""


class ModelError(Error):
    """A model cannot do what was asked of it."""


class PairingError(ModelError):
    """A drafter and a target do not belong together."""


class ContextError(ModelError):
    """A text is longer than a model, or the cache made for it, can hold."""


class RollbackError(ModelError):
    """A state was asked to go back past what it holds."""


class RunError(Error):
    """A run folder or a record in it cannot be used."""


class InputError(Error):
    """A file of tasks or of programs cannot be read."""


class SandboxError(Error):
    """Programs cannot be run apart from the machine as safely as was asked."""


def unknown(kind: str, given: str, known: Iterable[str]) -> ConfigError:
    """A ConfigError for a name nobody knows, with the nearest known name and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"Unknown {kind} {given!r}.{hint} Known: {', '.join(names) or 'none'}.")
