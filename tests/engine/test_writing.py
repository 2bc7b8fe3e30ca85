"""Steps become text: stop strings are found wherever the tokens and the cycles end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from floodstage.core.types import Step, StepRecord
from floodstage.engine.writing import Piece, Writer
from floodstage.text.tokenizer import Detokenizer

RECORD = StepRecord(0, 0, 0, 1, 0.0, 0.0)


class Spelled:
    """A tokenizer whose token i is the i-th of some strings."""

    def __init__(self, strings: Sequence[str]) -> None:
        self.strings = strings

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.strings[i] for i in ids)


def writer(strings: Sequence[str], *stop: str) -> Writer:
    spelled: Any = Spelled(strings)
    return Writer(Detokenizer(spelled), stop)


def steps(count: int, cuts: Sequence[int]) -> list[Step]:
    """Tokens 0.. in cycles that end at `cuts`; the last one reaches the limit."""
    ends = sorted({count, *(c for c in cuts if 0 < c < count)})
    starts = [0, *ends[:-1]]
    return [
        Step(0, tuple(range(a, b)), b - a - 1, RECORD, "length" if b == count else None)
        for a, b in zip(starts, ends, strict=True)
    ]


def written(w: Writer, cycles: Sequence[Step]) -> list[Piece]:
    pieces: list[Piece] = []
    for step in cycles:
        pieces += w.take(step)
        if w.finish:
            break
    return pieces


def test_a_stop_string_may_cross_tokens() -> None:
    w = writer(["ab", "cEN", "D", "ef"], "END")
    written(w, steps(4, [1, 2, 3]))
    assert (w.text, w.ids, w.finish) == ("abc", [0, 1, 2], "stop")


def test_a_stop_string_may_lie_inside_a_block() -> None:
    w = writer(["ab", "cEN", "D", "ef"], "END")
    written(w, steps(4, []))
    assert (w.text, w.ids, w.finish) == ("abc", [0, 1, 2], "stop")


def test_text_that_may_begin_a_stop_string_is_held_back() -> None:
    w = writer(["a", "E", "N", "x", "EN"], "END")
    given_out = ["".join(p.text for p in w.take(s)) for s in steps(5, [1, 2, 3, 4])]
    assert given_out == ["a", "", "", "ENx", "EN"]


def test_the_first_of_several_stop_strings_counts() -> None:
    w = writer(["one two three"], "three", "two")
    written(w, steps(1, []))
    assert w.text == "one "


def test_the_token_that_completes_a_piece_says_who_wrote_it() -> None:
    w = writer(["a", "E", "b", "c"], "END")
    pieces = written(w, [Step(0, (0, 1, 2, 3), 3, RECORD, "length")])
    assert pieces == [Piece("a", True), Piece("Eb", True), Piece("c", False)]


def test_a_stop_id_at_the_end_gives_what_was_held() -> None:
    w = writer(["a", "EN", ""], "END")
    written(w, [Step(0, (0, 1, 2), 0, RECORD, "stop")])
    assert (w.text, w.ids, w.finish) == ("aEN", [0, 1, 2], "stop")


def cut(strings: Sequence[str], stop: Sequence[str]) -> tuple[str, list[int], str]:
    """What should be written: token by token, the whole text searched each time."""
    for n in range(1, len(strings) + 1):
        text = "".join(strings[:n])
        if found := [text.find(s) for s in stop if s in text]:
            return text[: min(found)], list(range(n)), "stop"
    return "".join(strings), list(range(len(strings))), "length"


letters = st.text("abc", min_size=1, max_size=4)


@settings(max_examples=300, deadline=None)
@given(
    strings=st.lists(st.text("abc", max_size=3), min_size=1, max_size=14),
    stop=st.lists(letters, max_size=3),
    cuts=st.lists(st.integers(1, 14), max_size=8),
)
def test_cycles_of_any_size_write_the_same(
    strings: list[str], stop: list[str], cuts: list[int]
) -> None:
    w = writer(strings, *stop)
    pieces = written(w, steps(len(strings), cuts))
    assert (w.text, w.ids, w.finish) == cut(strings, stop)
    assert "".join(p.text for p in pieces) == w.text
