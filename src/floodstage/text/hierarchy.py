"""A two-level alphabet: characters make chunks, chunks make roots, each by byte-pair merges.

All three share one row of ids: every character is a chunk, every chunk is a root. The whole is an
ordinary `tokenizer.json` whose later merges build roots out of chunks, so a model over roots is a
model like any other. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from floodstage.core.errors import CheckpointError, ConfigError
from floodstage.text.tokenizer import END, HIERARCHY, MASK, SPLIT, Tokenizer

SPECIAL = 2  # END and MASK stand before everything that has characters
BYTES = 256  # characters the training text did not hold are written in UTF-8 bytes

# Roots merge across words, up to the end of a line. Digits stand alone (arithmetic needs them).
_PHRASES = r"\p{N}|[^\p{N}\n]+\n*|\n+"
_BEFORE = 24  # tokens of a text's end that are kept
_PRIVATE = 0xF0000  # a plane without characters: chunk i is its i-th while roots are learnt


@dataclass(frozen=True, slots=True, kw_only=True)
class HierarchyShape:
    """Sizes. `chunks` counts the single characters and the 256 bytes, `roots` counts the chunks;
    no chunk has more than `chars_per_chunk` characters, no root more than `chunks_per_root`
    chunks: merges past that are never made. `phrases`: roots may span words."""

    chunks: int = 1024
    roots: int = 2048
    chars_per_chunk: int = 16
    chunks_per_root: int = 4
    phrases: bool = True

    def __post_init__(self) -> None:
        if not BYTES < self.chunks <= self.roots <= 0xFFFE:
            raise ConfigError(
                f"Expected {BYTES} < chunks <= roots <= 65534, got {self.chunks!r} chunks and "
                f"{self.roots!r} roots."
            )
        if self.chars_per_chunk < 1 or self.chunks_per_root < 1:
            raise ConfigError(
                "chars_per_chunk and chunks_per_root must be at least 1, got "
                f"{self.chars_per_chunk!r} and {self.chunks_per_root!r}."
            )


@dataclass(frozen=True)
class Hierarchy:
    """Roots, their chunks, their characters. Ids here leave END and MASK out: root id = token id
    - SPECIAL. Ids below `chars` are characters (the first BYTES of them bytes), below `chunks`
    chunks, all are roots."""

    tokenizer: Tokenizer
    shape: HierarchyShape
    chars: int
    chunks: int
    before: tuple[int, ...] = (0,)  # tokens that a new text may follow: an END and what led to it

    @classmethod
    def load(cls, folder: Path) -> Hierarchy:
        """Read what `save` wrote. Raises CheckpointError."""
        path = folder / HIERARCHY
        if not path.is_file():
            raise CheckpointError(
                f"{str(folder)!r} has no {HIERARCHY}: it is not the folder of a manager or a "
                "renderer."
            )
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            found = cls(
                Tokenizer.load(folder),
                HierarchyShape(**raw["shape"]),
                int(raw["chars"]),
                int(raw["chunks"]),
                tuple(map(int, raw["before"])),
            )
            return found.checked()
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{str(path)!r} cannot be read: {error}.") from error

    def save(self, folder: Path) -> None:
        """`hierarchy.json` and the tokenizer's own files."""
        folder.mkdir(parents=True, exist_ok=True)
        raw = {"shape": asdict(self.shape), "chars": self.chars, "chunks": self.chunks}
        raw["before"] = list(self.before)
        (folder / HIERARCHY).write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
        self.tokenizer.save(folder)

    def checked(self) -> Hierarchy:
        """Itself, if every root and every chunk keeps to the shape. Raises CheckpointError."""
        longest = max(map(len, self.root_chunks), default=0)
        widest = max(map(len, self.chunk_chars), default=0)
        shape = self.shape
        if longest > shape.chunks_per_root or widest > shape.chars_per_chunk:
            raise CheckpointError(
                f"The hierarchy has a root of {longest} chunks or a chunk of {widest} characters; "
                f"its shape allows {shape.chunks_per_root} and {shape.chars_per_chunk}."
            )
        return self

    @property
    def roots(self) -> int:
        return self.tokenizer.vocab_size - SPECIAL

    @cached_property
    def root_chunks(self) -> list[tuple[int, ...]]:
        """The chunks of each root."""
        return self._spelt(self.roots, self.chunks)

    @cached_property
    def chunk_chars(self) -> list[tuple[int, ...]]:
        """The characters of each chunk."""
        return self._spelt(self.chunks, self.chars)

    def children(self, level: int) -> list[tuple[int, ...]]:
        """The table of a level: 0 is root -> chunks, 1 is chunk -> characters."""
        return (self.root_chunks, self.chunk_chars)[level]

    def _spelt(self, count: int, leaves: int) -> list[tuple[int, ...]]:
        """Ids 0 .. count in ids below `leaves`, by undoing merges. A merge's product always has a
        higher id than its parts, so one pass in order is enough."""
        spelt: list[tuple[int, ...]] = [(i,) for i in range(leaves)]
        spelt += [()] * (count - leaves)
        for whole, left, right in self._merges:
            if leaves <= whole < count:
                spelt[whole] = spelt[left] + spelt[right]
        return spelt

    @cached_property
    def _merges(self) -> list[tuple[int, int, int]]:
        """(product, left, right) of every merge."""
        model = json.loads(self.tokenizer.backend.to_str())["model"]
        vocab: dict[str, int] = model["vocab"]
        return [
            (vocab[a + b] - SPECIAL, vocab[a] - SPECIAL, vocab[b] - SPECIAL)
            for a, b in map(_pair, model["merges"])
        ]

    @cached_property
    def symbols(self) -> list[str]:
        """What each character id beyond the bytes stands for; "" for the bytes."""
        named = self.tokenizer.backend.id_to_token
        return [""] * BYTES + [str(named(i + SPECIAL)) for i in range(BYTES, self.chars)]

    def encode(self, text: str) -> list[int]:
        """Root ids of `text`."""
        return [i - SPECIAL for i in self.tokenizer.encode(text)]

    def text(self, chars: Iterable[int]) -> str:
        """Characters in a row; bytes that are no UTF-8 become U+FFFD."""
        symbols = self.symbols
        ids = list(chars)
        if all(i >= BYTES for i in ids):
            return "".join([symbols[i] for i in ids])
        out = ""
        for is_byte, run in groupby(ids, key=lambda i: i < BYTES):
            some = list(run)
            out += (
                bytes(some).decode(errors="replace")
                if is_byte
                else "".join(symbols[i] for i in some)
            )
        return out

    def spell(self, roots: Iterable[int]) -> list[int]:
        """Character ids of root ids by the table: the answer that a renderer must give."""
        return [c for r in roots for chunk in self.root_chunks[r] for c in self.chunk_chars[chunk]]

    def report(self, roots: Sequence[int]) -> list[tuple[str, float]]:
        """Figures of the hierarchy on a text given in `roots`: how real its levels are."""
        chunks = [c for r in roots for c in self.root_chunks[r]]
        chars = [c for chunk in chunks for c in self.chunk_chars[chunk]]
        n, m, size = max(1, len(roots)), max(1, len(chunks)), len(chars)
        seen = set(roots)
        return [
            ("character types, bytes included", self.chars),
            ("chunk types, characters included", self.chunks),
            ("root types, chunks included", self.roots),
            ("roots in the text", len(roots)),
            ("chunks in the text", len(chunks)),
            ("characters in the text", size),
            ("root types in the text", len(seen)),
            ("characters per chunk", size / m),
            ("chunks per root", m / n),
            ("characters per root", size / n),
            ("chunk slots used, %", 100 * m / n / self.shape.chunks_per_root),
            ("character slots used, %", 100 * size / m / self.shape.chars_per_chunk),
            ("roots of one chunk (identity), % of the text", 100 * self._single(roots) / n),
            ("roots of one chunk (identity), % of types", 100 * self.chunks / self.roots),
            ("characters written as bytes, %", 100 * sum(c < BYTES for c in chars) / max(1, size)),
        ]

    def _single(self, roots: Iterable[int]) -> int:
        return sum(r < self.chunks for r in roots)


