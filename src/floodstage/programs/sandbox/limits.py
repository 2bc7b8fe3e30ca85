"""What a program may use. Knows no process."""

from __future__ import annotations

from dataclasses import dataclass

from floodstage.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`cpu_s` is for each sample of a task, or for all its checks, and decides; a program that
    neither computes nor waits for a core for `idle_s` is stopped as well. `memory_bytes` comes on
    top of the interpreter's own; `output_bytes` is what may be printed, `result_bytes` a value."""

    cpu_s: float = 1.0
    idle_s: float = 5.0
    memory_bytes: int = 256 << 20
    output_bytes: int = 1 << 20
    result_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        for name, least in (("cpu_s", 0.01), ("idle_s", 0.05), ("memory_bytes", 1 << 20),
                            ("output_bytes", 1), ("result_bytes", 64)):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)!r}.")
