"""What a target's state holds: the text of every slot, and only that."""

from __future__ import annotations

import pytest
import torch

from floodstage.core.errors import ContextError, RollbackError

from . import laws
from .cases import PROMPTS, SMALL, TOY
from .tiny import VOCAB, tiny_gpt2, tiny_target


@pytest.mark.parametrize("seed", range(8))
def test_the_toys_state_holds_the_text_and_only_that(seed: int) -> None:
    laws.state_holds_the_text_and_only_that(TOY, seed)


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("seed", range(2))
def test_a_transformers_state_holds_the_text_and_only_that(seed: int, window: int | None) -> None:
    laws.state_holds_the_text_and_only_that(tiny_target(window=window), seed, turns=16)


@pytest.mark.parametrize("seed", range(2))
def test_an_adapted_models_state_holds_the_text_and_only_that(seed: int) -> None:
    laws.state_holds_the_text_and_only_that(tiny_gpt2(), seed, turns=16)


@pytest.mark.parametrize("target", [TOY, SMALL, tiny_target()], ids=["toy", "small", "tiny"])
def test_every_token_and_its_place_change_what_follows(target: object) -> None:
    """Otherwise the other laws would not see a stale cache."""
    text = (1, 2, 3, 0, 2, 1, 1, 0, 3, 2, 0, 1)
    here = laws.fresh(target, text)[0]
    others = [(*text[:i], text[i] ^ 1, *text[i + 1 :]) for i in range(len(text))]
    others += [(*text[:i], text[i + 1], text[i], *text[i + 2 :]) for i in range(len(text) - 1)]
    others += [text[i:] for i in range(1, len(text))] + [text[:-1]]
    for other in others:
        if other != text:
            assert (laws.fresh(target, other)[0] - here).abs().max() > 1e-6, other


def test_the_toy_says_different_things_after_different_prompts() -> None:
    rows = torch.stack([laws.fresh(TOY, prompt)[0] for prompt in PROMPTS])
    assert rows.unique(dim=0).shape[0] == len(PROMPTS)
    assert tiny_target().vocab_size == VOCAB


@pytest.mark.parametrize("target", [TOY, tiny_target()], ids=["toy", "tiny"])
def test_a_state_refuses_what_it_cannot_hold(target: object) -> None:
    state = target.begin(1, 4)
    target.forward(state, [torch.tensor([1, 2, 3])])
    with pytest.raises(ContextError):
        target.forward(state, [torch.tensor([1, 2])])
    with pytest.raises(ContextError):
        target.forward(state, [torch.tensor([1])], first=1)
    with pytest.raises(RollbackError):
        state.rollback(0, 4)
    assert list(state.lengths) == [3]
