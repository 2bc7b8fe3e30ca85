"""From steps to text: whole characters, stop strings, and who wrote each piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from floodstage.core.types import Step, TokenId
from floodstage.text.tokenizer import Detokenizer, Tokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text, and whether the token that completed it was drafted and accepted."""

    text: str
    drafted: bool


@dataclass(slots=True)
class Writer:
    """One sequence's text as it grows.

    Text that may be the beginning of a stop string is held back until it is certain. The ids end
    with the token that completed the stop string, whether or not more came in the same cycle.
    """

    detokenizer: Detokenizer
    stop: tuple[str, ...] = ()
    ids: list[TokenId] = field(default_factory=list)
    text: str = ""  # given out
    held: str = ""  # certain characters that may begin a stop string
    finish: str | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer, stop: Sequence[str]) -> Writer:
        return cls(Detokenizer(tokenizer), tuple(stop))

    def take(self, step: Step) -> list[Piece]:
        """The pieces that a step makes certain; sets `finish` when the text is at its end."""
        pieces: list[Piece] = []
        for i, token in enumerate(step.tokens):
            self.ids.append(token)
            self.held += self.detokenizer.push([token])
            if (at := self._stop_at()) is not None:
                self.held, self.finish = self.held[:at], "stop"
                return [*pieces, self._give(len(self.held), i < step.accepted)]
            pieces.append(self._give(len(self.held) - self._doubt(), i < step.accepted))
        if step.finish is not None:
            self.finish = step.finish
            self.held += self.detokenizer.flush()
            pieces.append(self._give(len(self.held), step.accepted == len(step.tokens)))
        return [piece for piece in pieces if piece.text]

    def _give(self, size: int, drafted: bool) -> Piece:
        out, self.held = self.held[:size], self.held[size:]
        self.text += out
        return Piece(out, drafted)

    def _stop_at(self) -> int | None:
        """Where the first stop string begins in the held text."""
        found = [at for s in self.stop if (at := self.held.find(s)) >= 0]
        return min(found, default=None)

    def _doubt(self) -> int:
        """The length of the longest end of the held text that may begin a stop string."""
        longest = max((len(s) for s in self.stop), default=1) - 1
        for size in range(min(longest, len(self.held)), 0, -1):
            if any(s.startswith(self.held[-size:]) for s in self.stop):
                return size
        return 0
