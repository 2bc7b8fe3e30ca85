"""The small parts of the loop: the head of a draft, the records, the clock."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from floodstage.core.types import Draft, Request
from floodstage.decoding.loop import Decoder, decode, head
from floodstage.decoding.verifiers import MatchVerifier
from floodstage.drafting.ngram import NgramDrafter
from floodstage.scheduling.fixed import FixedScheduler
from tests.laws.toy import ToyTarget


def full() -> Draft:
    return Draft(
        torch.tensor([5, 6, 7]), (-1, 0, -1), torch.eye(3, 8), torch.tensor([0.9, 0.8, 0.7])
    )


@pytest.mark.parametrize("size", [0, 1, 2])
def test_the_head_of_a_draft_cuts_all_of_its_parts(size: int) -> None:
    cut, whole = head(full(), size), full()
    assert cut.tokens.tolist() == whole.tokens[:size].tolist()
    assert cut.parents == whole.parents[:size]
    assert torch.equal(cut.probs, whole.probs[:size])
    assert torch.equal(cut.confidence, whole.confidence[:size])


def test_the_head_of_a_draft_invents_nothing() -> None:
    assert head(full(), 9).tokens.tolist() == [5, 6, 7]
    bare = head(Draft(torch.tensor([5, 6])), 1)
    assert (bare.parents, bare.probs, bare.confidence) == (None, None, None)


def test_a_record_says_how_long_each_part_took() -> None:
    """A clock that ticks once per look: drafting, verifying and judging take a tick each."""
    ticks = count()
    steps = list(
        decode(
            ToyTarget(),
            NgramDrafter(),
            MatchVerifier(),
            FixedScheduler(4),
            [Request(prompt=(1, 2, 1), max_new_tokens=6)],
            clock=lambda: float(next(ticks)),
        )
    )
    first, *rest = (step.record for step in steps)
    assert first.prefill
    assert (first.draft_s, first.verify_s, first.drafted) == (0.0, 1.0, 0)
    for record in rest:
        assert not record.prefill
        assert (record.draft_s, record.verify_s, record.judge_s) == (1.0, 1.0, 1.0)
        assert record.cycle_s == 3.0


def test_sequences_are_numbered_as_they_join() -> None:
    decoder = Decoder(
        ToyTarget(), NgramDrafter(), MatchVerifier(), FixedScheduler(2), slots=2, capacity=32
    )
    numbers = [
        decoder.join(Request(prompt=(1,), max_new_tokens=size)).sequence for size in (9, 1, 9)
    ]
    assert numbers == [0, 1, 2]
    assert decoder.full
    assert [live.number for live in decoder.live] == [0, 2], "one token asked for is one given"


def test_no_requests_are_no_steps() -> None:
    nothing = decode(ToyTarget(), NgramDrafter(), MatchVerifier(), FixedScheduler(2), [])
    assert list(nothing) == []
