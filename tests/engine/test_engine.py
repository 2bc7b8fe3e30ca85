"""An engine writes the same text however it is asked, and refuses what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from floodstage.core.errors import ConfigError, ContextError
from floodstage.engine.engine import Engine, Generation

PROMPTS = ("What is 3 + 4?", "Tom has 17 boxes.", "x", "12 × 12 = 144. 12 × 13 =")
DRAFTERS = ("none", "ngram", "tiny")
WARM: dict[str, Any] = {"temperature": 0.8, "seed": 3}


@pytest.fixture(scope="module")
def engines(engine_of: Callable[..., Engine]) -> dict[str, Engine]:
    return {name: engine_of(name) for name in DRAFTERS}


def outcome(g: Generation) -> tuple[Any, ...]:
    return g.ids, g.text, g.finish


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("options", [{}, WARM], ids=["greedy", "warm"])
def test_a_stream_a_text_and_a_batch_are_one(
    engines: dict[str, Engine], drafter: str, options: dict[str, Any]
) -> None:
    engine = engines[drafter]
    alone = [engine.generate(p, max_new_tokens=24, **options) for p in PROMPTS]
    for slots in (2, 8):
        batch = engine.generate_batch(PROMPTS, slots=slots, max_new_tokens=24, **options)
        assert list(map(outcome, batch)) == list(map(outcome, alone))
    chunks = list(engine.stream(PROMPTS[0], max_new_tokens=24, **options))
    assert "".join(c.text for c in chunks) == alone[0].text
    assert [c.generation is None for c in chunks] == [True] * (len(chunks) - 1) + [False]
    assert len(chunks) == len(alone[0].records)


@pytest.mark.parametrize("options", [{}, WARM], ids=["greedy", "warm"])
def test_a_drafter_changes_nothing_but_the_speed(
    engines: dict[str, Engine], options: dict[str, Any]
) -> None:
    plain, *others = (
        engine.generate_batch(PROMPTS, max_new_tokens=40, **options) for engine in engines.values()
    )
    for other in others:
        assert list(map(outcome, other)) == list(map(outcome, plain))
    assert all(g.tau == 1.0 for g in plain)
    if not options:
        assert max(g.tau for g in others[1]) > 1.0


@pytest.mark.parametrize("drafter", ["ngram", "tiny"])
@pytest.mark.parametrize("options", [{}, WARM], ids=["greedy", "warm"])
def test_a_stop_string_cuts_the_same_ids_with_and_without_a_drafter(
    engines: dict[str, Engine], drafter: str, options: dict[str, Any]
) -> None:
    whole = engines["none"].generate(PROMPTS[0], max_new_tokens=40, **options).text
    for at in (0, 3, 11, 20):
        stop = (whole[at : at + 3], "never written")
        plain = engines["none"].generate(PROMPTS[0], max_new_tokens=40, stop=stop, **options)
        drafted = engines[drafter].generate(PROMPTS[0], max_new_tokens=40, stop=stop, **options)
        assert outcome(drafted) == outcome(plain)
        assert plain.finish == "stop"
        assert plain.text == whole[: whole.index(stop[0])]


def test_a_stop_string_ends_one_text_of_a_batch_and_not_the_others(
    engines: dict[str, Engine],
) -> None:
    engine = engines["tiny"]
    free = engine.generate_batch(PROMPTS, max_new_tokens=30, **WARM)
    stop = free[1].text[4:8]
    cut = engine.generate_batch(PROMPTS, slots=4, max_new_tokens=30, stop=stop, **WARM)
    for before, after in zip(free, cut, strict=True):
        at = before.text.find(stop)
        assert after.text == (before.text if at < 0 else before.text[:at])
    assert cut[1].finish == "stop"


def test_exactly_as_many_tokens_are_written_as_were_asked_for(engines: dict[str, Engine]) -> None:
    for count in (1, 2, 7, 13):
        g = engines["tiny"].generate("x", max_new_tokens=count, ignore_eos=True)
        assert (len(g.ids), g.finish) == (count, "length")


def test_a_stop_id_ends_a_text_unless_it_is_ignored(engines: dict[str, Engine]) -> None:
    engine = engines["none"]
    warm = {"temperature": 3.0, "max_new_tokens": 200}
    ended = next(
        g for g in (engine.generate("x", seed=s, **warm) for s in range(60)) if g.finish == "stop"
    )
    assert ended.ids[-1] == 0
    assert 0 not in ended.ids[:-1]
    seeds = (engine.generate("x", seed=s, ignore_eos=True, **warm).ids for s in range(60))
    longer = next(ids for ids in seeds if ids[: len(ended.ids)] == ended.ids)
    assert len(longer) == 200


def test_the_clock_runs_from_the_prompt_to_the_last_token(engines: dict[str, Engine]) -> None:
    g = engines["ngram"].generate("x", max_new_tokens=20)
    assert 0 < g.ttft_s < g.wall_s
    assert g.records[0].prefill
    assert not any(r.prefill for r in g.records[1:])
    assert g.tokens_per_s == len(g.ids) / g.wall_s
    assert g.tpot_s == (g.wall_s - g.ttft_s) / (len(g.ids) - 1)
    assert sum(r.cycle_s for r in g.records) <= g.wall_s


def test_no_prompts_are_no_texts(engines: dict[str, Engine]) -> None:
    assert engines["ngram"].generate_batch([]) == []


# -- what does not fit ------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context_is_refused(engines: dict[str, Engine]) -> None:
    with pytest.raises(ContextError, match=r"prompt has \d+ tokens.*context is 320: shorten"):
        engines["tiny"].generate("seventeen " * 300)


def test_more_tokens_than_fit_are_refused(engines: dict[str, Engine]) -> None:
    room = 320 - len(engines["tiny"].tokenizer.prompt("x"))
    with pytest.raises(ContextError, match=f"max_new_tokens {room + 1} .*at most {room} fit"):
        engines["tiny"].generate("x", max_new_tokens=room + 1)


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_the_context_may_be_filled_to_the_last_token(
    engines: dict[str, Engine], drafter: str
) -> None:
    g = engines[drafter].generate("x", ignore_eos=True)
    assert len(g.prompt_ids) + len(g.ids) == 320


def test_an_empty_prompt_is_refused(engines: dict[str, Engine]) -> None:
    with pytest.raises(ConfigError, match="prompt is empty"):
        engines["none"].generate("")


@pytest.mark.parametrize("count", [0, -3])
def test_no_tokens_are_too_few(engines: dict[str, Engine], count: int) -> None:
    with pytest.raises(ConfigError, match=f"max_new_tokens must be >= 1, got {count}"):
        engines["none"].generate("x", max_new_tokens=count)


def test_an_unknown_option_is_refused_before_anything_runs(engines: dict[str, Engine]) -> None:
    with pytest.raises(ConfigError, match="'max_new_tokens'"):
        engines["none"].generate("x", max_tokens=3)
