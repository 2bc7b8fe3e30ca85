"""A real transformer and a real block-diffusion drafter, small, untrained and in float64.

Float64, because a pass of one row and a pass of many differ in their last bits: here no two logits
are that close, so equal text is asked for and not nearly equal text.
"""

from __future__ import annotations

from functools import cache

import torch

from floodstage.drafting.block_diffusion import BlockDiffusionDrafter
from floodstage.models.adapter import AdaptedLM
from floodstage.models.config import TransformerConfig
from floodstage.models.transformer import Transformer
from floodstage.training.drafter import DrafterShape, fresh_drafter

VOCAB = 12
MASK = 8
"""A token like every other: texts hold it too."""


@cache
def tiny_target(seed: int = 1, window: int | None = None) -> Transformer:
    """Weights wide enough for every token to matter to what comes after it."""
    config = TransformerConfig(
        model_type="qwen3",
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=8,
        norm_eps=1e-6,
        rope={"rope_type": "default", "rope_theta": 100.0},
        context=512,
        tied=False,
        qk_norm=True,
        windows=(window, None, window, None),
    )
    model = Transformer(config).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2:
                scale = 1.0 if "embed" in name else 2.0 * p.shape[1] ** -0.5
                p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model.requires_grad_(False).fuse()


@cache
def tiny_drafter(seed: int = 1, window: int | None = None) -> BlockDiffusionDrafter:
    """Started from the target's own layers, and as untrained."""
    shape = DrafterShape(layers=2, block_size=8)
    net = fresh_drafter(tiny_target(seed, window), MASK, shape).double().eval()
    return BlockDiffusionDrafter(net.requires_grad_(False).fuse(), shape.block_size - 1)


def tiny_gpt2() -> AdaptedLM:
    """A model that only the transformers adapter runs."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=4, n_head=4, n_positions=64, initializer_range=0.3
    )
    return AdaptedLM(GPT2LMHeadModel(shape).double())
