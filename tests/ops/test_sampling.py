"""From logits to tokens, against transformers and against the law that is asked for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from floodstage.core.types import Sampling
from floodstage.ops.sampling import adjust, gumbel, probabilities

ROWS, VOCAB = 6, 40

RULES = [
    Sampling(temperature=0.7),
    Sampling(temperature=2.0),
    Sampling(temperature=1.0, top_k=1),
    Sampling(temperature=1.0, top_k=7),
    Sampling(temperature=1.0, top_k=1000),
    Sampling(temperature=1.0, top_p=0.05),
    Sampling(temperature=1.0, top_p=0.9),
    Sampling(temperature=1.0, min_p=0.1),
    Sampling(temperature=1.0, min_p=1.0),
    Sampling(temperature=1.0, repetition_penalty=1.3),
    Sampling(temperature=0.6, top_k=12, top_p=0.8, min_p=0.05, repetition_penalty=1.2),
    Sampling(temperature=1.7, top_k=30, top_p=0.95, min_p=0.02, repetition_penalty=0.8),
]


def draw(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [R, V], texts [R, 9] and which tokens each text holds [R, V]."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(ROWS, VOCAB, generator=generator)
    texts = torch.randint(VOCAB, (ROWS, 9), generator=generator)
    seen = torch.zeros(ROWS, VOCAB, dtype=torch.bool).scatter_(1, texts, True)
    return logits, texts, seen


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_adjusted_logits_are_those_of_transformers(rule: Sampling, seed: int) -> None:
    from transformers.generation import logits_process as theirs

    logits, texts, seen = draw(seed)
    chain = theirs.LogitsProcessorList()
    if rule.repetition_penalty != 1.0:
        chain.append(theirs.RepetitionPenaltyLogitsProcessor(rule.repetition_penalty))
    chain.append(theirs.TemperatureLogitsWarper(rule.temperature))
    if rule.top_k:
        chain.append(theirs.TopKLogitsWarper(rule.top_k))
    if rule.top_p < 1.0:
        chain.append(theirs.TopPLogitsWarper(rule.top_p))
    if rule.min_p:
        chain.append(theirs.MinPLogitsWarper(rule.min_p))
    torch.testing.assert_close(adjust(logits, rule, seen), chain(texts, logits.clone()))


def test_the_order_of_the_rules_is_that_of_transformers() -> None:
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=VOCAB, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    config = GenerationConfig(
        do_sample=True, temperature=0.6, top_k=12, top_p=0.8, min_p=0.05, repetition_penalty=1.2
    )
    logits, texts, seen = draw(0)
    chain = LlamaForCausalLM(shape)._get_logits_processor(
        config, input_ids_seq_length=9, device="cpu"
    )
    torch.testing.assert_close(adjust(logits, RULES[-2], seen), chain(texts, logits.clone()))


def test_at_temperature_zero_only_the_penalty_counts() -> None:
    logits, _, seen = draw(1)
    rule = Sampling(top_k=2, top_p=0.1, min_p=0.9)
    assert torch.equal(adjust(logits, rule, seen), logits)
    harsh = adjust(logits, Sampling(repetition_penalty=2.0), seen)
    assert torch.equal(harsh[~seen], logits[~seen])
    assert bool((harsh[seen] < logits[seen]).all())
    law = probabilities(logits, rule)
    assert torch.equal(law.argmax(-1), logits.argmax(-1))
    assert torch.equal(law.sum(-1), torch.ones(ROWS))
    assert int((law > 0).sum()) == ROWS


def test_adjust_leaves_its_input_alone() -> None:
    logits, _, seen = draw(2)
    before = logits.clone()
    for rule in RULES:
        adjust(logits, rule, seen)
    assert torch.equal(logits, before)


def test_the_nucleus_holds_its_mass_and_no_token_more() -> None:
    logits, _, _ = draw(3)
    law = logits.softmax(-1)
    for top_p in (0.1, 0.5, 0.9, 0.999):
        left = adjust(logits, Sampling(temperature=1.0, top_p=top_p)).isfinite()
        for row, stays in zip(law, left, strict=True):
            assert float(row[stays].sum()) >= top_p - 1e-6
            assert float(row[stays].sum() - row[stays].min()) < top_p + 1e-6


def test_gumbel_noise_is_the_double_logarithm_and_finite_everywhere() -> None:
    uniform = torch.tensor([0.0, 1e-30, 0.25, 0.5, 1 - 2**-24])
    noise = gumbel(uniform)
    assert bool(noise.isfinite().all())
    assert noise.tolist() == sorted(noise.tolist())
    assert float(noise[3]) == pytest.approx(-math.log(math.log(2)), rel=1e-6)


def test_the_largest_of_law_plus_gumbel_noise_follows_the_law() -> None:
    """Chi-square over 200 000 draws; false alarm 1e-6 over fresh seeds."""
    law = torch.tensor([0.5, 0.25, 0.15, 0.08, 0.02, 0.0])
    size = 200_000
    uniform = torch.rand(size, 6, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount((law.log() + gumbel(uniform)).argmax(-1), minlength=6).double()
    assert counts[5] == 0
    expected = law[:5].double() * size
    statistic = ((counts[:5] - expected) ** 2 / expected).sum()
    p_value = torch.special.gammaincc(torch.tensor(2.0, dtype=torch.float64), statistic / 2)
    assert float(p_value) > 1e-6
