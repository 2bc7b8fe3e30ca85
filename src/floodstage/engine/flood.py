"""A flood: a manager writes roots, one after another or speculated; a renderer turns them into
text, many at once.

flood = floodstage.load_flood()
for piece in flood.stream("Tom has 17 boxes of 24 pens.", roots=200):
    print(piece.text, end="")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from floodstage.core import metrics
from floodstage.core.errors import ConfigError, ContextError, PairingError
from floodstage.core.spans import SpanRow, Spans
from floodstage.core.types import Request, StepRecord
from floodstage.decoding.draws import Drawing, Memory
from floodstage.decoding.flood import FloodDecoder
from floodstage.engine.build import EngineConfig, build, configured, find_model
from floodstage.engine.device import clock_of, dtype_of, prepare
from floodstage.engine.engine import Engine
from floodstage.engine.options import Options
from floodstage.models.fractal import Renderer
from floodstage.models.load import load_renderer
from floodstage.text.hierarchy import BYTES, SPECIAL, Hierarchy
from floodstage.text.tokenizer import Prompt

BETWEEN = "\n\n"
"""Between texts: what the manager's end of a text is written as where it goes on."""


@dataclass(frozen=True, slots=True)
class FloodGeneration:
    """A finished flood and what it cost."""

    text: str
    roots: tuple[int, ...]  # the manager's tokens, its ends of text among them
    finish: str  # "stop" or "length"
    energies: tuple[float, ...]  # of the root draws that were kept
    draws: int  # that were made: equal parents once
    records: tuple[StepRecord, ...]  # of the manager's cycles
    spans: tuple[SpanRow, ...]  # whose self times sum to wall_s

    @property
    def wall_s(self) -> float:
        return self.spans[0].seconds

    @property
    def tau(self) -> float:
        """Mean roots per pass of the manager, bonus included."""
        return metrics.tau(self.records)

    @property
    def roots_per_s(self) -> float:
        return len(self.roots) / self.wall_s


@dataclass(frozen=True, slots=True)
class FloodPiece:
    """Text that became certain. The last piece carries the `generation`."""

    text: str
    generation: FloodGeneration | None = None


@dataclass(slots=True)
class _Text:
    """What is rendered so far. Bytes of an unfinished character are held back."""

    hierarchy: Hierarchy
    text: str = ""
    held: list[int] = field(default_factory=list)

    def take(self, chars: Sequence[int], *, last: bool) -> str:
        """The text that `chars` make certain."""
        ids = [*self.held, *chars]
        end = len(ids)
        while not last and end and ids[end - 1] < BYTES:
            end -= 1
        self.held = ids[end:]
        return self.give(self.hierarchy.text(ids[:end]))

    def give(self, text: str) -> str:
        self.text += text
        return text


