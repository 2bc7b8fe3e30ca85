"""A drafter learns exactly what it will be asked: no block sees its own future."""

from __future__ import annotations

import inspect
import json
import math
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from floodstage.core.errors import ConfigError, PairingError
from floodstage.core.types import Request, Sampling
from floodstage.decoding.loop import decode
from floodstage.decoding.verifiers import MatchVerifier
from floodstage.drafting.block_diffusion import BlockDiffusionDrafter
from floodstage.engine.build import load_target
from floodstage.models.block_diffusion import BlockDiffusion
from floodstage.models.load import load_block_diffusion
from floodstage.models.transformer import Transformer
from floodstage.scheduling.fixed import FixedScheduler
from floodstage.training import drafter as training
from floodstage.training.documents import Documents, collate
from floodstage.training.drafter import (
    DrafterShape,
    DrafterTask,
    draw_blocks,
    fresh_drafter,
    save_drafter,
    slot_weights,
)
from floodstage.training.fit import FitConfig, fit

B = 5  # slots of a block
MASK = 1
SHAPE = DrafterShape(layers=2, block_size=B, taps=(1, 0), anchors=3)


@pytest.fixture(scope="module")
def target(tiny: Any) -> Transformer:
    model = load_target(tiny.target, torch.float32, torch.device("cpu"))
    assert isinstance(model, Transformer)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def net(target: Transformer) -> BlockDiffusion:
    """A drafter in which every weight says something."""
    made = fresh_drafter(target, MASK, SHAPE)
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn(p.shape, generator=g), alpha=0.15)
    return made.fuse()


def text(length: int, seed: int = 0) -> Tensor:
    return torch.randint(2, 300, (length,), generator=torch.Generator().manual_seed(seed))


def block_at(ids: Tensor, anchors: list[int]) -> tuple[Tensor, Tensor]:
    """Tokens and places [1, a * B] of the blocks at `anchors`."""
    places = (torch.tensor(anchors)[:, None] + torch.arange(B)).flatten()
    tokens = torch.full_like(places, MASK)
    tokens[::B] = ids[anchors]
    return tokens[None], places[None]


@torch.no_grad()
def learnt(net: BlockDiffusion, ids: Tensor, anchors: list[int]) -> Tensor:
    """Logits [a, B - 1, V] as in training: one pass over a known text."""
    _, taps = net.target.read(ids[None], net.config.taps)
    assert taps is not None
    hidden = net.denoise(net.context(taps), *block_at(ids, anchors), B)
    logits: Tensor = net.target.lm_head(hidden.view(len(anchors), B, -1)[:, 1:])
    return logits


def drafted(net: BlockDiffusion, ids: Tensor, anchor: int) -> Tensor:
    """Logits [B - 1, V] as in drafting: a fresh session that has read the text before `anchor`."""
    seen = Heard(net.target)
    state = net.target.begin(1, 200, taps=net.config.taps)
    taps = net.target.forward(state, [ids[:anchor]]).taps
    session = BlockDiffusionDrafter(net, B - 1).begin(1, 200)
    session.join(Request(prompt=tuple(ids[:anchor].tolist()), max_new_tokens=50), taps)
    with seen:
        session.propose([int(ids[anchor])], [B - 1])
    (logits,) = seen.blocks
    return logits[0]


class Heard:
    """The logits of every block that passes through the target's head."""

    def __init__(self, target: Transformer) -> None:
        self.head = target.lm_head
        self.blocks: list[Tensor] = []

    def __enter__(self) -> None:
        self.hook = self.head.register_forward_hook(self.hear)

    def hear(self, head: nn.Module, given: object, logits: Tensor) -> None:
        if logits.ndim == 3:  # blocks; rows to verify have two dimensions
            self.blocks.append(logits.clone())

    def __exit__(self, *raised: object) -> None:
        self.hook.remove()


# -- the laws ---------------------------------------------------------------------------------


