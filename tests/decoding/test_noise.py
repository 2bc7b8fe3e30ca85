"""Noise that belongs to places in the text."""

from __future__ import annotations

import pytest
import torch

from floodstage.decoding.noise import NoiseStream

CPU = torch.device("cpu")


def stream(seed: int = 0) -> NoiseStream:
    return NoiseStream(seed, 5, CPU)


@pytest.mark.parametrize("steps", [[1] * 12, [3, 1, 5, 3], [12]])
def test_a_place_has_one_noise_however_many_passes_it_takes(steps: list[int]) -> None:
    want = stream().rows(list(range(20)))
    noise, at = stream(), 0
    for step in steps:
        ahead = list(range(at, at + 8))  # most of what is looked at is looked at again
        assert torch.equal(noise.rows(ahead), want[ahead])
        at += step
        noise.forget(at)


def test_places_may_be_asked_for_in_any_order_and_twice() -> None:
    want, noise = stream().rows(list(range(6))), stream()
    for places in ([4, 0, 4], [2], [5, 1]):
        assert torch.equal(noise.rows(places), want[places])


def test_other_seeds_and_other_places_have_other_noise() -> None:
    rows = torch.cat([stream(0).rows([0, 1, 2]), stream(1).rows([0, 1, 2])])
    assert rows.unique(dim=0).shape[0] == 6


def test_what_is_forgotten_takes_no_room() -> None:
    noise = stream()
    noise.rows(list(range(30)))
    noise.forget(28)
    assert len(noise.kept) == 2
