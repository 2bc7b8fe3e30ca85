"""What the laws are asked of: targets, drafters, schedulers, requests, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

from floodstage.core.protocols import Drafter, Scheduler, Target
from floodstage.core.types import Request, Sampling, TokenIds
from floodstage.decoding.verifiers import MatchVerifier, RejectVerifier
from floodstage.drafting.block_diffusion import BlockDiffusionDrafter
from floodstage.drafting.candidates import Adaptive, Beam, BestFirst, PrefixRank, UncertainSparse
from floodstage.drafting.draft_model import ModelDrafter
from floodstage.drafting.jacobi import JacobiDrafter
from floodstage.drafting.lookahead import LookaheadDrafter
from floodstage.drafting.ngram import NgramDrafter
from floodstage.drafting.none import NoDrafter
from floodstage.drafting.seeding import Seeding
from floodstage.scheduling.confidence import ConfidenceScheduler
from floodstage.scheduling.cost import CostScheduler
from floodstage.scheduling.ewma import AdlScheduler, EwmaScheduler
from floodstage.scheduling.fixed import FixedScheduler
from floodstage.scheduling.rolling import RollingScheduler

from .laws import Case, own_text, plain, written
from .scripted import Scripted, Turns, alternating, always, forest, right, wrong
from .tiny import MASK, tiny_drafter, tiny_target
from .toy import ToyBlock, ToyTarget

TOY = ToyTarget()
SMALL = ToyTarget(4, seed=5)
"""Few enough tokens to enumerate all texts."""

STOP = 3
PROMPTS: tuple[TokenIds, ...] = ((1,), (1, 2, 3, 1, 2), (5, 5, 5), (0, 7), (2, 6, 2, 6, 2), (4, 3))
SIZES = (25, 11, 1, 18, 2, 9)
"""New tokens per prompt: in a batch they leave at different times."""

WARM = Sampling(temperature=0.7)
SAMPLINGS = {
    "warm": WARM,
    "top-k": Sampling(temperature=0.7, top_k=3),
    "top-p": Sampling(temperature=0.7, top_p=0.8),
    "min-p": Sampling(temperature=0.7, min_p=0.2),
    "penalty": Sampling(temperature=0.7, repetition_penalty=1.4),
    "all": Sampling(temperature=0.7, top_k=5, top_p=0.9, min_p=0.05, repetition_penalty=1.3),
}


def requests(
    sampling: Sampling | None = None,
    *,
    sizes: Sequence[int] = SIZES,
    stop_ids: frozenset[int] = frozenset(),
) -> tuple[Request, ...]:
    return tuple(
        Request(
            prompt=prompt,
            max_new_tokens=size,
            sampling=sampling or Sampling(),
            stop_ids=stop_ids,
            seed=seed,
        )
        for seed, (prompt, size) in enumerate(zip(PROMPTS, sizes, strict=False))
    )


VERIFIERS = {"match": MatchVerifier(), "reject": RejectVerifier()}

SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "0": lambda: FixedScheduler(0),
    "1": lambda: FixedScheduler(1),
    "7": lambda: FixedScheduler(7),
    "confidence": lambda: ConfidenceScheduler(7, threshold=0.5),
    "turns": lambda: Turns(0, 3, 0, 0, 7, 1, 0),
    "rolling": lambda: RollingScheduler(7, block_sizes=(2, 4, 8), high=3.0, mid=2.0),
    "ewma": lambda: EwmaScheduler(7, block_sizes=(2, 4, 8), probe_interval=3),
    "adl": lambda: AdlScheduler(7, block_sizes=(2, 4, 8), probe_interval=3),
    "cost": lambda: CostScheduler(7),
}

TRAJECTORY: dict[str, Drafter] = {
    "jacobi": JacobiDrafter(),
    "jacobi-ngram": JacobiDrafter(fill="ngram"),
    "lookahead": LookaheadDrafter(),
}
"""Drafters that remember the target's guesses: a draft depends on the drafts before it."""

Texts = tuple[TokenIds, ...]
Make = Callable[[Texts], Drafter]


def _same(drafter: Drafter, texts: Texts) -> Drafter:
    return drafter