def no_block_sees_its_future(net: BlockDiffusion) -> None:
    """What the text holds from the anchor on changes nothing; what it holds before does."""
    ids, anchors = text(24), [6, 11, 20]
    with torch.no_grad():
        context = net.context(net.target.read(ids[None], net.config.taps)[1])
        blocks = block_at(ids, anchors)
        before = net.denoise(context, *blocks, B).view(3, B, -1)
        for i, anchor in enumerate(anchors):
            for place in range(24):
                other = context.clone()
                other[0, place] += 3.0
                after = net.denoise(other, *blocks, B).view(3, B, -1)
                moved = float((after[i] - before[i]).abs().max())
                if place >= anchor:
                    assert moved == 0.0, f"the block at {anchor} sees place {place}"
                else:
                    assert moved > 1e-4, f"the block at {anchor} does not see place {place}"
    # The same through the target: the text after an anchor may be any text.
    for anchor in anchors:
        other = torch.cat([ids[: anchor + 1], text(23 - anchor, seed=9)])
        assert torch.equal(learnt(net, other, [anchor]), learnt(net, ids, [anchor]))


def blocks_are_alone(net: BlockDiffusion) -> None:
    """A block among others is the block by itself; its slots see each other."""
    ids, anchors = text(24), [3, 9, 9, 18]
    together = learnt(net, ids, anchors)
    for i, anchor in enumerate(anchors):
        torch.testing.assert_close(together[i], learnt(net, ids, [anchor])[0], atol=1e-5, rtol=0)


def training_is_drafting(net: BlockDiffusion) -> None:
    ids, anchors = text(30, seed=2), [1, 2, 7, 15, 29]
    for anchor, logits in zip(anchors, learnt(net, ids, anchors), strict=True):
        torch.testing.assert_close(logits, drafted(net, ids, anchor), atol=1e-4, rtol=0)


def training_is_drafting_in_the_loop(net: BlockDiffusion) -> None:
    """Every block of a real generation, its context read in parts as it was accepted."""
    heard = Heard(net.target)
    request = Request(
        prompt=tuple(text(9).tolist()), max_new_tokens=40, sampling=Sampling(temperature=0.7)
    )
    parts = (net.target, BlockDiffusionDrafter(net, B - 1), MatchVerifier(), FixedScheduler(B - 1))
    ids, anchors = list(request.prompt), list[int]()
    with heard:
        for step in decode(*parts, [request]):
            if step.record.drafted:
                anchors.append(len(ids) - 1)
            ids += step.tokens
    assert len(anchors) > 8
    for anchor, logits in zip(anchors, heard.blocks, strict=True):
        want = learnt(net, torch.tensor(ids), [anchor])[0]
        torch.testing.assert_close(logits[0], want, atol=1e-4, rtol=0)


def a_loss_is_that_of_drafting(net: BlockDiffusion) -> None:
    """The number that is trained on, worked out from sessions, block by block and slot by slot."""
    documents = Documents.of([text(26).tolist(), text(14, seed=1).tolist()], [4, 2])
    task = DrafterTask(net, documents, documents, SHAPE, FitConfig(tokens_per_step=64))
    for drawn in islice(task.batches(0), 4):
        batch, blocks = drawn
        assert len(batch.ids) == 2
        total = weight = 0.0
        for row, ids in enumerate(batch.ids):
            for anchor in blocks.places[row, ::B].tolist():
                laws = drafted(net, ids, anchor).log_softmax(-1)
                for k in range(1, B):
                    if anchor + k < len(ids) and batch.learn[row, anchor + k]:
                        counts = math.exp(-(k - 1) / SHAPE.gamma)
                        total -= counts * float(laws[k - 1, ids[anchor + k]])
                        weight += counts
        with torch.no_grad():
            assert float(task.loss(drawn)[0]) == pytest.approx(total / weight, abs=1e-4)


def slots_hold_masks(net: BlockDiffusion) -> None:
    """Of the text a block is given its anchor's token and no more."""
    batch = collate(Documents.of([text(20).tolist()], [5]), [0], pad=0)  # type: ignore[arg-type]
    blocks = training.draw_blocks(batch, 40, B, MASK, torch.Generator().manual_seed(0))
    tokens, places = blocks.tokens.view(40, B), blocks.places.view(40, B)
    assert (tokens[:, 1:] == MASK).all()
    assert torch.equal(tokens[:, 0], batch.ids[0, places[:, 0]])