@dataclass(frozen=True, slots=True)
class Flood:
    """A manager and a renderer of the same roots. Made by `load_flood`."""

    manager: Engine
    renderer: Renderer
    hierarchy: Hierarchy

    def decoder(self, drawing: Drawing | None = None, **settings: Any) -> FloodDecoder:
        """A decoder over this renderer; see `FloodDecoder` for the settings."""
        settings = {"clock": self.manager.clock} | settings
        return FloodDecoder(self.renderer, self.hierarchy, drawing, **settings)

    def plan(self, prompt: Prompt | None, roots: int, options: Options) -> Request:
        """What the manager is asked for: up to `roots` roots after `prompt`. Without a prompt it
        begins a text of its own and goes on, text after text, to exactly `roots`.

        Raises ContextError, ConfigError.
        """
        asked = replace(
            options, max_new_tokens=roots, ignore_eos=options.ignore_eos or prompt is None
        )
        if prompt is not None:
            return self.manager.request(prompt, asked)
        start = self.manager.request("\n", asked)  # checks all but the prompt
        before = self.hierarchy.before
        if len(before) + roots > self.manager.target.context:
            raise ContextError(
                f"{roots} roots exceed the manager's context of {self.manager.target.context}, of "
                f"which {len(before)} hold the end of a text before: ask for fewer."
            )
        return replace(start, prompt=before)

    def stream(
        self,
        prompt: Prompt | None = None,
        *,
        roots: int = 200,
        group: int = 0,
        drawing: Drawing | None = None,
        **options: Any,
    ) -> Iterator[FloodPiece]:
        """Text as soon as its roots are rendered: `group` roots at a time, 0 all at once.

        Options are those of `engine.options.Options`, but for stop strings: they are the manager's.
        """
        if roots < 1 or group < 0:
            raise ConfigError(f"Expected roots >= 1 and group >= 0, got {roots!r} and {group!r}.")
        chosen = Options.of(options)
        if chosen.stop or chosen.max_new_tokens is not None:
            raise ConfigError("A flood takes `roots` for max_new_tokens, and no stop strings.")
        request = self.plan(prompt, roots, chosen)
        spans = Spans(self.manager.clock)
        decoder = self.decoder(drawing, spans=spans)
        memory = Memory.of(self.renderer)
        text = _Text(self.hierarchy)
        written: list[int] = []
        energies: list[float] = []
        records: list[StepRecord] = []
        done = 0
        finish: str | None = None
        steps = self.manager.steps(request)
        while finish is None:
            with spans("manager"):
                step = next(steps)
            written += step.tokens
            records.append(step.record)
            finish = step.finish
            while finish is None and group and len(written) - done >= group:
                piece = self._render(
                    written[done : done + group], decoder, memory, text, energies, spans, last=False
                )
                done += group
                given = spans.clock()
                yield FloodPiece(piece)
                spans.leave_out(spans.clock() - given)
        piece = self._render(written[done:], decoder, memory, text, energies, spans, last=True)
        spans.stop()
        yield FloodPiece(
            piece,
            FloodGeneration(
                text.text,
                tuple(written),
                finish,
                tuple(energies),
                decoder.drawn,
                tuple(records),
                tuple(spans.rows()),
            ),
        )

    def generate(self, prompt: Prompt | None = None, **settings: Any) -> FloodGeneration:
        """The whole flood at once; settings as for `stream`."""
        *_, last = self.stream(prompt, **settings)
        assert last.generation is not None
        return last.generation

    def _render(
        self,
        tokens: Sequence[int],
        decoder: FloodDecoder,
        memory: Memory,
        text: _Text,
        energies: list[float],
        spans: Spans,
        *,
        last: bool,
    ) -> str:
        """The text of some of the manager's tokens."""
        with spans("render"):
            rendering = decoder.render([t - SPECIAL for t in tokens if t >= SPECIAL], memory=memory)
            with spans("detokenise"):
                energies += rendering.energies[0].tolist()
                pieces = iter(rendering.pieces)
                out = ""
                for i, token in enumerate(tokens):
                    ends = last and i == len(tokens) - 1
                    if token >= SPECIAL:
                        out += text.take(next(pieces), last=ends)
                    elif not ends:
                        out += text.take([], last=True) + text.give(BETWEEN)
                if last:
                    out += text.take([], last=True)
            return out


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodConfig(EngineConfig):
    """The settings of `build.EngineConfig`, the target being the manager, and a renderer. "auto" is
    the renderer shipped beside a shipped manager."""

    target: str = "flood-manager"
    renderer: str = "auto"


def load_flood(manager: str = "flood-manager", **settings: Any) -> Flood:
    """A flood from names; `settings` are the fields of `FloodConfig`.

    Raises ConfigError for an unknown setting or name, CheckpointError for broken files,
    PairingError for a manager and a renderer of different roots.
    """
    return build_flood(configured(FloodConfig, target=manager, **settings))


def load_decoder(
    renderer: str = "flood-renderer",
    drawing: Drawing | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    threads: int = 0,
    **settings: Any,
) -> FloodDecoder:
    """A decoder for a renderer's name, without a manager; more settings: `FloodDecoder`."""
    chosen = prepare(device, threads)
    folder = find_model(renderer)
    net = load_renderer(folder, dtype=dtype_of(dtype, chosen), device=chosen)
    settings = {"clock": clock_of(chosen)} | settings
    return FloodDecoder(net, Hierarchy.load(folder), drawing, **settings)


def build_flood(config: FloodConfig) -> Flood:
    """The flood that `config` describes."""
    name = config.renderer
    if name == "auto":
        name = config.target.removesuffix("-manager") + "-renderer"
    folder = find_model(name)
    rendered = Hierarchy.load(folder)
    engine = build(config)
    own, theirs = (t.backend.get_vocab() for t in (rendered.tokenizer, engine.tokenizer))
    if own != theirs:
        raise PairingError(
            f"The manager {config.target!r} writes other roots than {name!r} renders: they were "
            "not trained for one another."
        )
    hierarchy = Hierarchy.load(find_model(config.target))
    device = engine.target.device
    renderer = load_renderer(folder, dtype=engine.target.dtype, device=device)  # type: ignore[attr-defined]
    return Flood(engine, renderer, hierarchy)
