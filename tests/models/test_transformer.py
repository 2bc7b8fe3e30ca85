"""Our runtime against transformers: the same folder, the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from floodstage.core.errors import ContextError, ModelError, PairingError
from floodstage.models import transformer
from floodstage.models.config import TransformerConfig
from floodstage.models.files import write_weights
from floodstage.models.load import load_transformer
from floodstage.models.transformer import Transformer

CPU = torch.device("cpu")
IDS = torch.randint(97, (40,), generator=torch.Generator().manual_seed(3))


def read(model: Transformer, ids: Tensor, **options: Any) -> Tensor:
    return model.forward(model.begin(1, 64), [ids], **options).logits


def greedy(model: Transformer, prompt: Tensor, steps: int) -> list[int]:
    state, new, out = model.begin(1, len(prompt) + steps), prompt, []
    for _ in range(steps):
        new = model.forward(state, [new], last_only=True).logits.argmax(-1)
        out.append(int(new))
    return out


def test_logits_are_those_of_transformers(every_case: str, pair_of: Callable[[str], Any]) -> None:
    pair = pair_of(every_case)
    with torch.no_grad():
        want = pair.theirs(IDS[None]).logits[0]
    assert want.std() > 0.5  # else 1e-4 would say nothing
    torch.testing.assert_close(read(pair.ours, IDS), want, atol=1e-4, rtol=0.0)
    hidden, _ = pair.ours.read(IDS[None])
    torch.testing.assert_close(pair.ours.lm_head(hidden)[0], want, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("case", ["llama", "mistral", "qwen2-windows", "qwen3", "rope-yarn"])
def test_greedy_ids_are_those_of_transformers(case: str, pair_of: Callable[[str], Any]) -> None:
    pair, prompt = pair_of(case), IDS[:11]
    with torch.no_grad():
        want = pair.theirs.generate(
            prompt[None],
            attention_mask=torch.ones(1, 11, dtype=torch.long),
            max_new_tokens=30,
            do_sample=False,
            pad_token_id=0,
        )[0, 11:]
    assert greedy(pair.ours, prompt, 30) == want.tolist()


@pytest.mark.parametrize("case", ["llama", "mistral", "qwen2-windows", "qwen3"])
def test_taps(case: str, pair_of: Callable[[str], Any]) -> None:
    pair = pair_of(case)
    with torch.no_grad():
        states = pair.theirs(IDS[None], output_hidden_states=True).hidden_states
    for taps in ((0,), (1,), (0, 1), (1, 0)):
        want = torch.cat([states[tap + 1][0] for tap in taps], -1)
        out = pair.ours.forward(pair.ours.begin(1, 64, taps=taps), [IDS])
        torch.testing.assert_close(out.taps, want, atol=1e-4, rtol=0.0)
        torch.testing.assert_close(pair.ours.read(IDS[None], taps)[1][0], want, atol=1e-4, rtol=0.0)
    last = pair.ours.forward(pair.ours.begin(1, 64, taps=(2,)), [IDS]).taps
    torch.testing.assert_close(pair.ours.model.norm(last), states[3][0], atol=1e-4, rtol=0.0)


def test_a_state_keeps_the_laws(model: Transformer, law: str, laws: Any) -> None:
    getattr(laws, law)(model)


def test_a_prompt_in_chunks_is_the_prompt_at_once(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for last_only in (False, True):
        whole = model.forward(model.begin(2, 64, taps=(1, 0)), [IDS], first=1, last_only=last_only)
        with monkeypatch.context() as patch:
            patch.setattr(transformer, "PREFILL_CHUNK", 7)
            state = model.begin(2, 64, taps=(1, 0))
            parts = model.forward(state, [IDS], first=1, parents=[None], last_only=last_only)
        assert list(state.lengths) == [0, 40]
        torch.testing.assert_close(parts.logits, whole.logits, atol=5e-5, rtol=0.0)
        torch.testing.assert_close(parts.taps, whole.taps, atol=5e-5, rtol=0.0)


def test_what_does_not_fit_changes_nothing(
    pair_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Transformer = pair_of("llama").ours
    monkeypatch.setattr(transformer, "PREFILL_CHUNK", 7)
    state = model.begin(1, 30)
    for ids, first in ((IDS, 0), (IDS[:31], 0), (IDS[:3], 1)):
        with pytest.raises(ContextError):
            model.forward(state, [ids], first=first)
        assert sum(state.lengths) == 0
    with pytest.raises(ContextError, match="context is 128"):
        model.begin(1, 129)
    for tap in (-1, 3):
        with pytest.raises(PairingError, match="layers 0 to 2"):
            model.begin(1, 8, taps=(0, tap))


def test_a_tree_needs_a_parent_for_every_node(pair_of: Callable[[str], Any]) -> None:
    model: Transformer = pair_of("llama").ours
    with pytest.raises(ModelError, match="2 drafted tokens need as many parents, got 1"):
        model.forward(model.begin(1, 8), [IDS[:3]], parents=[(-1,)])


def test_gradients_reach_every_parameter(pair_of: Callable[[str], Any]) -> None:
    folder = pair_of("qwen3-biases").folder
    model = load_transformer(folder, dtype=torch.float32, device=CPU)  # fused
    hidden, taps = model.read(IDS.view(4, 10), (0,))
    (model.lm_head(hidden).square().mean() + taps.mean()).backward()
    lost = [name for name, p in model.named_parameters() if p.grad is None]
    assert lost == []


def test_fused_weights_follow_their_parts(pair_of: Callable[[str], Any]) -> None:
    model = load_transformer(pair_of("qwen2").folder, dtype=torch.float32, device=CPU)
    before = read(model, IDS)
    with torch.no_grad():
        for layer in model.model.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.mlp.up_proj):
                part.weight.mul_(1.5)
    after = read(model, IDS)
    assert (after - before).abs().max() > 0.1
    hidden, _ = model.read(IDS[None])
    torch.testing.assert_close(after, model.lm_head(hidden)[0], atol=5e-5, rtol=0.0)


@pytest.mark.parametrize("case", ["llama-tied", "mistral", "qwen2-windows", "qwen3"])
def test_bfloat16_runs(case: str, pair_of: Callable[[str], Any], laws: Any) -> None:
    pair = pair_of(case)
    half = load_transformer(pair.folder, dtype=torch.bfloat16, device=CPU)
    state = half.begin(2, 64, taps=(0,))
    assert half.dtype == state.cache.keys[0].dtype == torch.bfloat16
    out = half.forward(state, [IDS[:30], IDS[:12]])
    assert out.logits.dtype == out.taps.dtype == torch.bfloat16
    want = torch.cat([read(pair.ours, IDS[:30]), read(pair.ours, IDS[:12])])
    away = (out.logits.float() - want).std() / want.std()
    assert away < 0.05
    again = half.forward(state, [IDS[30:33], IDS[12:13]], parents=[(-1, -1), None])
    assert again.logits.isfinite().all()


@pytest.mark.parametrize("case", ["llama-biases", "mistral", "mistral-full", "qwen2-windows"])
def test_what_we_write_transformers_reads(
    case: str, pair_of: Callable[[str], Any], tmp_path: Path
) -> None:
    import json

    from transformers import AutoModelForCausalLM

    ours: Transformer = pair_of(case).ours
    write_weights(tmp_path, dict(ours.named_parameters()), torch.float32)
    (tmp_path / "config.json").write_text(json.dumps(ours.config.to_dict()))
    assert TransformerConfig.from_dict(ours.config.to_dict()) == ours.config
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        want = theirs(IDS[None]).logits[0]
    torch.testing.assert_close(read(ours, IDS), want, atol=1e-4, rtol=0.0)
