"""Train a target: a Qwen3-shaped causal model, from a corpus, with its own byte-level BPE."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from floodstage.models.config import TransformerConfig
from floodstage.models.files import write_weights
from floodstage.models.transformer import Transformer
from floodstage.text.tokenizer import Tokenizer
from floodstage.training.documents import Batch, Documents, batches
from floodstage.training.fit import FitConfig, Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetShape:
    """The size of a new target."""

    layers: int = 8
    hidden: int = 256
    inner: int = 640
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    vocab_size: int = 1024
    context: int = 1024

    def config(self, tokenizer: Tokenizer) -> TransformerConfig:
        return TransformerConfig(
            model_type="qwen3",
            vocab_size=tokenizer.vocab_size,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            norm_eps=1e-6,
            rope={"rope_type": "default", "rope_theta": 10000.0},
            context=self.context,
            tied=True,
            qk_norm=True,
            windows=(None,) * self.layers,
        )


def fresh_target(config: TransformerConfig, seed: int) -> Transformer:
    """Random weights; what is added to the residual stream begins at zero."""
    torch.manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                p.zero_()
            elif "embed" in name or name == "lm_head.weight":
                p.normal_(std=0.02)
            elif p.ndim == 2:
                p.normal_(std=p.shape[1] ** -0.5)
    return model


@dataclass
class TargetTask:
    """Next-token prediction over documents (see `fit.Task`)."""

    model: Transformer
    tokenizer: Tokenizer
    train: Documents
    held_out: Documents
    config: FitConfig
    probe: Probe | None = None

    def batches(self, start: int) -> Iterator[Batch]:
        return batches(self.train, self.config.tokens_per_step, seed=self.config.seed, start=start)

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        ids = batch.ids.to(self.model.device)
        hidden, _ = self.model.read(ids[:, :-1])
        learn = batch.learn[:, 1:].to(ids.device)
        logits = self.model.lm_head(hidden[learn])
        return F.cross_entropy(logits.float(), ids[:, 1:][learn]), int(batch.learn.numel())

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        total, count = 0.0, 0
        for _, batch in zip(range(12), batches(self.held_out, 4096, seed=1), strict=False):
            n = int(batch.learn[:, 1:].sum())
            total += float(self.loss(batch)[0]) * n
            count += n
        figures = {"heldout_loss": total / max(count, 1)}
        if self.probe is not None:
            figures |= self.probe(self.model)
        return figures

    def export(self, folder: Path, history: list[dict[str, float]]) -> None:
        save_target(folder, self.model, self.tokenizer)
        (folder / "history.json").write_text(json.dumps(history, indent=1) + "\n")


def save_target(folder: Path, model: Transformer, tokenizer: Tokenizer) -> None:
    """A folder that floodstage and transformers load: bf16 weights, config, tokenizer."""
    weights = model.state_dict()
    if model.config.tied:
        weights.pop("lm_head.weight", None)
    write_weights(folder, weights, torch.bfloat16)
    raw = model.config.to_dict() | {
        "torch_dtype": "bfloat16",
        "eos_token_id": list(tokenizer.eos),
        "bos_token_id": None,
    }
    (folder / "config.json").write_text(json.dumps(raw, indent=1) + "\n")
    tokenizer.save(folder)
