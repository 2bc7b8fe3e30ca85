"""Characters become ids and ids the same characters, whatever the split and whoever reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodstage.core.errors import CheckpointError, ConfigError
from floodstage.text.mathematics import problems
from floodstage.text.tokenizer import END, MASK, Detokenizer, Tokenizer, train_bpe

TEXTS = [p.prompt + "\n" + p.solution for p in islice(problems("train", seed=3), 200)]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
    "<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
BPE = train_bpe(TEXTS, 400, template=TEMPLATE)
SAMPLES = (
    "What is 17 × 24?",
    "  def f(x):\n\t\treturn x[1:]  # ünïcödé\r\n",
    "日本語 🙂👩‍👩‍👧 e\u0301",
    "a\n\n\n b   c",
    " ",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    BPE.save(tmp_path)
    return tmp_path


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    raw = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(raw | changes))


# -- a round trip -----------------------------------------------------------------------------


def test_a_saved_tokenizer_is_the_tokenizer(folder: Path) -> None:
    again = Tokenizer.load(folder)
    assert (again.eos, again.template, again.special) == (BPE.eos, BPE.template, BPE.special)
    for text in (*SAMPLES, *TEXTS[:20]):
        assert again.encode(text) == BPE.encode(text)


@pytest.mark.parametrize("text", SAMPLES)
def test_every_text_comes_back(text: str) -> None:
    assert BPE.decode(BPE.encode(text)) == text


@pytest.mark.parametrize("loader", ["AutoTokenizer", "PreTrainedTokenizerFast"])
def test_transformers_reads_the_same_ids(folder: Path, loader: str) -> None:
    import transformers

    theirs = getattr(transformers, loader).from_pretrained(str(folder))
    for text in (*SAMPLES, *TEXTS[:20]):
        assert tuple(theirs(text)["input_ids"]) == BPE.encode(text)
        assert theirs.decode(BPE.encode(text)) == text
    assert theirs.eos_token_id == BPE.eos[0]
    assert theirs.mask_token_id == BPE.token_id(MASK)


def test_transformers_writes_the_same_chat(folder: Path) -> None:
    from transformers import AutoTokenizer

    edit(folder, "tokenizer_config.json", bos_token=END)
    said = [
        {"role": "system", "content": "unheard"},
        {"role": "user", "content": "3 + 4?"},
        {"role": "assistant", "content": "7"},
        {"role": "user", "content": "surely?"},
    ]
    theirs = AutoTokenizer.from_pretrained(str(folder)).apply_chat_template(
        said, add_generation_prompt=True, return_dict=False
    )
    assert Tokenizer.load(folder).chat(said) == tuple(theirs)


def test_the_two_special_tokens_come_first() -> None:
    assert (BPE.token_id(END), BPE.token_id(MASK)) == (0, 1)
    assert BPE.eos == (0,)
    assert BPE.vocab_size == 400


def test_digits_stand_alone() -> None:
    pieces = [BPE.decode([i]) for i in range(2, BPE.vocab_size)]
    assert {p for p in pieces if any(c.isdigit() for c in p)} == set("0123456789")


def test_special_tokens_do_not_show_in_the_text() -> None:
    assert BPE.decode([0, *BPE.encode("a"), 1, 0]) == "a"


def test_a_vocabulary_too_small_or_too_large_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 258"):
        train_bpe(TEXTS, 257)
    with pytest.raises(ConfigError, match="lower it or give more text"):
        train_bpe(["abc"], 300)


# -- text as it comes -------------------------------------------------------------------------


def pieces(ids: Sequence[int], cuts: Sequence[int]) -> list[str]:
    """What a detokenizer gives for `ids` pushed in parts, and at the end."""
    detokenizer = Detokenizer(BPE)
    ends = sorted({0, len(ids), *(c % (len(ids) + 1) for c in cuts)})
    return [*(detokenizer.push(ids[a:b]) for a, b in pairwise(ends)), detokenizer.flush()]


texts = st.text(max_size=24) | st.text("aé€🙂 \n9", max_size=12)
splits = st.lists(st.integers(0, 200), max_size=60)


@settings(max_examples=80, deadline=None)
@given(text=texts, cuts=splits)
def test_no_split_gives_half_a_character(text: str, cuts: list[int]) -> None:
    given_out = pieces(BPE.encode(text), cuts)
    assert "".join(given_out) == text
    assert all("\ufffd" not in piece for piece in given_out) or "\ufffd" in text


@settings(max_examples=80, deadline=None)
@given(ids=st.lists(st.integers(0, BPE.vocab_size - 1), max_size=40), cuts=splits)
def test_pieces_of_any_ids_are_their_text(ids: list[int], cuts: list[int]) -> None:
    assert "".join(pieces(ids, cuts)) == BPE.decode(ids)


def test_a_character_comes_with_its_last_byte() -> None:
    ids = BPE.encode("🙂a")
    assert len(ids) == 5
    detokenizer = Detokenizer(BPE)
    assert [detokenizer.push([i]) for i in ids] == ["", "", "", "🙂", "a"]


def test_whole_characters_do_not_wait_for_half_a_one() -> None:
    ids = BPE.encode("ab🙂")
    detokenizer = Detokenizer(BPE)
    assert detokenizer.push(ids[:-1]) == "ab"
    assert detokenizer.push(ids[-1:]) == "🙂"


def test_half_a_character_is_not_decoded_again_and_again() -> None:
    class Counting:
        calls = 0

        def decode(self, ids: Sequence[int]) -> str:
            self.calls += 1
            return BPE.decode(ids)

    counting: Any = Counting()
    detokenizer = Detokenizer(counting)
    half = BPE.encode("🙂")[0]
    assert "".join(detokenizer.push([half]) for _ in range(100)) == ""
    assert counting.calls <= 200
    assert detokenizer.flush() == "\ufffd" * 100


# -- chats ------------------------------------------------------------------------------------


def test_a_prompt_uses_the_template_if_there_is_one() -> None:
    assert BPE.decode(BPE.prompt("hi")) == "<user>hi\n<assistant>"
    assert BPE.decode(BPE.prompt("hi", chat=False)) == "hi"
    plain = train_bpe(TEXTS, 300)
    assert plain.decode(plain.prompt("hi")) == "hi"
    with pytest.raises(ConfigError, match="no chat template"):
        plain.prompt("hi", chat=True)


TALK: list[Any] = [
    {"role": "user", "content": "3 + 4?"},
    {"role": "assistant", "content": "7"},
    {"role": "user", "content": "surely?"},
]


def test_a_conversation_goes_through_the_template_if_there_is_one() -> None:
    chatted = "<user>3 + 4?\n<assistant>7\n<user>surely?\n<assistant>"
    plain = Tokenizer(BPE.backend)
    for chat in (None, True):
        assert BPE.prompt(TALK, chat=chat) == BPE.encode(chatted)
    assert BPE.prompt(TALK, chat=False) == plain.prompt(TALK) == BPE.encode("3 + 4?\n7\nsurely?")
    with pytest.raises(ConfigError, match="no chat template"):
        plain.prompt(TALK, chat=True)


@pytest.mark.parametrize("chat", [True, False])
def test_a_conversation_of_one_is_a_prompt(chat: bool) -> None:
    assert BPE.prompt(TALK[:1], chat=chat) == BPE.prompt("3 + 4?", chat=chat)


def test_a_plain_conversation_keeps_the_newlines_of_an_answer() -> None:
    said = [TALK[0], {"role": "assistant", "content": "\n\n7\n"}, TALK[2]]
    assert BPE.prompt(said, chat=False) == BPE.encode("3 + 4?\n\n7\nsurely?")


def test_a_template_is_told_not_to_think() -> None:
    template = "{{ 'quick' if enable_thinking is false else 'slow' }}{{ messages | length }}"
    tokenizer = Tokenizer(BPE.backend, (0,), template)
    assert BPE.decode(tokenizer.prompt(TALK)) == "quick3"


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "usr", "content": "x"}], "Unknown role 'usr'. Did you mean 'user'"),
        ([{"content": "x"}], "A message is {'content': 'x'}: expected"),
        ([{"role": "user"}], "expected"),
        ([{"role": "user", "content": 5}], "expected"),
        (["x"], "A message is 'x': expected"),
        ([], "empty"),
        ([{"role": "user", "content": ""}], "empty"),
    ],
)
def test_a_message_of_another_kind_is_one_sentence(
    messages: list[Any], said: str, chat: bool
) -> None:
    with pytest.raises(ConfigError, match=said):
        BPE.prompt(messages, chat=chat)


@pytest.mark.parametrize("chat", [None, True, False])
def test_an_empty_prompt_is_refused(chat: bool | None) -> None:
    with pytest.raises(ConfigError, match="empty"):
        BPE.prompt("", chat=chat)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('only users speak') }}", "refused the messages: only users speak"),
        ("{% if %}", "failed: "),
        ("{{ messages.nothing.at_all }}", "failed: "),
        ("{{ 1 + messages[0].content }}", "failed: "),
        ("{{ messages.append(1) }}", "failed: "),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "failed: .*unsafe"),
    ],
    ids=["raises", "does not parse", "nothing", "adds", "changes the messages", "escapes"],
)
def test_a_template_that_fails_is_one_sentence(template: str, said: str) -> None:
    tokenizer = Tokenizer(BPE.backend, (0,), template)
    with pytest.raises(ConfigError, match=said):
        tokenizer.prompt("hi")


def test_a_template_may_lie_beside_the_settings(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("beside {{ messages[0].content }}")
    assert BPE.decode(Tokenizer.load(folder).prompt("hi")) == "beside hi"


def test_the_default_of_several_templates_is_used(folder: Path) -> None:
    named = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
    edit(folder, "tokenizer_config.json", chat_template=named)
    assert BPE.decode(Tokenizer.load(folder).prompt("hi")) == "yes"


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "eos", "want"),
    [
        ("generation_config.json", [0, 7, 9], (0, 7, 9)),
        ("generation_config.json", 7, (7,)),
        ("config.json", [5, 6], (5, 6)),
        ("", None, (0,)),
    ],
)
def test_stop_ids_may_be_one_or_many(folder: Path, file: str, eos: Any, want: Any) -> None:
    (folder / "generation_config.json").unlink()
    if file:
        edit(folder, file, eos_token_id=eos)
    assert Tokenizer.load(folder).eos == want


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b'{"version": "9.0"}'])
def test_a_corrupt_tokenizer_is_one_sentence(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json' cannot be read: [^\n]*$"):
        Tokenizer.load(folder)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json"])
def test_corrupt_settings_are_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\xff{")
    with pytest.raises(CheckpointError, match=f"{name}' cannot be read"):
        Tokenizer.load(folder)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("generation_config.json", {"eos_token_id": "end"}, "eos_token_id 'end'"),
        ("generation_config.json", {"eos_token_id": [1, None]}, "expected a token id"),
        ("tokenizer_config.json", {"chat_template": 5}, "is not text: 5"),
    ],
)
def test_settings_of_another_kind_are_refused(
    folder: Path, name: str, changes: dict[str, Any], said: str
) -> None:
    edit(folder, name, **changes)
    with pytest.raises(CheckpointError, match=said):
        Tokenizer.load(folder)