def fit_hierarchy(
    texts: Iterable[str], shape: HierarchyShape, *, template: str | None = None
) -> Hierarchy:
    """Learn both levels from `texts`. Raises ConfigError if they hold too little for the sizes."""
    texts = list(texts)
    first = _learn(texts, SPLIT, shape.chunks - BYTES, shape.chars_per_chunk)
    alphabet = [token for token in first.tokens if len(token) == 1]
    vocab = _Vocabulary([END, MASK, *(f"<0x{i:02X}>" for i in range(BYTES)), *alphabet])
    chars = len(vocab.ids) - SPECIAL
    vocab.add(first.merges)
    chunks = len(vocab.ids) - SPECIAL
    split = _PHRASES if shape.phrases else SPLIT
    pieces = _pieces(vocab.backend(split), texts)
    every = [chr(_PRIVATE + i) for i in range(chunks)]
    second = _learn(pieces, None, shape.roots, shape.chunks_per_root, every)
    names = {chr(_PRIVATE + i): token for i, token in enumerate(list(vocab.ids)[SPECIAL:])}
    vocab.add((_named(a, names), _named(b, names)) for a, b in second.merges)
    tokenizer = Tokenizer(
        vocab.backend(split), (0,), template, {"eos_token": END, "mask_token": MASK}
    )
    tokenizer.backend.encode_special_tokens = True
    end = (*tokenizer.encode(texts[0])[-_BEFORE:], *tokenizer.eos)
    return Hierarchy(tokenizer, shape, chars, chunks, end).checked()


