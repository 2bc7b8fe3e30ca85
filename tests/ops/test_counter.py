"""Counter-based random numbers: of a place, not of a moment."""

from __future__ import annotations

import torch

from floodstage.ops.counter import uniform


def test_a_number_is_the_same_alone_and_in_a_batch() -> None:
    ids, draws = torch.arange(50), torch.arange(40)
    batch = uniform(7, 1, ids[:, None], draws)
    assert batch.shape == (50, 40)
    assert batch.dtype == torch.float64
    assert uniform(7, 1, torch.tensor(13), torch.tensor(39)) == batch[13, 39]
    assert uniform(7, 1, torch.tensor(13), 39) == batch[13, 39]


def test_numbers_are_even_and_unrelated() -> None:
    n = 400
    found = uniform(0, torch.arange(n)[:, None], torch.arange(n))
    assert found.min() >= 0 and found.max() < 1  # noqa: PT018
    counts = torch.histc(found.float(), 20, 0, 1)
    expected = n * n / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 45  # chi2(19): 1 in 1,500
    seeded = uniform(1, torch.arange(n)[:, None], torch.arange(n))
    for other in (found.roll(1, 0), found.roll(1, 1), found.T, seeded):
        both = torch.corrcoef(torch.stack([found.flatten(), other.flatten()]))
        assert abs(float(both[0, 1])) < 0.012
    assert len(found.unique()) == n * n


def test_every_counter_counts() -> None:
    ids = torch.arange(10)
    a = uniform(1, 2, 3, ids)
    for key in ((2, 2, 3), (1, 3, 2), (1, 2, 4), (-1, 2, 3)):
        assert not (a == uniform(*key, ids)).any()
