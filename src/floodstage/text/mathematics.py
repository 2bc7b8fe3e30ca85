r"""The built-in corpus "worked mathematics": problems, worked steps, a boxed answer.

Every problem is drawn from a seeded generator, so the corpus needs no download and has no end.
Each solution is written left to right in steps that hold one small operation each, and ends in
a line like ``The answer is \boxed{349}.``

    for problem in islice(problems("train", seed=1), 3):
        print(problem.prompt, problem.solution, sep="\n")
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Literal, get_args

from floodstage.core.errors import ConfigError, unknown
from floodstage.text.mathematics_families import REGISTRY, Family

Split = Literal["train", "heldout", "heldout-phrasing"]

FAMILIES: tuple[str, ...] = tuple(REGISTRY)

# One prompt in this many is held out. The choice is a hash of the prompt alone, so no seed and
# no order of drawing can bring a held-out problem into training.
_BUCKETS = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem as the user types it, with its worked solution."""

    family: str
    phrasing: str
    prompt: str
    solution: str
    answer: str
    held_out_phrasing: bool

    @property
    def key(self) -> str:
        """A hash of the prompt, the same on every machine and in every run."""
        return hashlib.blake2b(self.prompt.encode(), digest_size=8).hexdigest()


def problems(
    split: Split, *, seed: int = 0, families: Sequence[str] | None = None
) -> Iterator[Problem]:
    """Yield problems of a split without end, each family in turn, the same for the same seed.

    "train" and "heldout" share their phrasings and never a prompt; "heldout-phrasing" asks in
    words that the other two never use.
    """
    if split not in get_args(Split):
        raise unknown("split", split, get_args(Split))
    chosen = FAMILIES if families is None else tuple(families)
    if not chosen:
        raise ConfigError(f"families is {families!r}; expected at least one family, or None.")
    for name in chosen:
        if name not in REGISTRY:
            raise unknown("family", name, FAMILIES)
    # A function apart: the checks above then run at the call, not at the first problem.
    return _stream(split, Random(f"{split}/{seed}"), [REGISTRY[name] for name in chosen])


def _stream(split: Split, rng: Random, families: Sequence[Family]) -> Iterator[Problem]:
    for family in cycle(families):
        problem = _draw(family, split, rng)
        while not _belongs(problem, split):
            problem = _draw(family, split, rng)
        yield problem


def _belongs(problem: Problem, split: Split) -> bool:
    if split == "heldout-phrasing":
        return True
    return (int(problem.key, 16) % _BUCKETS == 0) == (split == "heldout")


def _draw(family: Family, split: Split, rng: Random) -> Problem:
    fresh = split == "heldout-phrasing"
    first, count = (len(family.asks), len(family.fresh)) if fresh else (0, len(family.asks))
    number = first + rng.randrange(count)
    draft = family.draw(rng)
    ask = family.fresh[number - first] if fresh else family.asks[number]
    # The opening words follow the phrasing, so one way of asking has one way of answering.
    opening = family.openings[number % len(family.openings)].format_map(draft.values)
    closing = f"The answer is \\boxed{{{draft.answer}}}."
    return Problem(
        family=family.name,
        phrasing=f"{family.name}/{number + 1}",
        prompt=ask.format_map(draft.values),
        solution="\n".join((opening, *draft.steps, closing)),
        answer=draft.answer,
        held_out_phrasing=fresh,
    )


def boxed(text: str) -> str | None:
    r"""Return what the last ``\boxed{...}`` in the text holds, or None if there is no such box.

    Braces inside the box are balanced; a box that never closes counts as none.
    """
    opener = "\\boxed{"
    start = text.rfind(opener)
    if start < 0:
        return None
    start += len(opener)
    depth = 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start:end]
    return None


def is_right(problem: Problem, text: str) -> bool:
    """Whether the text's boxed answer is the problem's, whatever its spacing and notation."""
    given = boxed(text)
    return given is not None and _normal(given) == _normal(problem.answer)


_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_TEXT = re.compile(r"\\(?:text|mathrm)\{[^{}]*\}")
_ORNAMENT = re.compile(r"\\[,!; ]|[\s$,]")
_UNKNOWN = re.compile(r"^[a-z]=")


def _normal(answer: str) -> str:
    answer = _FRACTION.sub(r"\1/\2", answer)
    answer = _ORNAMENT.sub("", _TEXT.sub("", answer)).casefold()
    return _UNKNOWN.sub("", answer).rstrip(".")