@dataclass(frozen=True, slots=True)
class _Learnt:
    tokens: list[str]
    merges: list[tuple[str, str]]


def _learn(
    texts: Iterable[str],
    split: str | None,
    size: int,
    longest: int,
    alphabet: Sequence[str] = (),
) -> _Learnt:
    """Byte-pair merges up to `size` tokens of at most `longest` symbols. Without a `split`, lines
    of `texts` are apart."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = (
        pre_tokenizers.Split("\n", "removed")
        if split is None
        else pre_tokenizers.Split(Regex(split), "isolated")
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        initial_alphabet=list(alphabet),
        # Rarer characters are written in bytes, so that merges have room.
        limit_alphabet=len(alphabet) or max(1, 3 * size // 4),
        max_token_length=longest + 1,  # the trainer stays below it
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if len(tokens) < size:
        raise ConfigError(
            f"The text holds only {len(tokens)} pieces, fewer than the {size} asked for: lower the "
            "sizes or give more text."
        )
    return _Learnt(tokens, [_pair(m) for m in model["merges"]])


def _pair(merge: Any) -> tuple[str, str]:
    """A merge as `tokenizer.json` holds it: a list, or two words (older files)."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _pieces(backend: Backend, texts: Sequence[str]) -> Iterator[str]:
    """Each text in chunks, a private character each; a line break between pieces that no root may
    span."""
    for at in range(0, len(texts), 1024):
        for encoding in backend.encode_batch(texts[at : at + 1024], add_special_tokens=False):
            signs = [chr(_PRIVATE + i - SPECIAL) for i in encoding.ids]
            words = encoding.word_ids
            breaks = ["\n" if a != b else "" for a, b in pairwise([*words, None])]
            yield "".join([x for pair in zip(signs, breaks, strict=True) for x in pair])


def _named(private: str, names: dict[str, str]) -> str:
    return "".join(names[c] for c in private)


class _Vocabulary:
    """Tokens in order and the merges that make them."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.merges: list[tuple[str, str]] = []

    def add(self, merges: Iterable[tuple[str, str]]) -> None:
        """Add merges whose parts are known and whose product is new: one text, one id."""
        for a, b in merges:
            if a in self.ids and b in self.ids and a + b not in self.ids:
                self.ids[a + b] = len(self.ids)
                self.merges.append((a, b))

    def backend(self, split: str) -> Backend:
        made = Backend(models.BPE(vocab=self.ids, merges=self.merges, byte_fallback=True))
        made.pre_tokenizer = pre_tokenizers.Split(Regex(split), "isolated")
        made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        made.add_special_tokens([AddedToken(END, special=True), AddedToken(MASK, special=True)])
        return made
