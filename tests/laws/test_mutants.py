"""Planted bugs: a law that catches none is not a law.

A row of the table is a bug, how it is planted, and the law that must catch it.
"""
# ruff: noqa: E501 (a bug is a line)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch

from floodstage.core.types import Forward, Sampling, Verdict
from floodstage.decoding import loop, verifiers
from floodstage.decoding.loop import Decoder
from floodstage.decoding.noise import NoiseStream
from floodstage.decoding.verifiers import History, MatchJudge, RejectJudge
from floodstage.drafting import block_diffusion, draft_model, each
from floodstage.drafting.block_diffusion import BlockDiffusionSession
from floodstage.drafting.draft_model import ModelSession
from floodstage.drafting.ngram import NgramSession
from floodstage.models.block_diffusion import BlockDiffusion
from floodstage.models.cache import KVCache

from . import laws
from .cases import (
    DRAFTERS,
    SCHEDULERS,
    SELF,
    STOP,
    TINY,
    TOY,
    VERIFIERS,
    WARM,
    greedy_texts,
    law_case,
    requests,
    sampled_texts,
)
from .laws import Case
from .scripted import Scripted, right
from .tiny import tiny_drafter, tiny_target
from .toy import ToyState

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    bug: str
    plant: Plant
    law: Callable[[], None]


# --- How a bug is planted ------------------------------------------------------------------------


def instead(owner: object, name: str, wrong: object) -> Plant:
    """`owner.name` becomes `wrong`."""
    return lambda patch: patch.setattr(owner, name, wrong, raising=False)


def around(owner: object, name: str, wrong: Callable[..., Any]) -> Plant:
    """`owner.name(...)` becomes `wrong(the original, ...)`."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **more: wrong(original, *args, **more))

    return plant


# --- The bugs ------------------------------------------------------------------------------------


def one_token_more(rollback, state, slot, length):
    rollback(state, slot, min(length + 1, state.lengths[slot]))


def one_token_less(rollback, state, slot, length):
    rollback(state, slot, max(length - 1, 0))


def rows_stay(state, slot, base, path):
    state.rollback(slot, base + 1 + len(path))


def only_the_last_row_moves(keep, state, slot, base, path):
    keep(state, slot, base, [*range(len(path) - 1), path[-1]] if path else path)


def no_swap(row, slot):
    row.pop()


def no_move(state, slot):
    state.lengths[slot] = state.lengths[-1]
    state.lengths.pop()


def drawn_afresh(forget, noise, position):
    noise.kept.clear()
    noise.base = position


def noise_by_row(rows, noise, positions):
    return rows(noise, list(range(positions[0], positions[0] + len(positions))))


def bonus_of_the_row_before(decide, judge, draft, numbers):
    verdict = decide(judge, draft, numbers)
    own, path = numbers[len(draft) :], verdict.path
    before = path[-2] + 1 if len(path) > 1 else 0
    return replace(verdict, tokens=(*verdict.tokens[:-1], own[before]))


def bonus_by_depth(decide, judge, draft, numbers):
    verdict = decide(judge, draft, numbers)
    own = numbers[len(draft) :]
    return replace(verdict, tokens=(*verdict.tokens[:-1], own[len(verdict.path)]))


def bonus_of_the_last_row(decide, judge, draft, numbers):
    verdict = decide(judge, draft, numbers)
    return replace(verdict, tokens=(*verdict.tokens[:-1], numbers[-1]))


def without_residual(reject, tokens, draft_p, target_p, uniform, noise):
    return reject(tokens, draft_p, target_p, uniform, noise)[0], (target_p.log() + noise).argmax(-1)


def one_too_many(decide, judge, draft, numbers):
    """Keeps the first rejected token and then the target's."""
    verdict = decide(judge, draft, numbers)
    at = len(verdict.path)
    if at == len(draft):
        return verdict
    kept = (*verdict.tokens[:-1], numbers[at], verdict.tokens[-1])
    return Verdict(tuple(range(at + 1)), kept)


def sharper(reject, tokens, draft_p, *rest):
    """The ratio is taken to another q than the one that was drawn from."""
    if draft_p is None:
        return reject(tokens, draft_p, *rest)
    sharp = draft_p**2 / (draft_p**2).sum(-1, keepdim=True)
    return reject(tokens, sharp, *rest)


def peeks_at_the_bonus(decide, judge, draft, numbers):
    """Throws away a bonus it does not like, to draw again in the next cycle."""
    verdict = decide(judge, draft, numbers)
    if verdict.path and verdict.tokens[-1] == 0:
        return Verdict(verdict.path[:-1], verdict.tokens[:-1])
    return verdict


