"""Losslessness hides a broken drafter: these laws look at the drafts themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from floodstage.core.types import Sampling
from floodstage.scheduling.fixed import FixedScheduler

from . import laws
from .cases import REAL, SCHEDULERS, SELF, SHAPED, TINY, TOY, TRAJECTORY, VERIFIERS, WARM, requests
from .laws import Case
from .tiny import MASK, tiny_drafter, tiny_target

CERTAIN = [name for name in REAL if name not in ("none", "sampled", *TRAJECTORY)]
"""Drafters whose draft is a function of the text. Those that remember the target's guesses obey
another law: see `test_trajectory`."""


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("scheduler", ["1", "7", "confidence", "turns"])
@pytest.mark.parametrize("drafter", CERTAIN)
def test_every_draft_is_the_draft_of_a_fresh_session(
    drafter: str, scheduler: str, slots: int
) -> None:
    case = Case(
        target=TOY,
        drafter=REAL[drafter](()),
        requests=requests(WARM),
        scheduler=SCHEDULERS[scheduler],
        slots=slots,
    )
    laws.drafts_are_those_of_a_fresh_session(case)


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize(("scheduler", "slots"), [("7", 1), ("7", 3), ("turns", 3)])
def test_every_block_is_the_block_of_a_fresh_session(
    scheduler: str, slots: int, window: int | None
) -> None:
    case = Case(
        target=tiny_target(window=window),
        drafter=tiny_drafter(window=window),
        requests=requests(WARM, sizes=(24, 9, 1, 17, 2)),
        scheduler=SCHEDULERS[scheduler],
        slots=slots,
    )
    laws.drafts_are_those_of_a_fresh_session(case)


@pytest.mark.parametrize("drafter", SHAPED)
def test_every_tree_is_the_tree_of_a_fresh_session(drafter: str) -> None:
    case = Case(
        target=tiny_target(),
        drafter=SHAPED[drafter],
        requests=requests(WARM, sizes=(16, 9, 1, 12)),
        scheduler=lambda: FixedScheduler(SHAPED[drafter].draft_len),
        slots=3,
    )
    laws.drafts_are_those_of_a_fresh_session(case)


@pytest.mark.parametrize("drafter", ["draft-model", "self"])
def test_every_draft_of_a_transformer_is_the_draft_of_a_fresh_session(drafter: str) -> None:
    case = Case(
        target=tiny_target(),
        drafter=TINY[drafter](()),
        requests=requests(WARM, sizes=(16, 9, 1, 12)),
        scheduler=SCHEDULERS["turns"],
        slots=3,
    )
    laws.drafts_are_those_of_a_fresh_session(case)


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("scheduler", ["1", "7", "confidence", "turns"])
@pytest.mark.parametrize("drafter", ["draft-model", "toy-block"])
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_the_target_never_rejects_itself(
    drafter: str, verifier: str, scheduler: str, slots: int
) -> None:
    case = Case(
        target=TOY,
        drafter=SELF[drafter],
        requests=requests(),
        verifier=VERIFIERS[verifier],
        scheduler=SCHEDULERS[scheduler],
        slots=slots,
    )
    laws.target_never_rejects_itself(case)


@pytest.mark.parametrize("scheduler", ["1", "7", "confidence", "turns"])
def test_the_target_never_rejects_what_it_sampled_itself(scheduler: str) -> None:
    case = Case(
        target=TOY,
        drafter=SELF["sampled"],
        requests=requests(WARM),
        verifier=VERIFIERS["reject"],
        scheduler=SCHEDULERS[scheduler],
        slots=3,
    )
    laws.target_never_rejects_itself(case)


@pytest.mark.parametrize("verifier", VERIFIERS)
@pytest.mark.parametrize("scheduler", ["7", "turns"])
def test_a_transformer_never_rejects_itself(scheduler: str, verifier: str) -> None:
    case = Case(
        target=tiny_target(),
        drafter=TINY["self"](()),
        requests=requests(sizes=(24, 9, 1, 17)),
        verifier=VERIFIERS[verifier],
        scheduler=SCHEDULERS[scheduler],
        slots=3,
    )
    laws.target_never_rejects_itself(case)


def test_a_tree_that_holds_the_targets_text_is_followed_to_its_end() -> None:
    """Seven nodes are three runner-ups before three guesses, and one more runner-up."""
    (request,) = requests(sizes=(26,))
    (steps,) = laws.run(Case(target=TOY, drafter=SELF["toy-tree"], requests=(request,)))
    full = [step.record for step in steps if step.record.verified == 7]
    assert full
    assert all(r.accepted == 3 for r in full)


def test_a_block_reads_a_mask_id_in_the_text_as_that_token() -> None:
    (request,) = requests(Sampling(), sizes=(12,))
    drafts = []
    for prompt in ((1, MASK, 2), (1, 2)):
        taps = laws.fresh(tiny_target(), prompt, tiny_drafter().taps)[1]
        session = tiny_drafter().begin(1, 32)
        session.join(replace(request, prompt=prompt), taps)
        drafts.append(session.propose([MASK], [7])[0].confidence.tolist())
    assert drafts[0] != drafts[1]
