"""Token ids <-> characters: byte-level BPE, trained here or read from a `tokenizer.json`.

Knows no model. The files are Hugging Face's, so other tools read them too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from floodstage.core.errors import CheckpointError, ConfigError, unknown

END, MASK = "<|endoftext|>", "<|mask|>"

# Words take their leading space, digits stand alone (arithmetic needs them), indentation is one
# piece. The shape is that of Qwen's and Llama 3's splitting.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\n]*|\s*\n+|\s+(?!\S)|\s+"

HIERARCHY = "hierarchy.json"
"""What tells a flood's tokenizer from others: see `hierarchy`."""

ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """One turn of a conversation. `role` is one of ROLES."""

    role: str
    content: str


Prompt: TypeAlias = str | Sequence[Message]
"""What may be continued: a text, or a conversation that waits for its answer."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """`eos` ends a text. `template` is a Jinja chat template, or None for a plain model."""

    backend: Backend
    eos: tuple[int, ...] = ()
    template: str | None = None
    special: dict[str, str] = field(default_factory=dict)  # bos_token ... for the template

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read `tokenizer.json` and, if there, `tokenizer_config.json`, `generation_config.json`
        and `config.json` (for the stop ids, which may be a list). Raises CheckpointError."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"{str(folder)!r} has no tokenizer.json.")
        try:
            backend = Backend.from_file(str(path))
        except Exception as error:  # the backend raises bare Exception
            raise CheckpointError(f"{str(path)!r} cannot be read: {error}.") from error
        # A hierarchy's texts hold no special tokens: "<|mask|>" in them is eight characters.
        backend.encode_special_tokens = (folder / HIERARCHY).is_file()
        settings = _optional(folder / "tokenizer_config.json")
        special = {
            k: _content(v)
            for k, v in settings.items()
            if k.endswith("_token") and isinstance(v, str | dict)
        }
        return cls(
            backend, _stop_ids(folder, backend, special), _template(folder, settings), special
        )

    def save(self, folder: Path) -> None:
        """Write the files that `load` and transformers read."""
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(folder / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **self.special}
        if self.template:
            settings["chat_template"] = self.template
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
        (folder / "generation_config.json").write_text(
            json.dumps({"eos_token_id": list(self.eos)}, indent=1) + "\n"
        )

    @property
    def vocab_size(self) -> int:
        return self.backend.get_vocab_size()

    def token_id(self, token: str) -> int | None:
        return self.backend.token_to_id(token)

    def encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Ids of `text`. `special` adds what the model's own post-processor adds (a BOS, say)."""
        return tuple(self.backend.encode(text, add_special_tokens=special).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.backend.decode(list(ids), skip_special_tokens=True))

    def chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of a conversation that waits for its answer, by the model's chat template."""
        if self.template is None:
            raise ConfigError("This tokenizer has no chat template: give plain text instead.")
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # only chats need it

        def refuse(message: str) -> None:
            raise ConfigError(f"The chat template refused the messages: {message}")

        try:
            env = ImmutableSandboxedEnvironment(
                trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
            )
            env.globals["raise_exception"] = refuse
            text = env.from_string(self.template).render(
                messages=list(messages),
                add_generation_prompt=True,
                enable_thinking=False,
                **self.special,
            )
        except ConfigError:
            raise
        except Exception as error:  # a template is a program: it may raise anything
            raise ConfigError(f"The chat template failed: {error}.") from error
        return self.encode(text)

    def prompt(self, asked: Prompt, *, chat: bool | None = None) -> tuple[int, ...]:
        """Ids of what a person typed, or of a conversation. `chat` None uses the chat template if
        there is one; without, a conversation is its contents, a line apart."""
        if isinstance(asked, str):
            messages: list[Message] = [{"role": "user", "content": asked}]
        else:
            messages = [_checked(message) for message in asked]
        if not any(message["content"] for message in messages):
            raise ConfigError("The prompt is empty: give some text to continue.")
        if self.template is not None if chat is None else chat:
            return self.chat(messages)
        return self.encode(_lines(messages), special=True)