def sure_of_what_it_drew(draft, session, tokens, laws_):
    out = draft(session, tokens, laws_)
    if not len(out):
        return out
    return replace(out, confidence=torch.stack(laws_).gather(-1, out.tokens[:, None])[:, 0])


def certain_scored_as_drawn(draft, session, tokens, laws_):
    return replace(draft(session, tokens, laws_), probs=torch.stack(laws_) if laws_ else None)


def the_judges_own_numbers(join, session, request, taps):
    join(session, request, taps)
    session.generators[-1].manual_seed(request.seed)


def remembers_the_rejected(observe, session, commits):
    for slot, commit in enumerate(commits):
        true = [*session.behind[slot], commit.pending, *commit.tokens[:-1]]
        held = session.state.lengths[slot] - session.bases[slot]
        session.bases[slot] += held
        session.behind[slot] = true[held:]


def forgets_what_it_has_not_read(observe, session, commits):
    observe(session, commits)
    session.behind = [late[-1:] for late in session.behind]


def forgets_taps_of_empty_cycles(propose, session, pending, budgets):
    if max(budgets) == 0:
        for memory in session.memories[1:]:
            memory.unread = []
    return propose(session, pending, budgets)


def keeps_a_slot_of_the_block(draft, net, cache, taps, counts, *rest):
    out = draft(net, cache, taps, counts, *rest)
    cache.extend(0, [1] * len(counts))
    return out


def knows_the_bonus_too(observe, session, commit):
    observe(session, commit)
    session._extend(commit.tokens[-1:])


def taps_of_the_row_before(commit, decoder, bases, counts, drafts, verdicts, out):
    out = Forward(out.logits, out.taps.roll(1, 0))
    return commit(decoder, bases, counts, drafts, verdicts, out)


def taps_of_the_first_rows(commit, decoder, bases, counts, drafts, verdicts, out):
    commits = commit(decoder, bases, counts, drafts, verdicts, out)
    rows = torch.split(out.taps, list(counts))
    return [replace(c, taps=r[: len(c.tokens)]) for c, r in zip(commits, rows, strict=True)]


def taps_of_a_neighbour(commit, decoder, bases, counts, drafts, verdicts, out):
    out = Forward(out.logits, out.taps[: counts[0]].repeat(len(counts) * max(counts), 1))
    return commit(decoder, bases, counts, drafts, verdicts, out)


def only_the_last_token_stops(cut, live, tokens):
    asked = live.request
    if tokens[-1] not in asked.stop_ids:
        live.request = replace(asked, stop_ids=frozenset())
    given = cut(live, tokens)
    live.request = asked
    return given


def one_stop_id_only(cut, live, tokens):
    asked = live.request
    live.request = replace(asked, stop_ids=frozenset(sorted(asked.stop_ids)[:1]))
    given = cut(live, tokens)
    live.request = asked
    return given


def the_stop_id_is_not_given(cut, live, tokens):
    given, finish = cut(live, tokens)
    return (given[:-1] if finish == "stop" and len(given) > 1 else given), finish


def room_for_one_more(number, request, judge, pending, left):
    return Live(number, request, judge, pending, left + 1)


Live = loop.Live


def text_only(before, history, draft):
    return before(history, None)


def all_of_the_draft(before, history, draft):
    rows = before(history, draft)
    return rows if rows is None else rows.any(0, keepdim=True).expand(rows.shape)


def bonus_only(add, history, tokens):
    add(history, tokens[-1:])


def not_the_first(first, judge, logits):
    add, judge.history.add = judge.history.add, lambda tokens: None
    token = first(judge, logits)
    judge.history.add = add
    return token


# --- The laws, on cases where the bug can show ---------------------------------------------------

ROOM = 64
"""A law should fail because the text is wrong, not because a state that holds too much is full."""


@cache
def greedy(drafter: str, verifier: str = "match", slots: int = 1, penalty: float = 1.0):
    """On the toy; `tiny-...` is on the transformer."""

    def law() -> None:
        name = drafter.removeprefix("tiny-")
        target, make = (TOY, DRAFTERS[name]) if name == drafter else (tiny_target(), TINY[name])
        asked = requests(Sampling(repetition_penalty=penalty))
        case = Case(
            target=target,
            drafter=make(greedy_texts(target, asked)),
            requests=asked,
            verifier=VERIFIERS[verifier],
            slots=slots,
            room=ROOM,
        )
        laws.greedy_output_is_the_targets_own(case)

    return law


