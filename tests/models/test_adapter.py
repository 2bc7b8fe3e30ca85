"""Other models of transformers: their own ids, an exact rollback, and clear refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from floodstage.core.errors import (
    CheckpointError,
    ContextError,
    ModelError,
    PairingError,
    RollbackError,
)
from floodstage.core.protocols import Target
from floodstage.models.adapter import AdaptedLM, load_adapted

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"vocab_size": 97, "bos_token_id": None, "eos_token_id": None}
CHAINS = {"tree_equals_its_chains", "keep_leaves_only_the_path"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "neox": (
        "GPTNeoX",
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
        },
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transformers

    family, options = KINDS[request.param]
    torch.manual_seed(5)
    model = getattr(
        transformers, f"{family}ForCausalLM" if family != "GPT2" else "GPT2LMHeadModel"
    )(getattr(transformers, f"{family}Config")(**SMALL, **options))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
    path = tmp_path_factory.mktemp(family)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def adapted(folder: Path) -> AdaptedLM:
    return load_adapted(folder, dtype=torch.float32, device=CPU)


def text(length: int, seed: int = 0) -> Tensor:
    return torch.randint(97, (length,), generator=torch.Generator().manual_seed(seed))


def test_it_is_a_target(adapted: AdaptedLM) -> None:
    target: Target = adapted
    assert (target.vocab_size, target.context, target.trees) == (97, 64, False)
    assert target.device == CPU


def test_greedy_ids_are_its_own(adapted: AdaptedLM) -> None:
    prompt = text(9)
    want = adapted.model.generate(
        prompt[None],
        attention_mask=torch.ones(1, 9, dtype=torch.long),
        max_new_tokens=25,
        do_sample=False,
        pad_token_id=0,
    )[0, 9:]
    state, new, got = adapted.begin(1, 64), prompt, []
    for _ in range(25):
        new = adapted.forward(state, [new], last_only=True).logits.argmax(-1)
        got.append(int(new))
    assert got == want.tolist()


def test_a_state_keeps_the_laws(adapted: AdaptedLM, law: str, laws: Any) -> None:
    if law not in CHAINS:
        getattr(laws, law)(adapted)


def test_a_chain_is_kept_in_part(adapted: AdaptedLM) -> None:
    state, prompt, draft, then = adapted.begin(1, 64), text(9, 1), text(5, 2), text(3, 3)
    adapted.forward(state, [prompt])
    adapted.forward(state, [draft], parents=[(-1, 0, 1, 2)])
    state.keep(0, 9, [0, 1])
    got = adapted.forward(state, [then]).logits
    whole = torch.cat([prompt, draft[:3], then])
    want = adapted.forward(adapted.begin(1, 64), [whole]).logits[-3:]
    torch.testing.assert_close(got, want, atol=5e-5, rtol=0.0)
    state.rollback(0, 0)
    again = adapted.forward(state, [whole]).logits[-3:]
    torch.testing.assert_close(again, want, atol=5e-5, rtol=0.0)


def test_taps_are_hidden_states(adapted: AdaptedLM) -> None:
    ids = text(12)
    with torch.no_grad():
        states = adapted.model(ids[None], output_hidden_states=True).hidden_states
    out = adapted.forward(adapted.begin(1, 64, taps=(1, 0)), [ids])
    assert out.taps is not None
    want = torch.cat([states[2][0], states[1][0]], -1)
    torch.testing.assert_close(out.taps, want, atol=5e-5, rtol=0.0)
    for tap in (-1, 2, 3):
        with pytest.raises(PairingError, match="layers 0 to 1"):
            adapted.begin(1, 64, taps=(tap,))


def test_what_it_cannot_do_is_said(adapted: AdaptedLM) -> None:
    with pytest.raises(ContextError, match="context is 64"):
        adapted.begin(1, 65)
    state = adapted.begin(1, 8)
    for ids, first in ((text(9), 0), (text(2), 1)):
        with pytest.raises(ContextError):
            adapted.forward(state, [ids], first=first)
    assert list(state.lengths) == []
    adapted.forward(state, [text(5)])
    with pytest.raises(ModelError, match="chains, not trees"):
        adapted.forward(state, [text(3)], parents=[(-1, -1)])
    with pytest.raises(ModelError, match="not one of a chain"):
        state.keep(0, 2, [1])
    with pytest.raises(RollbackError, match="holds 5"):
        state.rollback(0, 6)
    assert list(state.lengths) == [5]


def tiny(family: str, **options: Any) -> Any:
    import transformers

    config = getattr(transformers, f"{family}Config")(**SMALL, **options)
    return getattr(transformers, f"{family}ForCausalLM")(config)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: tiny(
                "Mistral",
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=2,
                sliding_window=8,
            ),
            "sliding window",
        ),
        (
            lambda: tiny("Mamba", hidden_size=16, num_hidden_layers=1, state_size=4),
            "recurrent state",
        ),
    ],
)
def test_a_memory_that_cannot_go_back_is_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        AdaptedLM(make())


def test_a_folder_that_is_no_model(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot load"):
        load_adapted(tmp_path, dtype=torch.float32, device=CPU)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    weights = (folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-9])
    with pytest.raises(CheckpointError, match="cannot load") as caught:
        load_adapted(tmp_path, dtype=torch.float32, device=CPU)
    assert "\n" not in str(caught.value)


def test_a_folder_that_lacks_a_tensor(tmp_path: Path, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "1.mlp" in name))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack 1 tensors.*1\.mlp"):
        load_adapted(tmp_path, dtype=torch.float32, device=CPU)


def test_transformers_is_not_imported_until_it_is_needed() -> None:
    code = (
        "import sys, floodstage.models.adapter, floodstage.models.load;"
        "sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
