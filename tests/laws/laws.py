"""The laws of the decode loop, each a plain function that raises AssertionError.

The tests ask them of the code as it is; the mutants ask them of the code with a bug planted.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from floodstage.core.protocols import Drafter, Scheduler, Target, Verifier
from floodstage.core.types import Draft, Request, Step, TokenIds
from floodstage.decoding.loop import decode
from floodstage.decoding.verifiers import MatchVerifier
from floodstage.drafting.none import NoDrafter
from floodstage.ops.sampling import adjust
from floodstage.scheduling.fixed import FixedScheduler

from .scripted import Recorder

ALARM = 1e-6
"""The chance with which a statistical law calls correct code wrong, over fresh seeds."""

MATCH = MatchVerifier()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to run the loop over some requests."""

    target: Target
    drafter: Drafter
    requests: tuple[Request, ...]
    verifier: Verifier = MATCH
    scheduler: Callable[[], Scheduler] = lambda: FixedScheduler(7)
    slots: int = 1
    room: int = 0  # cells beyond what the longest request needs


def run(case: Case) -> list[list[Step]]:
    """The steps of every request; each ends once, at its end."""
    steps: list[list[Step]] = [[] for _ in case.requests]
    capacity = max(len(r.prompt) + r.max_new_tokens for r in case.requests) + case.room
    for step in decode(
        case.target,
        case.drafter,
        case.verifier,
        case.scheduler(),
        case.requests,
        slots=case.slots,
        capacity=capacity,
    ):
        steps[step.sequence].append(step)
    for own in steps:
        assert [s.finish is not None for s in own] == [False] * (len(own) - 1) + [True]
    return steps


def ids(steps: Sequence[Step]) -> TokenIds:
    return tuple(token for step in steps for token in step.tokens)


def written(case: Case) -> list[TokenIds]:
    return [ids(steps) for steps in run(case)]


def plain(case: Case) -> Case:
    """The same requests one by one, without a draft."""
    return replace(case, drafter=NoDrafter(), scheduler=lambda: FixedScheduler(0), slots=1)


def fresh(
    target: Target, text: TokenIds, taps: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor | None]:
    """The logits [V] after a text and its taps, by a state that has seen nothing else."""
    out = target.forward(
        target.begin(1, len(text), taps=taps), [torch.tensor(text)], last_only=True
    )
    return out.logits[-1], out.taps


@cache
def own_text(target: Target, request: Request) -> TokenIds:
    """What the target writes by itself at temperature 0, without the loop and its verifiers."""
    text, out = request.prompt, ()
    while len(out) < request.max_new_tokens:
        logits = fresh(target, text)[0].tolist()
        for token in set(text):
            penalty = request.sampling.repetition_penalty
            logits[token] *= penalty if logits[token] < 0 else 1 / penalty
        token = logits.index(max(logits))
        text, out = (*text, token), (*out, token)
        if token in request.stop_ids:
            break
    return out


# --- What is written -----------------------------------------------------------------------------


def greedy_output_is_the_targets_own(case: Case) -> None:
    for request, got in zip(case.requests, written(case), strict=True):
        assert request.sampling.greedy
        assert got == own_text(case.target, request), request


def sampled_output_is_that_of_plain_decoding(case: Case) -> None:
    """Token for token: the noise belongs to places in the text."""
    for request, got, want in zip(case.requests, written(case), written(plain(case)), strict=True):
        assert got == want, request


def output_ends_where_it_should(case: Case) -> None:
    """Exactly `max_new_tokens`, unless a stop id comes before; nothing after it."""
    for request, steps in zip(case.requests, run(case), strict=True):
        got, finish = ids(steps), steps[-1].finish
        stops = [i for i, token in enumerate(got) if token in request.stop_ids]
        assert all(step.tokens for step in steps), "a cycle always gains a token"
        if finish == "stop":
            assert stops == [len(got) - 1], request
            assert len(got) <= request.max_new_tokens
        else:
            assert finish == "length"
            assert not stops
            assert len(got) == request.max_new_tokens, request


def drafts_fit_what_is_left(case: Case) -> None:
    """Nothing is drafted, verified or counted that the text has no room for."""
    for request, steps in zip(case.requests, run(case), strict=True):
        left = request.max_new_tokens
        for step in steps:
            record = step.record
            assert record.accepted <= record.verified <= record.drafted, record
            assert record.drafted <= max(0, left - 1), (record, left)
            assert step.accepted <= len(step.tokens) <= record.gained
            assert 1 <= record.batch <= case.slots
            left -= len(step.tokens)


def a_batch_gives_each_what_it_gets_alone(case: Case) -> None:
    """The tokens, and the very same drafts."""
    together = run(case)
    for i, request in enumerate(case.requests):
        (alone,) = run(replace(case, requests=(request,), slots=1))
        assert ids(together[i]) == ids(alone), request
        counts = [
            [(s.record.drafted, s.record.verified, s.record.accepted) for s in steps]
            for steps in (together[i], alone)
        ]
        assert counts[0] == counts[1], request


# --- What is drafted -----------------------------------------------------------------------------


def target_never_rejects_itself(case: Case) -> None:
    """Of a drafter that is the target. Losslessness hides a stale one: this shows it."""
    drafted = 0
    for steps in run(case):
        for step in steps:
            assert step.record.accepted == step.record.verified, step
            drafted += step.record.drafted
    assert drafted, "the case is too easy"