@cache
def same_seed(drafter: str, sampling: Sampling = WARM):
    def law() -> None:
        asked = requests(sampling)
        drafts = DRAFTERS[drafter](sampled_texts(TOY, asked))
        case = Case(target=TOY, drafter=drafts, requests=asked, room=ROOM)
        laws.sampled_output_is_that_of_plain_decoding(case)

    return law


@cache
def fresh(drafter: str, scheduler: str = "7", slots: int = 1):
    def law() -> None:
        block = drafter == "tiny-block-diffusion"
        case = Case(
            target=tiny_target() if block else TOY,
            drafter=tiny_drafter() if block else DRAFTERS[drafter](()),
            requests=requests(WARM)[:4] if block else requests(WARM),
            scheduler=SCHEDULERS[scheduler],
            slots=slots,
            room=ROOM,
        )
        laws.drafts_are_those_of_a_fresh_session(case)

    return law


@cache
def itself(drafter: str, scheduler: str = "7", slots: int = 1):
    def law() -> None:
        case = Case(
            target=TOY,
            drafter=SELF[drafter],
            requests=requests(),
            scheduler=SCHEDULERS[scheduler],
            slots=slots,
            room=ROOM,
        )
        laws.target_never_rejects_itself(case)

    return law


@cache
def alone(drafter: str, verifier: str = "match"):
    def law() -> None:
        case = Case(
            target=TOY,
            drafter=DRAFTERS[drafter](()),
            requests=requests(WARM),
            verifier=VERIFIERS[verifier],
            slots=3,
            room=ROOM,
        )
        laws.a_batch_gives_each_what_it_gets_alone(case)

    return law


@cache
def ends(*stop_ids: int):
    def law() -> None:
        free = requests()
        asked = requests(stop_ids=frozenset(stop_ids))
        drafts = Scripted(right, greedy_texts(TOY, free))
        case = Case(target=TOY, drafter=drafts, requests=asked, room=ROOM)
        laws.output_ends_where_it_should(case)
        laws.greedy_output_is_the_targets_own(case)

    return law


def fits() -> None:
    asked = requests()
    case = Case(
        target=TOY, drafter=Scripted(right, greedy_texts(TOY, asked)), requests=asked, room=ROOM
    )
    laws.drafts_fit_what_is_left(case)


@cache
def exact(drafter: str, scheduler: str = "7", verifier: str = "reject"):
    return lambda: laws.output_follows_the_exact_law(
        law_case(drafter, scheduler, verifier), samples=1500
    )


@cache
def forgets(target: object):
    def law() -> None:
        for seed in range(2):
            laws.state_holds_the_text_and_only_that(target, seed, turns=16)

    return law


