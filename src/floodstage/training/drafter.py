"""Train a DFlash drafter for a target: the target's own text, random anchors, strict context.

Recipe: DFlash (z-lab 2026) with the losses of SpecForge; the layers start as copies of the
target's last ones, the fusing projection as the last tap; embedding and head are the target's and
stay as they are. Taps are computed on the fly, once per text and shared by all its anchors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from floodstage.core.errors import ConfigError
from floodstage.models.block_diffusion import BlockDiffusion, BlockDiffusionConfig
from floodstage.models.files import write_weights
from floodstage.models.transformer import Transformer
from floodstage.training.documents import Batch, Documents, batches
from floodstage.training.fit import FitConfig, Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterShape:
    """The size of a new drafter and how its blocks are drawn and weighed."""

    layers: int = 2
    block_size: int = 16
    taps: tuple[int, ...] = ()  # empty: four, spread over the upper two thirds
    anchors: int = 16  # per text and step
    loss: str = "decay"  # or "dpace"
    gamma: float = 7.0  # of "decay": slot k weighs exp(-(k - 1) / gamma)
    alpha: float = 0.5  # of "dpace": how much of a slot's own probability counts

    def __post_init__(self) -> None:
        if self.loss not in ("decay", "dpace"):
            raise ConfigError(f"loss must be 'decay' or 'dpace', got {self.loss!r}.")
        if self.layers < 1 or self.block_size < 2 or self.anchors < 1:
            raise ConfigError(
                "A drafter needs layers >= 1, block_size >= 2 and anchors >= 1, got "
                f"{self.layers!r}, {self.block_size!r} and {self.anchors!r}."
            )


def fresh_drafter(target: Transformer, mask_id: int, shape: DrafterShape) -> BlockDiffusion:
    """A drafter whose layers are the target's last ones, bound to it."""
    config = target.config
    if shape.layers > config.layers:
        raise ConfigError(
            f"The drafter cannot have {shape.layers} layers: its target has {config.layers}."
        )
    n = config.layers
    spread = {n // 4, n // 2 - 1, n - 3, n - 2}
    taps = shape.taps or tuple(sorted(t for t in spread if t >= 0))
    body = type(config).from_dict(
        config.to_dict()
        | {
            "model_type": "qwen3",
            "num_hidden_layers": shape.layers,
            "tie_word_embeddings": False,
            "attention_bias": config.qkv_bias,
            "layer_types": None,
        }
    )
    net = BlockDiffusion(
        BlockDiffusionConfig(
            body=body,
            block_size=shape.block_size,
            mask_id=mask_id,
            taps=taps,
            target_layers=n,
            causal_windows=True,
        )
    ).bind(target)
    with torch.no_grad():
        for layer, teacher in zip(net.layers, target.model.layers[-shape.layers :], strict=True):
            layer.load_state_dict(teacher.state_dict(), strict=False)
        net.fc.weight.zero_()
        net.fc.weight[:, -config.hidden_size :] = torch.eye(config.hidden_size)
        first = target.model.layers[-shape.layers]
        net.hidden_norm.weight.copy_(first.input_layernorm.weight)  # type: ignore[union-attr, arg-type]
        net.norm.weight.copy_(target.model.norm.weight)
    return net


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks drawn from a batch of texts: a anchors in each."""

    places: Tensor  # [b, a * B] positions of the slots
    tokens: Tensor  # [b, a * B] the anchor's token, then masks
    wanted: Tensor  # [b, a * B] the text's own tokens there
    learn: Tensor  # [b, a * B] bool: slots past the anchor and inside the text


def draw_blocks(
    batch: Batch, anchors: int, slots: int, mask_id: int, generator: torch.Generator
) -> Blocks:
    """Random anchors among the learnt tokens that have a learnt token after them.

    Texts shorter than the number of anchors repeat some; a text with none learns nothing.
    """
    ids, learn = batch.ids, batch.learn
    length = ids.shape[1]
    after = F.pad(learn[:, 1:], (0, 1))
    weights = (learn & after).float()
    weights[weights.sum(-1) == 0, 0] = 1.0
    anchor = torch.multinomial(weights, anchors, replacement=True, generator=generator)  # [b, a]
    places = (anchor[:, :, None] + torch.arange(slots)).flatten(1)
    inside = places.clamp(max=length - 1)
    wanted = ids.gather(1, inside)
    slot = torch.arange(places.shape[1]) % slots
    supervised = learn.gather(1, inside) & (places < length) & (slot > 0)
    tokens = torch.where(slot == 0, wanted, torch.full_like(wanted, mask_id))
    return Blocks(places, tokens, wanted, supervised)


def in_blocks(rows: Tensor, slots: int) -> Tensor:
    """[b, a * B, ...] -> [b, a, B - 1, ...]: block by block, without the anchors' slots."""
    return rows.view(rows.shape[0], -1, slots, *rows.shape[2:])[:, :, 1:]


def slot_weights(losses: Tensor, learn: Tensor, shape: DrafterShape) -> Tensor:
    """How much each slot counts: [..., B - 1] of slots 1.. from their cross entropies."""
    if shape.loss == "decay":  # DFlash
        slot = torch.arange(losses.shape[-1], device=losses.device)
        return torch.exp(-slot / shape.gamma) * learn
    # D-PACE: a slot counts for the accepted length it makes possible
    chance = (1 - shape.alpha) * torch.exp(-losses.detach()) + shape.alpha
    prefix = chance.cumprod(-1) * learn
    return prefix.flip(-1).cumsum(-1).flip(-1) * learn


@dataclass
class DrafterTask:
    """Fill blocks of the target's own text (see `fit.Task`)."""

    model: BlockDiffusion
    train: Documents
    held_out: Documents
    shape: DrafterShape
    config: FitConfig
    probe: Probe | None = None
    pad: int = 0

    def batches(self, start: int) -> Iterator[tuple[Batch, Blocks]]:
        plan = batches(self.train, self.config.tokens_per_step, seed=self.config.seed, start=start)
        for step, batch in enumerate(plan, start=start):
            yield batch, self._blocks(batch, self.config.seed * 1_000_003 + step)

    def _blocks(self, batch: Batch, seed: int) -> Blocks:
        return draw_blocks(
            batch,
            self.shape.anchors,
            self.shape.block_size,
            self.model.config.mask_id,
            torch.Generator().manual_seed(seed),
        )

    def loss(self, drawn: tuple[Batch, Blocks]) -> tuple[Tensor, int]:
        losses, learn, _ = self._losses(*drawn)
        weights = slot_weights(losses, learn, self.shape)
        return (losses * weights).sum() / weights.sum().clamp_min(1e-6), drawn[0].ids.numel()

    def _losses(self, batch: Batch, blocks: Blocks) -> tuple[Tensor, Tensor, Tensor]:
        """Cross entropy, which slots count, and which are right: [b, a, B - 1] each."""
        net, device = self.model, self.model.target.device
        with torch.no_grad():
            _, taps = net.target.read(batch.ids.to(device), net.config.taps)
        assert taps is not None
        size = net.config.block_size
        context = net.context(taps)
        hidden = net.denoise(context, blocks.tokens.to(device), blocks.places.to(device), size)
        rows = in_blocks(hidden, size)
        wanted = in_blocks(blocks.wanted.to(device), size)
        learn = in_blocks(blocks.learn.to(device), size)
        logits = net.target.lm_head(rows).float()
        losses = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none")
        right = (logits.argmax(-1) == wanted) & learn
        return losses.view(wanted.shape) * learn, learn, right

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """Held-out loss, and the accepted length over random anchors of known text."""
        total, gained, blocks = 0.0, 0.0, 0
        for i, batch in zip(range(6), batches(self.held_out, 4096, seed=1), strict=False):
            losses, learn, right = self._losses(batch, self._blocks(batch, i))
            weights = slot_weights(losses, learn, self.shape)
            total += float((losses * weights).sum() / weights.sum().clamp_min(1e-6))
            gained += float(right.long().cumprod(-1).sum() + right.shape[0] * right.shape[1])
            blocks += right.shape[0] * right.shape[1]
        figures = {"heldout_loss": total / 6, "heldout_gained": gained / blocks}
        if self.probe is not None:
            figures |= self.probe(self.model)
        return figures

    def export(self, folder: Path, history: list[dict[str, float]]) -> None:
        save_drafter(folder, self.model)
        (folder / "history.json").write_text(json.dumps(history, indent=1) + "\n")


def save_drafter(folder: Path, net: BlockDiffusion) -> None:
    """A folder in the published format: bf16 weights without embedding and head, config."""
    write_weights(folder, net.state_dict(), torch.bfloat16)
    raw: dict[str, Any] = net.config.to_dict() | {"torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(raw, indent=1) + "\n")