Law = Callable[[BlockDiffusion], None]
LAWS: list[Law] = [
    no_block_sees_its_future,
    blocks_are_alone,
    training_is_drafting,
    training_is_drafting_in_the_loop,
    a_loss_is_that_of_drafting,
    slots_hold_masks,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_holds(net: BlockDiffusion, law: Law) -> None:
    law(net)


def plant(patch: pytest.MonkeyPatch, owner: Any, name: str, old: str, new: str) -> None:
    """Put a function with one expression changed in its place."""
    source = textwrap.dedent(inspect.getsource(getattr(owner, name)))
    assert source.count(old) == 1, f"{old!r} is not in {name} once"
    module = owner if inspect.ismodule(owner) else sys.modules[owner.__module__]
    scope = dict(vars(module))
    exec("from __future__ import annotations\n" + source.replace(old, new), scope)
    patch.setattr(owner, name, scope[name])


@pytest.mark.parametrize(
    ("owner", "name", "old", "new", "law"),
    [
        (BlockDiffusion, "denoise", "at < anchor", "at <= anchor", no_block_sees_its_future),
        (BlockDiffusion, "denoise", "at < anchor", "at <= anchor", training_is_drafting),
        (BlockDiffusion, "denoise", "at < anchor[", "at < 2 + anchor[", no_block_sees_its_future),
        (BlockDiffusion, "denoise", "at < anchor[", "at < -1 + anchor[", no_block_sees_its_future),
        (BlockDiffusion, "denoise", "block == block", "block >= block", blocks_are_alone),
        (BlockDiffusion, "denoise", "block == block", "block < 0 * block", training_is_drafting),
        (BlockDiffusion, "denoise", "rotary(places)", "rotary(places + 1)", training_is_drafting),
        (BlockDiffusion, "denoise", "rotary(at)", "rotary(at + 1)", training_is_drafting),
        (training, "draw_blocks", "slot == 0, wanted", "slot <= 1, wanted", slots_hold_masks),
        (training, "draw_blocks", "slot == 0, wanted", "slot <= 1, wanted",
         a_loss_is_that_of_drafting),
        (training, "draw_blocks", "gather(1, inside)\n    slot", "gather(1, inside - 1)\n    slot",
         a_loss_is_that_of_drafting),
        (training, "draw_blocks", "& (places < length)", "", a_loss_is_that_of_drafting),
    ],
    ids=[
        *("sees its anchor's taps", "sees its anchor's taps, in drafting", "sees one more"),
        *("sees one less", "sees blocks before", "slots are apart", "slots a place late"),
        *("text a place late", "sees the next token", "sees the next token, in drafting"),
        *("wants the token before", "wants the last token past the end"),
    ],
)  # fmt: skip
def test_a_planted_bug_is_caught(
    net: BlockDiffusion,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    old: str,
    new: str,
    law: Law,
) -> None:
    plant(monkeypatch, owner, name, old, new)
    with pytest.raises(AssertionError):
        law(net)


# -- which slots count, and how much ----------------------------------------------------------


def test_decay_is_that_of_dflash() -> None:
    learn = torch.tensor([[True, True, True, False]])
    got = slot_weights(torch.ones(1, 4), learn, DrafterShape(gamma=2.0))
    want = torch.tensor([[1.0, math.exp(-0.5), math.exp(-1.0), 0.0]])
    torch.testing.assert_close(got, want)


def test_dpace_weighs_a_slot_by_the_length_it_makes_possible() -> None:
    # Probabilities 1, 1/2, 1/4; alpha 1/2 makes them 1, 3/4, 5/8.
    losses = torch.tensor([[0.0, math.log(2.0), math.log(4.0)]], requires_grad=True)
    got = slot_weights(losses, torch.ones(1, 3, dtype=torch.bool), DrafterShape(loss="dpace"))
    prefixes = [1.0, 3 / 4, 15 / 32]
    want = torch.tensor([[sum(prefixes), sum(prefixes[1:]), prefixes[2]]])
    torch.testing.assert_close(got, want)
    assert not got.requires_grad
    one = slot_weights(
        losses, torch.tensor([[True, False, False]]), DrafterShape(loss="dpace", alpha=0.0)
    )
    torch.testing.assert_close(one, torch.tensor([[1.0, 0.0, 0.0]]))


def test_anchors_are_learnt_tokens_with_a_learnt_token_after_them() -> None:
    documents = Documents.of([list(range(10, 22)), list(range(40, 44))], [6, 0])
    batch = collate(documents, [0, 1], pad=0)  # type: ignore[arg-type]
    blocks = draw_blocks(batch, 200, B, MASK, torch.Generator().manual_seed(0))
    anchors = blocks.places[:, ::B]
    assert set(anchors[0].tolist()) == set(range(6, 11))
    assert set(anchors[1].tolist()) == {1, 2}
    learn = blocks.learn.view(2, 200, B)
    assert not learn[..., 0].any()
    for row, length in ((0, 12), (1, 4)):
        inside = anchors[row][:, None] + torch.arange(1, B) < length
        assert torch.equal(learn[row, :, 1:], inside)


def test_a_text_too_short_to_learn_from_gives_nothing() -> None:
    documents = Documents.of([[5, 6], [7] * 9], [1, 0])
    batch = collate(documents, [0, 1], pad=0)  # type: ignore[arg-type]
    blocks = draw_blocks(batch, 4, B, MASK, torch.Generator().manual_seed(0))
    assert not blocks.learn[0, 1:B].logical_and(blocks.places[0, 1:B] > 1).any()
    assert blocks.learn[1].any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": "focal"}, "loss must be 'decay' or 'dpace', got 'focal'"),
        ({"block_size": 1}, "block_size >= 2"),
        ({"layers": 0}, "layers >= 1"),
        ({"anchors": 0}, "anchors >= 1"),
    ],
)
def test_a_shape_out_of_range_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DrafterShape(**changes)