MUTANTS = [
    # What the target remembers
    Mutant("rollback keeps a rejected token", around(ToyState, "rollback", one_token_more), greedy("alternating")),
    Mutant("rollback forgets a kept token", around(ToyState, "rollback", one_token_less), greedy("alternating")),
    Mutant("the cache keeps a rejected token", around(KVCache, "rollback", one_token_more), greedy("tiny-alternating")),
    Mutant("the cache rolls back one too far", around(KVCache, "rollback", one_token_less), forgets(tiny_target())),
    Mutant("keep does not move tree rows", instead(ToyState, "keep", rows_stay), greedy("forest")),
    Mutant("the cache does not move tree rows", instead(KVCache, "keep", rows_stay), greedy("tiny-forest")),
    Mutant("keep moves only the last tree row", around(ToyState, "keep", only_the_last_row_moves), greedy("forest")),
    Mutant("a state leaves without moving the last", instead(ToyState, "leave", no_move), alone("none")),
    Mutant("a cache leaves without moving the last", instead(KVCache, "leave", no_move), forgets(tiny_target())),
    # What is drawn, and where
    Mutant("noise belongs to passes, not to places", around(NoiseStream, "forget", drawn_afresh), same_seed("toy-block")),
    Mutant("noise goes by row, not by depth", around(NoiseStream, "rows", noise_by_row), same_seed("forest")),
    Mutant("reject without residual", around(verifiers, "reject", without_residual), exact("sampled")),
    Mutant("reject against another q", around(verifiers, "reject", sharper), exact("sampled")),
    Mutant("argmax drafts scored as drawn", around(ModelSession, "_draft", certain_scored_as_drawn), exact("draft-model")),
    Mutant("draft and judge share random numbers", around(ModelSession, "join", the_judges_own_numbers), exact("sampled")),
    Mutant("a rejected draft token is kept", around(RejectJudge, "decide", one_too_many), exact("sampled")),
    Mutant("a bonus is thrown away after a look", around(RejectJudge, "decide", peeks_at_the_bonus), exact("sampled")),
    Mutant("a cut looks at the token it cuts", around(ModelSession, "_draft", sure_of_what_it_drew), exact("sampled", "confidence")),
    Mutant("the bonus is of the row before", around(MatchJudge, "decide", bonus_of_the_row_before), greedy("alternating")),
    Mutant("the bonus of a tree goes by depth", around(MatchJudge, "decide", bonus_by_depth), greedy("forest")),
    Mutant("the bonus is of the last row", around(RejectJudge, "decide", bonus_of_the_last_row), greedy("alternating", "reject")),
    Mutant("the penalty does not see the draft", around(History, "before", text_only), greedy("right", penalty=1.5)),
    Mutant("the penalty does not see the draft when sampling", around(History, "before", text_only), same_seed("right", Sampling(temperature=0.7, repetition_penalty=1.5))),
    Mutant("the penalty sees the draft's future", around(History, "before", all_of_the_draft), greedy("wrong", "reject", penalty=1.5)),
    Mutant("the penalty forgets accepted tokens", around(History, "add", bonus_only), greedy("right", penalty=1.5)),
    Mutant("the penalty forgets the first token", around(MatchJudge, "first", not_the_first), greedy("none", penalty=3.0)),
    Mutant("the penalty forgets the first token when rejecting", around(RejectJudge, "first", not_the_first), greedy("none", "reject", penalty=3.0)),
    # What a drafter remembers
    Mutant("a draft model keeps rejected positions", around(ModelSession, "observe", remembers_the_rejected), fresh("draft-model")),
    Mutant("a draft model forgets empty cycles", around(ModelSession, "observe", forgets_what_it_has_not_read), itself("draft-model", "turns")),
    Mutant("a block stays in the drafter's cache", around(BlockDiffusion, "draft", keeps_a_slot_of_the_block), fresh("tiny-block-diffusion")),
    Mutant("taps of empty cycles are lost", around(BlockDiffusionSession, "propose", forgets_taps_of_empty_cycles), fresh("tiny-block-diffusion", "turns", 3)),
    Mutant("the bonus is written down twice", around(NgramSession, "observe", knows_the_bonus_too), fresh("ngram")),
    Mutant("committed taps are of the row before", around(Decoder, "_commit", taps_of_the_row_before), fresh("toy-block")),
    Mutant("committed taps of a tree are its first rows", around(Decoder, "_commit", taps_of_the_first_rows), fresh("toy-tree")),
    Mutant("committed taps are a neighbour's", around(Decoder, "_commit", taps_of_a_neighbour), fresh("toy-block", slots=3)),
    Mutant("ngram slots are not swapped on leave", instead(each, "vacate", no_swap), fresh("ngram", slots=3)),
    Mutant("draft model slots are not swapped", instead(draft_model, "vacate", no_swap), fresh("draft-model", "turns", 3)),
    Mutant("unread taps are not swapped", instead(block_diffusion, "vacate", no_swap), fresh("tiny-block-diffusion", "turns", 3)),
    # Where a text ends
    Mutant("the loop does not swap the last sequence in", instead(loop, "vacate", no_swap), alone("none")),
    Mutant("a stop id inside a block is overlooked", around(loop, "cut", only_the_last_token_stops), ends(STOP)),
    Mutant("only one stop id counts", around(loop, "cut", one_stop_id_only), ends(STOP, 6)),
    Mutant("the stop id itself is not given", around(loop, "cut", the_stop_id_is_not_given), ends(STOP)),
    Mutant("a token too many", instead(loop, "Live", room_for_one_more), ends()),
    Mutant("a draft longer than what is left", instead(loop, "min", lambda a, b: a), fits),
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.bug)
def test_a_planted_bug_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        mutant.plant(patch)
        with pytest.raises(AssertionError):
            mutant.law()


ASKED_ELSEWHERE = {exact("sampled"), exact("sampled", "confidence"), exact("draft-model")}
"""`test_exact_law` asks these of the code as it is, and they take a second each."""

LAWS = {mutant.law: mutant.bug for mutant in MUTANTS if mutant.law not in ASKED_ELSEWHERE}


@pytest.mark.parametrize("law", LAWS, ids=LAWS.values())
def test_without_the_bug_the_same_law_holds(law: Callable[[], None]) -> None:
    law()
