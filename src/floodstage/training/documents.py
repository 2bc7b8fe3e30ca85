"""Training texts as token ids, and batches of them.

A batch is a function of (seed, step) alone, so a run that was killed goes on with the very batch
it would have had. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from floodstage.core.errors import ConfigError, unknown
from floodstage.text.mathematics import problems
from floodstage.text.source_code import source_files
from floodstage.text.tokenizer import Tokenizer

BUILT_IN = ("mathematics", "source")
TEMPLATE = "{{ messages[-1]['content'] + '\\n' }}"
"""The chat template of models trained on prompt/response pairs: the prompt, a line break. (Jinja
drops a line break that ends a template, so it must be inside the expression.)"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A text to learn. What `prompt` holds is read but not learnt; it may be empty."""

    prompt: str
    response: str


@dataclass(frozen=True)
class Documents:
    """Many texts as one row of ids. Text i is `ids[starts[i]:starts[i + 1]]`; learning begins at
    its `prompts[i]`-th id."""

    ids: NDArray[np.uint16] | NDArray[np.int32]
    starts: NDArray[np.int64]
    prompts: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def text(self, i: int) -> NDArray[np.int64]:
        return self.ids[self.starts[i] : self.starts[i + 1]].astype(np.int64)

    @classmethod
    def of(cls, texts: Iterable[Sequence[int]], prompts: Iterable[int]) -> Documents:
        rows = [np.asarray(t, dtype=np.int32) for t in texts]
        if not rows:
            raise ConfigError("There is nothing to learn: the corpus holds no text.")
        starts = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
        return cls(np.concatenate(rows), starts, np.asarray(list(prompts), dtype=np.int32))

    def packed(self, longest: int) -> Documents:
        """The same texts in rows of up to `longest` ids, as many whole texts as fit in each, and
        all of it to be learnt: a model of such rows goes on after the end of a text."""
        starts = [0]
        for begin, end in pairwise(self.starts.tolist()):
            if end - starts[-1] > longest and begin > starts[-1]:
                starts.append(begin)
        starts.append(int(self.starts[-1]))
        return Documents(
            self.ids, np.asarray(starts, np.int64), np.zeros(len(starts) - 1, np.int32)
        )


@dataclass(frozen=True, slots=True)
class Batch:
    ids: Tensor  # [B, T] padded on the right with the pad id
    learn: Tensor  # [B, T] bool: whether the token AT this place is to be predicted


def encode_pairs(
    pairs: Iterable[Pair], tokenizer: Tokenizer, *, longest: int, stride: int | None = None
) -> Documents:
    """Encode, end each text with the first stop id, and cut texts longer than `longest` into
    pieces (each later piece is learnt whole)."""
    end = tokenizer.eos[0]
    texts: list[list[int]] = []
    prompts: list[int] = []
    pairs = iter(pairs)
    while chunk := list(islice(pairs, 2048)):
        heads = tokenizer.encode_batch([p.prompt for p in chunk])
        tails = tokenizer.encode_batch([p.response for p in chunk])
        for head, tail in zip(heads, tails, strict=True):
            whole = [*head, *tail, end]
            for at in range(0, len(whole), stride or longest):
                piece = whole[at : at + longest]
                if len(piece) > 8 or at == 0:
                    texts.append(piece)
                    prompts.append(len(head) if at == 0 else 0)
    return Documents.of(texts, prompts)


def batches(
    documents: Documents, tokens: int, *, seed: int, start: int = 0, pad: int = 0
) -> Iterator[Batch]:
    """Endless batches of about `tokens` ids, of texts of like length, from batch `start` on."""
    epoch = seen = 0
    while True:
        plan = _plan(documents, tokens, seed + 7919 * epoch)
        for chosen in plan[max(0, start - seen) :]:
            yield collate(documents, chosen, pad)
        seen += len(plan)
        epoch += 1


def _plan(documents: Documents, tokens: int, seed: int) -> list[NDArray[np.int64]]:
    """One epoch: shuffle, sort by length inside pools, cut into batches, shuffle those."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(documents))
    mean = float(documents.lengths.mean())
    pool = max(1, int(64 * tokens / mean))
    plan: list[NDArray[np.int64]] = []
    for at in range(0, len(order), pool):
        some = order[at : at + pool]
        some = some[np.argsort(documents.lengths[some], kind="stable")]
        begin = 0
        for end in range(1, len(some) + 1):
            if end == len(some) or documents.lengths[some[end]] * (end - begin + 1) > tokens:
                plan.append(some[begin:end])
                begin = end
    rng.shuffle(plan)
    return plan


def collate(documents: Documents, chosen: NDArray[np.int64], pad: int) -> Batch:
    """The texts `chosen`, padded to the longest."""
    longest = int(documents.lengths[chosen].max())
    ids = np.full((len(chosen), longest), pad, dtype=np.int64)
    learn = np.zeros((len(chosen), longest), dtype=bool)
    for row, i in enumerate(chosen):
        text = documents.text(int(i))
        ids[row, : len(text)] = text
        learn[row, max(1, int(documents.prompts[i])) : len(text)] = True
    return Batch(torch.from_numpy(ids), torch.from_numpy(learn))


def corpus(name: str, split: str, count: int, *, seed: int) -> Iterator[Pair]:
    """Texts of a built-in corpus, of a text file, or of a JSONL file with `prompt`/`response`,
    `question`/`answer` or `text`. Of a file, 1 in 20 texts is held out."""
    if name == "mathematics":
        kind = "train" if split == "train" else "heldout"
        for p in islice(problems(kind, seed=seed), count):  # type: ignore[arg-type]
            yield Pair(p.prompt + "\n", p.solution)
    elif name == "source":
        for file in islice(source_files(split), count):  # type: ignore[arg-type]
            yield Pair("", file.text)
    elif Path(name).is_file():
        try:
            for i, pair in enumerate(_file_pairs(Path(name))):
                if (i % 20 == 0) == (split == "heldout"):
                    yield pair
        except UnicodeDecodeError as error:
            raise ConfigError(f"{name!r} is not UTF-8 text: {error}.") from error
    else:
        raise unknown("corpus (nor a file of that name)", name, BUILT_IN)


def _file_pairs(path: Path) -> Iterator[Pair]:
    with path.open(encoding="utf-8") as lines:
        if path.suffix != ".jsonl":
            paragraphs = lines.read().split("\n\n")
            size = 40  # paragraphs a text
            for at in range(0, len(paragraphs), size):
                yield Pair("", "\n\n".join(paragraphs[at : at + size]))
            return
        for number, line in enumerate(lines, start=1):
            try:
                yield _row_pair(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{str(path)!r} line {number}: expected a JSON object with 'text', with "
                    f"'prompt' and 'response', or with 'question' and 'answer' ({error})."
                ) from error


def _row_pair(row: dict[str, str]) -> Pair:
    if "text" in row:
        return Pair("", str(row["text"]))
    if "question" in row:
        return Pair(f"{row['question']}\n", str(row["answer"]))
    return Pair(f"{row['prompt']}\n", str(row["response"]))
