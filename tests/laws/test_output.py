"""What is written is what the target writes, whoever drafts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from floodstage.core.errors import ConfigError
from floodstage.core.types import Request, Sampling, TokenIds
from floodstage.decoding.loop import Decoder, decode
from floodstage.decoding.verifiers import MatchVerifier, RejectVerifier
from floodstage.drafting.none import NoDrafter
from floodstage.scheduling.fixed import FixedScheduler

from . import laws
from .cases import (
    DRAFTERS,
    REAL,
    SAMPLINGS,
    SCHEDULERS,
    STOP,
    TINY,
    TOY,
    TRAJECTORY,
    VERIFIERS,
    WARM,
    greedy_texts,
    lossless_pairs,
    requests,
    sampled_texts,
)
from .laws import Case
from .scripted import Scripted, right
from .tiny import MASK, tiny_target

WAYS = [("0", 1), ("1", 1), ("7", 1), ("7", 3), ("confidence", 3), ("turns", 1), ("turns", 3),
        ("rolling", 1), ("ewma", 3), ("adl", 1), ("cost", 1), ("cost", 3)]  # fmt: skip
"""A scheduler and a number of slots."""


@pytest.mark.parametrize(("scheduler", "slots"), WAYS)
@pytest.mark.parametrize(("drafter", "verifier"), lossless_pairs(list(DRAFTERS)))
def test_greedy_output_is_the_targets_own(
    drafter: str, verifier: str, scheduler: str, slots: int
) -> None:
    asked = requests(stop_ids=frozenset({STOP}) if drafter == "stop" else frozenset())
    case = Case(
        target=TOY,
        drafter=DRAFTERS[drafter](greedy_texts(TOY, asked)),
        requests=asked,
        verifier=VERIFIERS[verifier],
        scheduler=SCHEDULERS[scheduler],
        slots=slots,
    )
    laws.greedy_output_is_the_targets_own(case)
    laws.drafts_fit_what_is_left(case)


@pytest.mark.parametrize(
    ("scheduler", "slots"), [("confidence", 1), ("turns", 3), ("all", 3), ("cost", 3)]
)
@pytest.mark.parametrize(("drafter", "verifier"), lossless_pairs(list(TINY)))
def test_greedy_output_of_a_transformer_is_its_own(
    drafter: str, verifier: str, scheduler: str, slots: int
) -> None:
    target = tiny_target()
    asked = requests(sizes=(16, 9, 1, 12))
    made = TINY[drafter](greedy_texts(target, asked))
    case = Case(
        target=target,
        drafter=made,
        requests=asked,
        verifier=VERIFIERS[verifier],
        scheduler=partial(FixedScheduler, made.draft_len)
        if scheduler == "all"
        else SCHEDULERS[scheduler],
        slots=slots,
    )
    laws.greedy_output_is_the_targets_own(case)
    laws.drafts_fit_what_is_left(case)


@pytest.mark.parametrize(
    ("sampling", "scheduler", "slots"),
    [("warm", "7", 1), ("all", "7", 1), *((name, "turns", 3) for name in SAMPLINGS)],
)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_sampled_output_is_that_of_plain_decoding(
    drafter: str, sampling: str, scheduler: str, slots: int
) -> None:
    asked = requests(SAMPLINGS[sampling])
    case = Case(
        target=TOY,
        drafter=DRAFTERS[drafter](sampled_texts(TOY, asked)),
        requests=asked,
        scheduler=SCHEDULERS[scheduler],
        slots=slots,
    )
    laws.sampled_output_is_that_of_plain_decoding(case)


@pytest.mark.parametrize("sampling", ["all"])
@pytest.mark.parametrize("drafter", TINY)
def test_sampled_output_of_a_transformer_is_that_of_plain_decoding(
    drafter: str, sampling: str
) -> None:
    asked = requests(SAMPLINGS[sampling], sizes=(16, 9, 1, 12))
    case = Case(
        target=tiny_target(),
        drafter=TINY[drafter](sampled_texts(tiny_target(), asked)),
        requests=asked,
        scheduler=SCHEDULERS["turns"],
        slots=3,
    )
    laws.sampled_output_is_that_of_plain_decoding(case)


@pytest.mark.parametrize(("slots", "penalty"), [(1, 3.0), (3, 1.5)])
@pytest.mark.parametrize(("drafter", "verifier"), lossless_pairs(list(DRAFTERS)))
def test_a_repetition_penalty_sees_the_draft(
    drafter: str, verifier: str, slots: int, penalty: float
) -> None:
    asked = requests(Sampling(repetition_penalty=penalty))
    texts = greedy_texts(TOY, asked)
    assert texts != greedy_texts(TOY, requests()), "the case is too easy"
    case = Case(
        target=TOY,
        drafter=DRAFTERS[drafter](texts),
        requests=asked,
        verifier=VERIFIERS[verifier],
        slots=slots,
    )
    laws.greedy_output_is_the_targets_own(case)


@pytest.mark.parametrize("stops", [{3}, {0, 6}, {0, 1, 2, 3, 4, 5, 6, 7}, {99}])
@pytest.mark.parametrize("sampling", [Sampling(), WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize(
    ("drafter", "verifier"), lossless_pairs(["none", "right", "stop", *TRAJECTORY])
)
def test_nothing_follows_a_stop_id(
    drafter: str, verifier: str, sampling: Sampling, stops: set[int]
) -> None:
    free = requests(sampling)
    texts = sampled_texts(TOY, free)
    case = Case(
        target=TOY,
        drafter=DRAFTERS[drafter](texts),
        requests=tuple(replace(r, stop_ids=frozenset(stops)) for r in free),
        verifier=VERIFIERS[verifier],
        slots=3,
    )
    laws.output_ends_where_it_should(case)
    if verifier == "match":
        for request, text, got in zip(free, texts, laws.written(case), strict=True):
            out = text[len(request.prompt) :]
            assert got == out[: len(got)], "a stop id cuts the text and does not change it"


def test_a_stop_id_inside_an_accepted_block_ends_the_text_there() -> None:
    (free,) = requests(sizes=(30,))
    out = laws.own_text(TOY, free)
    # The first token comes with the prompt, then blocks of eight: not the last of a block.
    stop = next(t for i, t in enumerate(out) if i % 8 != 0 and t not in out[:i])
    request = replace(free, stop_ids=frozenset({stop}))
    case = Case(target=TOY, drafter=Scripted(right, (free.prompt + out,)), requests=(request,))
    (steps,) = laws.run(case)
    assert laws.ids(steps) == out[: out.index(stop) + 1]
    assert len(steps[-1].tokens) < steps[-1].record.verified + 1, "the case is too easy"
    assert steps[-1].record.gained == len(steps[-1].tokens), "tau counts what was given"


@pytest.mark.parametrize("limit", [1, 2, 8, 9])
@pytest.mark.parametrize(("drafter", "verifier"), lossless_pairs(list(DRAFTERS)))
def test_exactly_as_many_tokens_as_asked_for(drafter: str, verifier: str, limit: int) -> None:
    asked = requests(WARM, sizes=(limit, limit, limit + 1))
    case = Case(
        target=TOY,
        drafter=DRAFTERS[drafter](sampled_texts(TOY, asked)),
        requests=asked,
        verifier=VERIFIERS[verifier],
        slots=3,
    )
    laws.output_ends_where_it_should(case)
    laws.drafts_fit_what_is_left(case)


@pytest.mark.parametrize("slots", [2, 3])
@pytest.mark.parametrize("sampling", [Sampling(), WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize(("drafter", "verifier"), lossless_pairs(list(REAL)))
def test_a_batch_gives_each_what_it_gets_alone(
    drafter: str, verifier: str, sampling: Sampling, slots: int
) -> None:
    case = Case(
        target=TOY,
        drafter=REAL[drafter](()),
        requests=requests(sampling),
        verifier=VERIFIERS[verifier],
        slots=slots,
    )
    laws.a_batch_gives_each_what_it_gets_alone(case)


@pytest.mark.parametrize("sampling", [Sampling(), WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize(
    ("drafter", "verifier"),
    [("block-diffusion", "match"), ("block-diffusion", "reject"), ("draft-model", "match")],
)
def test_a_batch_of_a_transformer_gives_each_what_it_gets_alone(
    drafter: str, verifier: str, sampling: Sampling
) -> None:
    case = Case(
        target=tiny_target(),
        drafter=TINY[drafter](()),
        requests=requests(sampling, sizes=(16, 9, 1, 12)),
        verifier=VERIFIERS[verifier],
        slots=3,
    )
    laws.a_batch_gives_each_what_it_gets_alone(case)


@pytest.mark.parametrize("drafter", ["block-diffusion", "mask"])
@pytest.mark.parametrize("sampling", ["greedy", "all"])
def test_the_mask_id_is_a_token_like_every_other(drafter: str, sampling: str) -> None:
    target, (first,) = tiny_target(), requests(SAMPLINGS.get(sampling), sizes=(20,))
    asked = tuple(replace(first, prompt=prompt) for prompt in ((1, MASK, MASK, 2), (MASK,)))
    case = Case(
        target=target,
        drafter=TINY[drafter](()),
        requests=asked,
        scheduler=SCHEDULERS["7"],
        slots=2,
    )
    laws.sampled_output_is_that_of_plain_decoding(case)
    laws.drafts_are_those_of_a_fresh_session(case)
    assert any(MASK in out for out in laws.written(case)), "the case is too easy"


def test_a_sequence_that_is_dropped_leaves_the_others_as_they_were() -> None:
    asked = requests(WARM, sizes=(30, 30, 30))
    alone = sampled_texts(TOY, asked)
    for gone in range(3):
        decoder = Decoder(
            TOY,
            REAL["draft-model"](()),
            MatchVerifier(),
            FixedScheduler(4),
            slots=3,
            capacity=64,
        )
        out: dict[int, TokenIds] = {i: decoder.join(r).tokens for i, r in enumerate(asked)}
        for cycle in range(40):
            if cycle == 3:
                decoder.drop(gone)
                decoder.drop(99)
            for step in decoder.cycle() if decoder.live else ():
                out[step.sequence] += step.tokens
        for i, request in enumerate(asked):
            if i != gone:
                assert request.prompt + out[i] == alone[i]


def test_requests_are_taken_only_as_slots_get_free() -> None:
    asked = requests(sizes=(4, 9, 2, 5))
    taken: list[Request] = []

    def waiting():
        for request in asked:
            taken.append(request)
            yield request

    steps = decode(
        TOY,
        NoDrafter(),
        MatchVerifier(),
        FixedScheduler(0),
        waiting(),
        slots=2,
        capacity=32,
    )
    ended = 0
    for step in steps:
        assert len(taken) <= ended + 2
        ended += step.finish is not None
    assert taken == list(asked)


def test_reject_refuses_a_tree_by_name() -> None:
    case = Case(
        target=TOY,
        drafter=DRAFTERS["toy-tree"](()),
        requests=requests(sizes=(9,)),
        verifier=RejectVerifier(),
    )
    with pytest.raises(ConfigError, match="chains only"):
        laws.run(case)


@pytest.mark.parametrize(("drafter", "verifier"), lossless_pairs(["alternating", "toy-block"]))
def test_the_cases_hold_both_kept_and_rejected_drafts(drafter: str, verifier: str) -> None:
    asked = requests()
    case = Case(
        target=TOY,
        drafter=DRAFTERS[drafter](greedy_texts(TOY, asked)),
        requests=asked,
        verifier=VERIFIERS[verifier],
    )
    records = [step.record for steps in laws.run(case) for step in steps]
    assert any(0 < r.accepted < r.verified for r in records)
    assert any(0 == r.accepted < r.verified for r in records)
    assert any(r.accepted == r.verified == 7 for r in records) or drafter == "alternating"