# -- from the first weights to a folder -------------------------------------------------------


def test_a_fresh_drafter_is_the_end_of_its_target(target: Transformer) -> None:
    made = fresh_drafter(target, MASK, replace(SHAPE, layers=1))
    theirs = target.model.layers[-1].state_dict()
    assert all(torch.equal(w, theirs[k]) for k, w in made.layers[0].state_dict().items())
    taps = torch.randn(3, 2 * 32)
    torch.testing.assert_close(made.fc(taps), taps[:, 32:])


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 8, 28])
def test_layers_are_tapped_in_any_target(target: Transformer, layers: int) -> None:
    config = replace(target.config, layers=layers, windows=(None,) * layers)
    made = fresh_drafter(Transformer(config), MASK, DrafterShape(layers=1))
    assert made.config.taps == tuple(sorted(set(made.config.taps)))
    assert 0 <= made.config.taps[0] <= made.config.taps[-1] < max(1, layers - 1)


def test_a_drafter_deeper_than_its_target_is_refused(target: Transformer) -> None:
    with pytest.raises(ConfigError, match="cannot have 3 layers: its target has 2"):
        fresh_drafter(target, MASK, DrafterShape(layers=3))
    with pytest.raises(PairingError, match="taps the layers"):
        fresh_drafter(target, MASK, replace(SHAPE, taps=(0, 2)))


def test_what_is_saved_is_what_is_loaded(net: BlockDiffusion, tmp_path: Path) -> None:
    save_drafter(tmp_path, net)
    again = load_block_diffusion(tmp_path, net.target)
    assert again.config == net.config
    own = dict(net.named_parameters())
    for name, p in again.named_parameters():
        assert torch.equal(p, own[name].bfloat16().float()), name
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["architectures"] == ["DFlashDraftModel"]
    assert raw["dflash_config"] == {"mask_token_id": MASK, "target_layer_ids": [1, 0]}


@pytest.mark.parametrize("loss", ["decay", "dpace"])
def test_the_loss_falls_on_texts_seen_again_and_again(
    target: Transformer, tmp_path: Path, loss: str
) -> None:
    lent = target.lm_head.weight.clone()
    documents = Documents.of([[50 + (s + i) % 6 for i in range(20)] for s in range(3)], [2, 2, 2])
    shape = replace(SHAPE, loss=loss, anchors=8)
    # The tiny head gives small logits: the norm before it must learn to be large.
    config = FitConfig(steps=60, tokens_per_step=64, other_lr=0.2, evaluate_every=60)
    task = DrafterTask(fresh_drafter(target, MASK, shape), documents, documents, shape, config)
    before = task.evaluate()
    fit(task, config, tmp_path, report=lambda said: None)
    after = task.evaluate()
    assert after["heldout_loss"] < 0.5 * before["heldout_loss"]
    assert after["heldout_gained"] > 1.5 * before["heldout_gained"]
    assert torch.equal(lent, target.lm_head.weight)  # the target's own head is only borrowed
