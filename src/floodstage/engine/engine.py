"""A target, a drafter and what belongs to them, ready to continue texts.

engine = floodstage.load("math-mini")
for chunk in engine.stream("Tom has 17 boxes of 24 pens."):
    print(chunk.text, end="")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from floodstage.core import metrics
from floodstage.core.errors import ContextError
from floodstage.core.protocols import Clock, Drafter, Scheduler, Target, Verifier
from floodstage.core.types import Request, Step, StepRecord, TokenIds
from floodstage.decoding.loop import Decoder, decode
from floodstage.engine.options import DEFAULT_NEW_TOKENS, Options
from floodstage.engine.writing import Piece, Writer
from floodstage.text.tokenizer import Prompt, Tokenizer


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished text and what it cost.

    `ttft_s` is the time to the first token (the prompt's pass); the clock then runs on, never
    restarted, to the last token at `wall_s`.
    """

    prompt_ids: TokenIds
    ids: TokenIds
    text: str
    finish: str  # "stop" or "length"
    records: tuple[StepRecord, ...]
    ttft_s: float
    wall_s: float

    @property
    def tau(self) -> float:
        """Mean tokens per target pass, bonus included."""
        return metrics.tau(self.records)

    @property
    def tokens_per_s(self) -> float:
        return len(self.ids) / self.wall_s

    @property
    def tpot_s(self) -> float:
        """Seconds per token after the first."""
        return (self.wall_s - self.ttft_s) / max(1, len(self.ids) - 1)

    @property
    def acceptance_by_position(self) -> list[float]:
        return metrics.acceptance_by_position(self.records)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one cycle added to one text. The last chunk of a text carries its `generation`."""

    sequence: int
    pieces: tuple[Piece, ...]
    record: StepRecord
    generation: Generation | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


@dataclass(slots=True)
class _Open:
    """A sequence in the making."""

    request: Request
    writer: Writer
    start: float
    first: float = 0.0
    records: list[StepRecord] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Engine:
    """Continues texts. Made by `build.load`; holds no state between calls but what a scheduler
    learns."""

    name: str
    target: Target
    tokenizer: Tokenizer
    drafter: Drafter
    verifier: Verifier
    scheduler: Scheduler
    clock: Clock = perf_counter

    def stream(self, prompt: Prompt, **options: Any) -> Iterator[Chunk]:
        """Continue `prompt`; a chunk per cycle as it comes. Options: `engine.options.Options`."""
        chosen = Options.of(options)
        yield from self.run([self.request(prompt, chosen)], stop=chosen.stop)

    def generate(self, prompt: Prompt, **options: Any) -> Generation:
        """Continue `prompt` to its end."""
        return self.generate_batch([prompt], **options)[0]

    def generate_batch(
        self, prompts: Sequence[Prompt], *, slots: int = 8, **options: Any
    ) -> list[Generation]:
        """Continue every prompt, up to `slots` at once; each gets what it would get alone."""
        chosen = Options.of(options)
        requests = [self.request(prompt, chosen) for prompt in prompts]
        done: dict[int, Generation] = {}
        for chunk in self.run(requests, stop=chosen.stop, slots=slots):
            if chunk.generation is not None:
                done[chunk.sequence] = chunk.generation
        return [done[i] for i in range(len(prompts))]

    def request(self, prompt: Prompt, options: Options) -> Request:
        """A text or a conversation in tokens, checked against the context. Raises ContextError,
        ConfigError."""
        ids = self.tokenizer.prompt(prompt, chat=options.chat)
        room = self.target.context - len(ids)
        if room < 1:
            raise ContextError(
                f"The prompt has {len(ids)} tokens, but the model's context is "
                f"{self.target.context}: shorten the prompt."
            )
        wanted = options.max_new_tokens
        if wanted is not None and wanted > room:
            raise ContextError(
                f"max_new_tokens {wanted} and the prompt's {len(ids)} tokens exceed the model's "
                f"context of {self.target.context}: at most {room} fit."
            )
        return Request(
            prompt=ids,
            max_new_tokens=min(DEFAULT_NEW_TOKENS, room) if wanted is None else wanted,
            sampling=options.sampling,
            stop_ids=frozenset() if options.ignore_eos else frozenset(self.tokenizer.eos),
            seed=options.seed,
        )

    def steps(self, request: Request) -> Iterator[Step]:
        """The loop's own steps for one request: tokens, no text."""
        return decode(
            self.target,
            self.drafter,
            self.verifier,
            self.scheduler,
            [request],
            clock=self.clock,
        )

    def run(
        self, requests: Sequence[Request], *, stop: Sequence[str] = (), slots: int = 1
    ) -> Iterator[Chunk]:
        """The chunks of many requests as they come; sequence i is `requests[i]`."""
        decoder = Decoder(
            self.target,
            self.drafter,
            self.verifier,
            self.scheduler,
            slots=max(1, min(slots, len(requests))),
            capacity=max((len(r.prompt) + r.max_new_tokens for r in requests), default=1),
            clock=self.clock,
        )
        waiting = list(reversed(requests))
        texts: dict[int, _Open] = {}
        while waiting or decoder.live:
            while waiting and not decoder.full:
                request = waiting.pop()
                start = self.clock()
                step = decoder.join(request)
                writer = Writer.of(self.tokenizer, stop)
                texts[step.sequence] = _Open(request, writer, start, self.clock())
                yield self._chunk(decoder, texts, step)
            for step in decoder.cycle() if decoder.live else ():
                yield self._chunk(decoder, texts, step)

    def _chunk(self, decoder: Decoder, texts: dict[int, _Open], step: Step) -> Chunk:
        open_ = texts[step.sequence]
        pieces = tuple(open_.writer.take(step))
        open_.records.append(step.record)
        generation = None
        if open_.writer.finish is not None:
            decoder.drop(step.sequence)  # a stop string, which the loop knows nothing of
            del texts[step.sequence]
            generation = Generation(
                open_.request.prompt,
                tuple(open_.writer.ids),
                open_.writer.text,
                open_.writer.finish,
                tuple(open_.records),
                open_.first - open_.start,
                self.clock() - open_.start,
            )
        return Chunk(step.sequence, pieces, step.record, generation)