def drafts_are_those_of_a_fresh_session(case: Case) -> None:
    """After rejections, empty drafts and swapped slots a session knows the text and only that."""
    recorder = Recorder(case.drafter)
    run(replace(case, drafter=recorder))
    assert recorder.notes
    for request, text, pending, budget, draft in recorder.notes:
        session = case.drafter.begin(1, recorder.capacity)
        _, taps = fresh(case.target, text, case.drafter.taps)
        session.join(replace(request, prompt=text), taps)
        (want,) = session.propose([pending], [budget])
        same_draft(draft, want)


def same_draft(got: Draft, want: Draft) -> None:
    assert got.tokens.tolist() == want.tokens.tolist()
    assert got.parents == want.parents
    for ours, theirs in ((got.confidence, want.confidence), (got.probs, want.probs)):
        assert (ours is None) == (theirs is None) or len(got) == 0
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


# --- What is remembered --------------------------------------------------------------------------


def state_holds_the_text_and_only_that(target: Target, seed: int, turns: int = 30) -> None:
    """After any joins, passes, rollbacks, kept branches and leavings every row of every pass is
    that of a fresh state."""
    rng = random.Random(seed)
    slots, taps = 3, (1, 2)
    state = target.begin(slots, 64, taps=taps)
    texts: list[TokenIds] = []

    def draw(size: int) -> TokenIds:
        return tuple(rng.randrange(target.vocab_size) for _ in range(size))

    for _ in range(turns):
        if len(texts) < slots and (not texts or rng.random() < 0.3):
            texts.append(draw(rng.randint(1, 9)))
            prompt = [torch.tensor(texts[-1])]
            out = target.forward(state, prompt, first=len(texts) - 1, last_only=True)
            logits, features = fresh(target, texts[-1], taps)
            same_rows(out.logits[-1], logits)
            same_rows(out.taps, features)
        if rng.random() < 0.15 or max(map(len, texts)) > 50:
            slot = rng.randrange(len(texts))
            state.leave(slot)
            texts[slot] = texts[-1]
            texts.pop()
        if texts:
            texts = _one_pass(target, state, texts, rng, draw, taps)
        assert list(state.lengths) == [len(text) for text in texts]


def _one_pass(
    target: Target,
    state: object,
    texts: list[TokenIds],
    rng: random.Random,
    draw: Callable[[int], TokenIds],
    taps: tuple[int, ...],
) -> list[TokenIds]:
    """Rows for every sequence, chains and trees mixed; each then keeps a part of its own."""
    bases = [len(text) for text in texts]
    rows = [draw(rng.randint(1, 6)) for _ in texts]
    parents = [
        tuple(rng.randrange(-1, i) for i in range(len(r) - 1))
        if target.trees and rng.random() < 0.6
        else None
        for r in rows
    ]
    out = target.forward(state, [torch.tensor(r) for r in rows], parents=parents)
    after: list[TokenIds] = []
    at = 0
    for slot, (text, new, tree) in enumerate(zip(texts, rows, parents, strict=True)):
        above = tree if tree is not None else tuple(range(-1, len(new) - 2))
        paths = [()]  # of draft nodes, root first
        for node, parent in enumerate(above):
            paths.append((*paths[parent + 1], node))
        for path in paths:
            branch = (*text, new[0], *(new[node + 1] for node in path))
            row = at + (path[-1] + 1 if path else 0)
            logits, features = fresh(target, branch, taps)
            same_rows(out.logits[row], logits)
            same_rows(out.taps[row], features[-1])
        path = rng.choice(paths)
        if tree is not None:
            state.keep(slot, bases[slot], path)
        else:
            state.rollback(slot, bases[slot] + 1 + len(path))
        after.append((*text, new[0], *(new[node + 1] for node in path)))
        at += len(new)
    return after


def same_rows(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


# --- What is drawn -------------------------------------------------------------------------------


def exact_law(target: Target, request: Request) -> dict[TokenIds, float]:
    """The chance of every output, by enumeration."""
    law = {(): 1.0}
    for _ in range(request.max_new_tokens):
        longer: dict[TokenIds, float] = {}
        for out, chance in law.items():
            if out and out[-1] in request.stop_ids:
                longer[out] = chance
                continue
            text = (*request.prompt, *out)
            logits, _ = fresh(target, text)
            seen = torch.zeros(1, target.vocab_size, dtype=torch.bool)
            seen[0, list(text)] = True
            step = adjust(logits[None].double(), request.sampling, seen)[0].double().softmax(-1)
            for token, p in enumerate(step.tolist()):
                longer[(*out, token)] = chance * p
        law = {out: chance for out, chance in longer.items() if chance > 0.0}
    return law


def output_follows_the_exact_law(case: Case, samples: int) -> None:
    """Pearson's chi-square over all outputs of the one request; a false alarm has chance ALARM."""
    (request,) = case.requests
    many = tuple(replace(request, seed=i) for i in range(samples))
    seen = Counter(written(replace(case, requests=many, slots=32)))
    p_value = chi_square(seen, exact_law(case.target, request), samples)
    assert p_value > ALARM, p_value


def chi_square(seen: Counter[TokenIds], law: dict[TokenIds, float], samples: int) -> float:
    """The chance of counts as far from the law as these; 0 if something impossible was seen."""
    if any(out not in law for out in seen):
        return 0.0
    bins: list[tuple[float, int]] = []
    expected, count = 0.0, 0
    for out, chance in sorted(law.items(), key=lambda item: item[1]):
        expected, count = expected + chance * samples, count + seen[out]
        if expected >= 5.0:  # below that Pearson's statistic has no chi-square law
            bins.append((expected, count))
            expected, count = 0.0, 0
    if bins and expected:
        bins[-1] = (bins[-1][0] + expected, bins[-1][1] + count)
    statistic = sum((count - e) ** 2 / e for e, count in bins)
    freedom = torch.tensor((len(bins) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=torch.float64)))
