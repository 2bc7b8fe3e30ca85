"""The things that are compared: our engine in some setting, or a peer on the same weights.

An arm answers one prompt, or many at once, and says what it wrote and how long that took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import torch

from floodstage.core.protocols import Clock
from floodstage.core.types import Request, StepRecord
from floodstage.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Answer:
    """What an arm wrote. `ttft_s` None: the arm cannot tell."""

    ids: tuple[int, ...]
    text: str
    finish: str
    ttft_s: float | None
    wall_s: float
    records: tuple[StepRecord, ...] = ()


class Arm(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def lossless(self) -> bool: ...
    def answer(self, request: Request) -> Answer: ...


@dataclass(frozen=True, slots=True)
class OurArm:
    """Our engine, one sequence at a time."""

    name: str
    engine: Engine

    @property
    def lossless(self) -> bool:
        return self.engine.verifier.lossless

    def answer(self, request: Request) -> Answer:
        return self.answer_all([request], slots=1)[0][0]

    def answer_all(self, requests: Sequence[Request], *, slots: int) -> tuple[list[Answer], float]:
        """Every answer, and the seconds they took together."""
        start = perf_counter()
        done: dict[int, Answer] = {}
        for chunk in self.engine.run(requests, slots=slots):
            if (g := chunk.generation) is not None:
                done[chunk.sequence] = Answer(
                    g.ids, g.text, g.finish, g.ttft_s, g.wall_s, g.records
                )
        wall = perf_counter() - start
        return [done[i] for i in range(len(requests))], wall


@dataclass(frozen=True, slots=True)
class TransformersArm:
    """transformers' own `generate`, greedy or sampled, plain or assisted."""

    name: str
    model: Any
    engine: Engine  # for the tokenizer
    options: dict[str, Any]
    lossless: bool = True

    def answer(self, request: Request) -> Answer:
        ids = torch.tensor([request.prompt], device=self.model.device)
        clock = self.engine.clock  # waits for the device
        watch = _FirstToken(clock)
        rules: dict[str, Any] = {"do_sample": False}
        if not request.sampling.greedy:
            rules = {"do_sample": True, "temperature": request.sampling.temperature, "top_k": 0}
            torch.manual_seed(request.seed)
        start = clock()
        with torch.inference_mode():
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=request.max_new_tokens,
                eos_token_id=sorted(request.stop_ids) or None,
                pad_token_id=0,
                streamer=watch,
                **rules,
                **self.options,
            )
        wall = clock() - start
        written = tuple(out[0, len(request.prompt) :].tolist())
        stopped = bool(written) and written[-1] in request.stop_ids
        return Answer(
            written,
            self.engine.tokenizer.decode(written),
            "stop" if stopped else "length",
            None if watch.at is None else watch.at - start,
            wall,
        )


class _FirstToken:
    """A transformers streamer that only looks at the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.calls = clock, 0
        self.at: float | None = None

    def put(self, value: Any) -> None:
        self.calls += 1
        if self.calls == 2:  # the first call brings the prompt
            self.at = self.clock()

    def end(self) -> None:
        pass


def load_peer(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """The same weights in transformers, ready to generate. Takes seconds to import."""
    import transformers

    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype)
    model = model.to(device).eval()
    model.generation_config = transformers.GenerationConfig()
    return model
