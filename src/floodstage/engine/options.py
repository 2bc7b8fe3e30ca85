"""What a person may ask of one generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from floodstage.core.errors import ConfigError, unknown
from floodstage.core.types import Sampling

DEFAULT_NEW_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`max_new_tokens` None is DEFAULT_NEW_TOKENS or what the context leaves, if less.
    `chat` None uses the model's chat template if it has one."""

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    chat: bool | None = None
    ignore_eos: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """From keyword arguments. Raises ConfigError for an unknown one, with a suggestion."""
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                raise unknown("option", name, known)
        stop = given.get("stop", ())
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in stops:
            raise ConfigError("A stop string is empty: it would stop before the first token.")
        return cls(**{**given, "stop": stops})

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
        )
