"""A smaller model that drafts token after token."""

from __future__ import annotations

import pytest
import torch

from floodstage.core.types import Commit, Draft, Request, Sampling
from floodstage.drafting.draft_model import ModelDrafter
from tests.laws.toy import ToyTarget


def begin(*, sampled: bool = False, context: int = 4096, temperature: float = 0.0):
    drafter = ModelDrafter(ToyTarget(context=context), draft_len=4, sampled=sampled)
    session = drafter.begin(2, 20)
    sampling = Sampling(temperature=temperature)
    for seed, prompt in enumerate(((1, 2, 3), (4, 5))):
        request = Request(prompt=prompt, max_new_tokens=9, sampling=sampling, seed=seed)
        session.join(request, None)
    return session


def own(prompt: tuple[int, ...], size: int) -> list[int]:
    """What the model writes after `prompt` by itself."""
    target, text = ToyTarget(), list(prompt)
    for _ in range(size):
        out = target.forward(target.begin(1, len(text)), [torch.tensor(text)], last_only=True)
        text.append(int(out.logits[0].argmax()))
    return text[len(prompt) :]


def tokens(drafts: list[Draft]) -> list[list[int]]:
    return [draft.tokens.tolist() for draft in drafts]


def test_it_drafts_what_its_model_writes_each_by_its_own_budget() -> None:
    assert tokens(begin().propose([6, 7], [4, 2])) == [
        own((1, 2, 3, 6), 4),
        own((4, 5, 7), 2),
    ]


def test_a_budget_of_nothing_is_caught_up_later() -> None:
    session = begin()
    assert tokens(session.propose([6, 7], [0, 0])) == [[], []]
    session.observe([Commit(6, (1,), None), Commit(7, (2,), None)])
    assert tokens(session.propose([1, 2], [0, 3])) == [[], own((4, 5, 7, 2), 3)]
    session.observe([Commit(1, (0,), None), Commit(2, (0,), None)])
    assert tokens(session.propose([0, 0], [3, 1])) == [
        own((1, 2, 3, 6, 1, 0), 3),
        own((4, 5, 7, 2, 0), 1),
    ]


def test_only_sampled_drafts_say_what_they_were_drawn_from() -> None:
    (certain, _) = begin(temperature=0.7).propose([6, 7], [3, 3])
    (drawn, _) = begin(sampled=True, temperature=0.7).propose([6, 7], [3, 3])
    assert certain.probs is None
    assert drawn.probs.shape == (3, 8)
    torch.testing.assert_close(drawn.probs.sum(-1), torch.ones(3))


@pytest.mark.parametrize("sampled", [False, True])
def test_confidence_is_known_before_a_token_is_drawn(sampled: bool) -> None:
    (draft, _) = begin(sampled=sampled, temperature=0.7).propose([6, 7], [3, 3])
    if sampled:
        torch.testing.assert_close(draft.confidence, draft.probs.amax(-1))
    else:
        assert draft.confidence.shape == (3,)


def test_what_a_sequence_draws_does_not_depend_on_its_neighbours_budget() -> None:
    kept = []
    for other in (0, 2, 4):
        session = begin(sampled=True, temperature=0.7)
        first = session.propose([6, 7], [2, other])[0].tokens.tolist()
        session.observe([Commit(6, (first[0], 1), None), Commit(7, (2,), None)])
        kept.append((first, session.propose([1, 2], [3, other])[0].tokens.tolist()))
    assert kept[0] == kept[1] == kept[2]


def test_at_the_end_of_the_models_context_the_draft_is_shorter() -> None:
    session = ModelDrafter(ToyTarget(context=8), draft_len=4).begin(1, 8)
    session.join(Request(prompt=(1, 2, 3, 4, 5), max_new_tokens=9), None)
    assert tokens(session.propose([6], [4])) == [own((1, 2, 3, 4, 5, 6), 3)]
    session.observe([Commit(6, (0, 1), None)])
    assert tokens(session.propose([1], [4])) == [own((1, 2, 3, 4, 5, 6, 0, 1), 1)]


def test_a_draft_shares_its_random_numbers_with_no_target() -> None:
    """A judge draws from a generator of its request's seed: the same place, the same number."""
    for seed in (0, 1, 12345, 2**40):
        session = ModelDrafter(ToyTarget(), sampled=True).begin(1, 8)
        session.join(Request(prompt=(1,), max_new_tokens=2, seed=seed), None)
        ours = torch.rand(4, generator=session.generators[0])
        for near in range(max(0, seed - 50), seed + 50):
            theirs = torch.rand(4, generator=torch.Generator().manual_seed(near))
            assert not torch.equal(ours, theirs), near