REAL: dict[str, Make] = {
    "none": lambda texts: NoDrafter(),
    "ngram": lambda texts: NgramDrafter(),
    "draft-model": lambda texts: ModelDrafter(ToyTarget(blur=1.0), draft_len=7),
    "sampled": lambda texts: ModelDrafter(ToyTarget(blur=1.0), draft_len=7, sampled=True),
    "toy-block": lambda texts: ToyBlock(ToyTarget(blur=0.7)),
    "toy-tree": lambda texts: ToyBlock(ToyTarget(blur=0.7), branches=True),
    **{name: partial(_same, drafter) for name, drafter in TRAJECTORY.items()},
}
SCRIPTED: dict[str, Make] = {
    "right": lambda texts: Scripted(right, texts),
    "wrong": lambda texts: Scripted(wrong, texts),
    "alternating": lambda texts: Scripted(alternating, texts),
    "forest": lambda texts: Scripted(forest, texts),
    "stop": lambda texts: Scripted(always(STOP), texts),
}
DRAFTERS = REAL | SCRIPTED
SHAPED: dict[str, BlockDiffusionDrafter] = {
    "beam": replace(tiny_drafter(), candidates=Beam(branch_depth=3, top_k=3)),
    "unsure-beam": replace(tiny_drafter(), candidates=Beam(margin_threshold=0.1)),
    "prefix-rank": replace(tiny_drafter(), candidates=PrefixRank()),
    "uncertain-sparse": replace(tiny_drafter(), candidates=UncertainSparse(top_k=3)),
    "best-first": replace(tiny_drafter(), candidates=BestFirst(nodes=9)),
}
"""Trees of a block-diffusion drafter that depend on the text alone."""
LED: dict[str, BlockDiffusionDrafter] = {
    "adaptive": replace(tiny_drafter(), candidates=Adaptive(Beam(max_candidates=8))),
    "sparse": replace(tiny_drafter(), seeding=Seeding("sparse")),
    "dense": replace(tiny_drafter(), seeding=Seeding("dense")),
    "aligned": replace(tiny_drafter(), seeding=Seeding("aligned", 3)),
    "branch": replace(tiny_drafter(), seeding=Seeding("branch")),
}
"""Drafts that depend on earlier cycles too."""
TREES = {"toy-tree", "forest", "adaptive", "branch", *SHAPED}

SELF: dict[str, Drafter] = {
    "draft-model": ModelDrafter(TOY, draft_len=7),
    "sampled": ModelDrafter(TOY, draft_len=7, sampled=True),
    "toy-block": ToyBlock(TOY),
    "toy-tree": ToyBlock(TOY, branches=True),
}


TINY: dict[str, Make] = {
    "ngram": lambda texts: NgramDrafter(),
    "draft-model": lambda texts: ModelDrafter(tiny_target(2), draft_len=7),
    "self": lambda texts: ModelDrafter(tiny_target(), draft_len=7),
    "block-diffusion": lambda texts: tiny_drafter(),
    "forest": lambda texts: Scripted(forest, texts),
    "alternating": lambda texts: Scripted(alternating, texts),
    "mask": lambda texts: Scripted(always(MASK), texts),
    **{name: partial(_same, drafter) for name, drafter in (SHAPED | LED | TRAJECTORY).items()},
}


def greedy_texts(target: Target, asked: tuple[Request, ...]) -> Texts:
    return tuple(r.prompt + own_text(target, r) for r in asked)


@cache
def sampled_texts(target: Target, asked: tuple[Request, ...]) -> Texts:
    case = plain(Case(target=target, drafter=NoDrafter(), requests=asked))
    return tuple(r.prompt + out for r, out in zip(asked, written(case), strict=True))


def lossless_pairs(drafters: Sequence[str]) -> list[tuple[str, str]]:
    """Every drafter with every verifier that takes its drafts."""
    return [(d, v) for d in drafters for v in VERIFIERS if not (d in TREES and v == "reject")]


def law_request(**sampling: float) -> Request:
    """Three tokens of four: 64 outputs, fewer where a stop id comes first."""
    rule = Sampling(**({"temperature": 1.2} | sampling))
    return Request(prompt=(1, 2), max_new_tokens=3, sampling=rule)


def law_case(
    drafter: str, scheduler: str = "7", verifier: str = "reject", **sampling: float
) -> Case:
    blurred = ToyTarget(4, seed=5, blur=1.5)
    drafters: dict[str, Drafter] = {
        "none": NoDrafter(),
        "ngram": NgramDrafter(),
        "draft-model": ModelDrafter(blurred, draft_len=3),
        "sampled": ModelDrafter(blurred, draft_len=3, sampled=True),
        "toy-block": ToyBlock(blurred),
        "toy-tree": ToyBlock(blurred, branches=True),
        **TRAJECTORY,
    }
    return Case(
        target=SMALL,
        drafter=drafters[drafter],
        requests=(law_request(**sampling),),
        verifier=VERIFIERS[verifier],
        scheduler=SCHEDULERS[scheduler],
    )