@dataclass(slots=True)
class Detokenizer:
    """Turns ids into text as they come, and never gives half a character.

    Bytes of an unfinished character are held back until the rest arrives; `flush` gives what is
    left at the end. Decoding starts a few tokens back, so that leading spaces stay right.
    """

    tokenizer: Tokenizer
    ids: list[int] = field(default_factory=list)
    anchor: int = 0  # decode from here ...
    given: int = 0  # ... of which the ids before here are already out

    def push(self, ids: Iterable[int]) -> str:
        """The text that became certain."""
        held = len(self.ids)
        self.ids.extend(ids)
        before = self.tokenizer.decode(self.ids[self.anchor : self.given])
        after = self.tokenizer.decode(self.ids[self.anchor :])
        if after.endswith("\ufffd"):
            # Give what is whole: the new ids one by one up to the last whole character. The text
            # of those held already ended in half a character when they came.
            for end in range(len(self.ids) - 1, held, -1):
                after = self.tokenizer.decode(self.ids[self.anchor : end])
                if not after.endswith("\ufffd"):
                    return self._give(before, after, end)
            return ""
        return self._give(before, after, len(self.ids))

    def _give(self, before: str, after: str, end: int) -> str:
        self.anchor, self.given = self.given, end
        return after[len(before) :]

    def flush(self) -> str:
        before = self.tokenizer.decode(self.ids[self.anchor : self.given])
        after = self.tokenizer.decode(self.ids[self.anchor :])
        self.anchor = self.given = len(self.ids)
        return after[len(before) :]


def train_bpe(texts: Iterable[str], vocab_size: int, *, template: str | None = None) -> Tokenizer:
    """A byte-level BPE of exactly `vocab_size` tokens, END and MASK among them (ids 0 and 1)."""
    if vocab_size < 258:
        raise ConfigError(f"vocab_size must be at least 258 (all bytes), got {vocab_size!r}.")
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END, MASK],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if backend.get_vocab_size() != vocab_size:
        raise ConfigError(
            f"The text holds only {backend.get_vocab_size()} pieces, fewer than the vocab_size "
            f"{vocab_size!r}: lower it or give more text."
        )
    return Tokenizer(backend, (0,), template, {"eos_token": END, "mask_token": MASK})


def _checked(message: Message) -> Message:
    fields = message if isinstance(message, Mapping) else {}
    if not all(isinstance(fields.get(name), str) for name in ("role", "content")):
        raise ConfigError(
            f"A message is {message!r}: expected {{'role': 'user', 'content': 'some text'}}."
        )
    if message["role"] not in ROLES:
        raise unknown("role", message["role"], ROLES)
    return message


def _lines(messages: Sequence[Message]) -> str:
    """The contents, a newline between those that have none there: a plain model's answer often
    brings its own, and what it wrote shall stay as it was."""
    text = ""
    for message in messages:
        apart = text and not (text.endswith("\n") or message["content"].startswith("\n"))
        text += "\n" * bool(apart) + message["content"]
    return text


def _optional(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}.") from error
    return raw if isinstance(raw, dict) else {}


def _content(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    beside = folder / "chat_template.jinja"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named ones
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise CheckpointError(f"The chat template of {str(folder)!r} is not text: {template!r}.")
    return template


def _stop_ids(folder: Path, backend: Backend, special: dict[str, str]) -> tuple[int, ...]:
    """generation_config's eos_token_id (a number or a list), else config's, else the token's."""
    for name in ("generation_config.json", "config.json"):
        given = _optional(folder / name).get("eos_token_id")
        if given is not None:
            ids = tuple(given) if isinstance(given, list) else (given,)
            if not all(isinstance(i, int) for i in ids):
                raise CheckpointError(
                    f"{str(folder / name)!r} has eos_token_id {given!r}: expected a token id or a "
                    "list of them."
                )
            return ids
    named = backend.token_to_id(special["eos_token"]) if "eos_token" in special else None
    return () if named is None else (named,)
