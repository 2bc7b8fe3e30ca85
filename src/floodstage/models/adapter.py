"""Any other causal language model of transformers as a `core.protocols.Target`.

Slower than `models.transformer`: one pass per sequence, a cache that is copied as it grows, chains
only. Knows no architecture. transformers is imported when a model is loaded, not before: that
takes seconds.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from floodstage.core.errors import (
    CheckpointError,
    ContextError,
    ModelError,
    PairingError,
    RollbackError,
)
from floodstage.core.types import Forward
from floodstage.models.cache import ParentLists


def load_adapted(name: str | Path, *, dtype: torch.dtype, device: torch.device) -> AdaptedLM:
    """The model in a folder or under a hub id. Raises CheckpointError if it cannot be loaded
    whole, ModelError if its memory cannot be rolled back."""
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(name), dtype=dtype, output_loading_info=True
        )
    except Exception as error:  # transformers passes on what its many loaders raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"transformers cannot load {str(name)!r} as a causal language model: {reason}"
        ) from error
    wrong = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in report[kind])
    if wrong:
        raise CheckpointError(
            f"The files of {str(name)!r} lack {len(wrong)} tensors of its config or hold them in "
            f"another shape, {wrong[0]} first."
        )
    return AdaptedLM(model.to(device))


class AdaptedLM:
    """A causal model of transformers. Raises ModelError for one whose memory cannot go back."""

    trees = False

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.config = model.config.get_text_config(decoder=True)
        takes = inspect.signature(model.forward).parameters
        self._last_only = "logits_to_keep" in takes
        if reason := _stuck(model, takes):
            raise ModelError(
                f"{type(model).__name__} {reason}, so it could not forget a refused draft: "
                "choose a model with plain attention caches."
            )

    @property
    def vocab_size(self) -> int:
        return int(self.config.vocab_size)

    @property
    def context(self) -> int:
        """Positions the model can address; without bound if its config names none."""
        return int(getattr(self.config, "max_position_embeddings", None) or sys.maxsize)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def begin(self, slots: int, capacity: int, *, taps: tuple[int, ...] = ()) -> AdaptedState:
        """An empty state. Raises ContextError if `capacity` is more than the model addresses,
        PairingError for a tapped layer whose output transformers does not give."""
        if capacity > self.context:
            raise ContextError(
                f"The text may grow to {capacity} tokens, but the model's context is "
                f"{self.context}: shorten the prompt or lower max_new_tokens."
            )
        # The last hidden state of transformers has already been through the final norm.
        last = int(self.config.num_hidden_layers) - 2
        if not all(0 <= tap <= last for tap in taps):
            raise PairingError(
                f"The layers {list(taps)} are tapped; of this model layers 0 to {last} can be."
            )
        return AdaptedState(self.model.config, slots, capacity, taps)

    @torch.inference_mode()
    def forward(
        self,
        state: AdaptedState,
        tokens: Sequence[Tensor],
        *,
        first: int = 0,
        parents: ParentLists | None = None,
        last_only: bool = False,
    ) -> Forward:
        """See `core.protocols.Target`: a loop over the sequences. Raises ContextError if the rows
        do not fit, ModelError for a tree."""
        for parent in parents or ():
            if parent is not None and tuple(parent) != tuple(range(-1, len(parent) - 1)):
                raise ModelError("A model of the transformers adapter verifies chains, not trees.")
        state.extend(first, [ids.shape[0] for ids in tokens])
        logits: list[Tensor] = []
        taps: list[Tensor] = []
        options = {"logits_to_keep": 1} if last_only and self._last_only else {}
        for slot, ids in enumerate(tokens, start=first):
            out = self.model(
                input_ids=ids[None],
                past_key_values=state.caches[slot],
                use_cache=True,
                output_hidden_states=bool(state.taps),
                **options,
            )
            logits.append(out.logits[0, -1:] if last_only else out.logits[0])
            if state.taps:
                taps.append(torch.cat([out.hidden_states[i + 1][0] for i in state.taps], -1))
        return Forward(torch.cat(logits), torch.cat(taps) if taps else None)


class AdaptedState:
    """One growing cache per slot, and how many tokens each holds."""

    def __init__(self, config: Any, slots: int, capacity: int, taps: tuple[int, ...]) -> None:
        self.config, self.slots, self.capacity, self.taps = config, slots, capacity, taps
        self.caches: list[Any] = []
        self.lengths: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values held."""
        layers = [layer for cache in self.caches for layer in cache.layers]
        return sum(int(t.nbytes) for layer in layers for t in (layer.keys, layer.values))

    def extend(self, first: int, counts: Sequence[int]) -> None:
        """Count new tokens in slots `first`, ... Raises ContextError before anything changes."""
        last = first + len(counts)
        if last > self.slots:
            raise ContextError(f"The batch has {self.slots} slots; {last} were asked for.")
        held = self.lengths + [0] * (last - len(self.lengths))
        for slot, count in enumerate(counts, start=first):
            held[slot] += count
            if held[slot] > self.capacity:
                raise ContextError(
                    f"{held[slot]} tokens do not fit: there is room for {self.capacity}."
                )
        while len(self.caches) < len(held):
            self.caches.append(_new_cache(self.config))
        self.lengths = held

    def rollback(self, slot: int, length: int) -> None:
        """Forget everything past `length` tokens of one sequence."""
        if not 0 <= length <= self.lengths[slot]:
            raise RollbackError(
                f"Cannot roll back to {length}: slot {slot} holds {self.lengths[slot]} tokens."
            )
        if extra := self.lengths[slot] - length:
            self.caches[slot].crop(-extra)
        self.lengths[slot] = length

    def keep(self, slot: int, base: int, path: Sequence[int]) -> None:
        """Keep the row at `base` and the first nodes of the chain after it."""
        if list(path) != list(range(len(path))):
            raise ModelError(f"The path {list(path)} is not one of a chain.")
        self.rollback(slot, base + 1 + len(path))

    def leave(self, slot: int) -> None:
        """Forget the sequence in `slot`; the last sequence moves there."""
        self.caches[slot], self.lengths[slot] = self.caches[-1], self.lengths[-1]
        self.caches.pop()
        self.lengths.pop()


def _new_cache(config: Any) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=config)


def _stuck(model: Any, takes: Any) -> str:
    """Why the model's memory cannot be rolled back; empty if it can."""
    if getattr(model.config, "is_encoder_decoder", False):
        return "has an encoder"
    if getattr(model, "_is_stateful", False):
        return "keeps a recurrent state"
    if "past_key_values" not in takes:
        return "has no cache"
    cache = _new_cache(model.config)
    if any(cache.is_sliding):
        return "forgets what is outside its sliding window"
    if not getattr(cache, "is_croppable", True):
        return "has a cache that cannot be cropped"
    return ""
