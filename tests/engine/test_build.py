"""Names become engines; what does not belong together is refused with the reason."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import floodstage
from floodstage.core.errors import CheckpointError, ConfigError, Error, PairingError
from floodstage.engine.build import find_model, load_target
from floodstage.engine.engine import Engine
from floodstage.models.adapter import AdaptedLM
from floodstage.models.block_diffusion import BlockDiffusionConfig
from floodstage.models.config import TransformerConfig
from floodstage.models.files import SINGLE
from floodstage.models.load import load_block_diffusion
from floodstage.text.mathematics import problems
from floodstage.text.tokenizer import Tokenizer, train_bpe

CPU = torch.device("cpu")
LOUD = [p.prompt.upper() for p in islice(problems("train"), 300)]
"""Text for a tokenizer unlike the tiny target's."""


def edit(
    folder: Path, change: Callable[[dict[str, Any]], object], name: str = "config.json"
) -> None:
    raw = json.loads((folder / name).read_text())
    change(raw)
    (folder / name).write_text(json.dumps(raw))


def engine(pair: Any, **settings: Any) -> Engine:
    given = {"target": str(pair.target), "drafter": str(pair.drafter), "device": "cpu"}
    return floodstage.load(**given | settings)


# -- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "name", "said"),
    [
        ("drafter", "ngrams", "Unknown drafter 'ngrams'. Did you mean 'ngram'"),
        ("drafter", "jacoby", "Unknown drafter 'jacoby'. Did you mean 'jacobi'"),
        ("drafter", "look-ahead", "Unknown drafter 'look-ahead'. Did you mean 'lookahead'"),
        ("drafter", "jacobi(fil=ngram)", "setting of 'jacobi' 'fil'. Did you mean 'fill'"),
        ("drafter", "jacobi(fill=repeet)", "Unknown fill 'repeet'. Did you mean 'repeat'"),
        ("drafter", "ngram(draft_len=4)", "setting of 'ngram' 'draft_len'"),
        ("verifier", "mach", "Unknown verifier 'mach'. Did you mean 'match'"),
        ("scheduler", "confident", "Unknown scheduler 'confident'. Did you mean 'confidence'"),
        ("device", "cuba", "Unknown device 'cuba'. Did you mean 'cuda'"),
        ("dtype", "bf61", "Unknown dtype 'bf61'. Did you mean 'bf16'"),
        ("target", "nowhere", "Unknown model 'nowhere'.*not a folder either"),
        ("schedular", "fixed", "Unknown setting 'schedular'. Did you mean 'scheduler'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    tiny: Any, setting: str, name: str, said: str
) -> None:
    given = {"target": str(tiny.target), "drafter": "none"} | {setting: name}
    with pytest.raises(ConfigError, match=said):
        floodstage.load(**given)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there_is_named(tiny: Any) -> None:
    with pytest.raises(ConfigError, match=r"'cuda' is not available.*use 'cpu'"):
        floodstage.load(str(tiny.target), device="cuda")


def test_a_hub_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args: Any, **kwargs: Any) -> None:
        raise LocalEntryNotFoundError("many\nlines")

    def refused(*args: Any, **kwargs: Any) -> None:
        raise OSError("no such model\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match="'owner/name' is not on this machine"):
        find_model("owner/name")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refused)
    with pytest.raises(CheckpointError, match=r"does not give 'owner/name': no such model$"):
        find_model("owner/name")


def test_auto_is_ngram_where_no_drafter_is_shipped(engine_of: Callable[..., Engine]) -> None:
    assert engine_of("auto").drafter.name == "ngram"


def test_the_draft_length_is_the_drafters_own_unless_given(
    engine_of: Callable[..., Engine],
) -> None:
    sizes = {"none": 0, "ngram": 10, "jacobi": 8, "lookahead(longest=2)": 8, "tiny": 5}
    for drafter, own in sizes.items():
        assert engine_of(drafter).scheduler.choose() == own
        assert engine_of(drafter, draft_len=3).scheduler.choose() == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"scheduler": "confidence"},
        {"verifier": "reject"},
        {"draft_len": 2},
        {"draft_len": 9},
        {"draft_len": 0},
    ],
    ids=str,
)
def test_every_setting_writes_the_same_greedy_text(
    engine_of: Callable[..., Engine], settings: dict[str, Any]
) -> None:
    plain = engine_of("none").generate("What is 3 + 4?", max_new_tokens=30)
    g = engine_of("tiny", **settings).generate("What is 3 + 4?", max_new_tokens=30)
    assert g.ids == plain.ids


@pytest.mark.parametrize("drafter", ["jacobi", "jacobi(fill=ngram)", "lookahead"])
def test_guesses_write_the_same_text_and_want_a_verifier_that_gives_them(
    engine_of: Callable[..., Engine], drafter: str
) -> None:
    for warm in ({}, {"temperature": 0.7}):
        plain = engine_of("none").generate("What is 3 + 4?", max_new_tokens=30, **warm)
        g = engine_of(drafter).generate("What is 3 + 4?", max_new_tokens=30, **warm)
        assert g.ids == plain.ids
    with pytest.raises(ConfigError, match="'reject' does not give: use 'match'"):
        engine_of(drafter, verifier="reject")
    with pytest.raises(ConfigError, match="is none"):
        engine_of(drafter, candidates="beam")


def test_bfloat16_runs(engine_of: Callable[..., Engine]) -> None:
    g = engine_of("tiny", dtype="bf16").generate("What is 3 + 4?", max_new_tokens=10)
    assert len(g.ids) == 10


# -- pairs ------------------------------------------------------------------------------------


def inner(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw["dflash_config"].__setitem__(name, value)


def outer(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (outer("hidden_size", 48), PairingError, "size 48, the target's are of size 32"),
        (outer("vocab_size", 301), PairingError, "knows 301 tokens, the target 300"),
        (inner("mask_token_id", 300), PairingError, "mask id 300 is outside"),
        (outer("num_target_layers", 3), PairingError, "target of 3 layers; this one has 2"),
        (inner("target_layer_ids", [0, 2]), PairingError, r"taps the layers \[0, 2\].*0 to 1"),
        (inner("target_layer_ids", []), PairingError, r"taps the layers \[\]"),
        (outer("rotary_dim", 8), PairingError, "does not know: rotary_dim"),
        (inner("anchor_loss", 1), PairingError, "does not know: anchor_loss"),
        (lambda raw: raw.pop("block_size"), ConfigError, "block_size must be .*got None"),
        (outer("block_size", 1), ConfigError, "block_size must be .*>= 2, got 1"),
        (lambda raw: raw["dflash_config"].pop("mask_token_id"), ConfigError, "mask_token_id"),
        (outer("layer_types", ["full_attention"] * 2), ConfigError, "2 entries for 1 layers"),
    ],
    ids=[
        *("hidden size", "vocabulary", "mask id", "number of layers", "taps out of range"),
        *("no taps", "unknown key", "unknown inner key", "no block size", "block of one"),
        *("no mask id", "layer types"),
    ],
)
def test_a_drafter_of_another_target_is_refused(
    copied: Any, change: Callable[[dict[str, Any]], object], error: type[Error], said: str
) -> None:
    edit(copied.drafter, change)
    with pytest.raises(error, match=said):
        engine(copied)


def test_a_drafter_given_as_the_target_is_refused(tiny: Any) -> None:
    with pytest.raises(PairingError, match="is a drafter, not a target"):
        floodstage.load(str(tiny.drafter))


def test_a_tokenizer_larger_than_its_model_is_refused(copied: Any) -> None:
    train_bpe(LOUD, 310).save(copied.target)
    with pytest.raises(PairingError, match="knows 310 tokens, its model only 300"):
        engine(copied)


def test_a_draft_model_with_another_tokenizer_is_refused(tiny: Any, copied: Any) -> None:
    train_bpe(LOUD, 300).save(copied.target)
    with pytest.raises(PairingError, match="different tokenizers"):
        floodstage.load(str(tiny.target), drafter=str(copied.target))


def test_a_draft_model_of_the_same_tokenizer_drafts(
    tiny: Any, engine_of: Callable[..., Engine]
) -> None:
    warm = {"temperature": 0.7, "max_new_tokens": 30}
    plain = engine_of("none").generate("What is 3 + 4?", **warm)
    for verifier in ("match", "reject"):
        drafted = engine_of(str(tiny.target), verifier=verifier)
        assert drafted.drafter.name == "draft-model"
        g = drafted.generate("What is 3 + 4?", **warm)
        assert g.tau > 1.0
        if verifier == "match":
            assert g.ids == plain.ids
        else:
            assert all(r.accepted == r.verified for r in g.records)  # it never rejects itself


# -- how published drafters are spelt ---------------------------------------------------------


def drafter_of(pair: Any) -> Any:
    target = load_target(pair.target, torch.float32, CPU)
    return load_block_diffusion(pair.drafter, target)  # type: ignore[arg-type]


def same(a: Any, b: Any) -> bool:
    own, other = a.state_dict(), b.state_dict()
    return a.config == b.config and all(torch.equal(own[k], other[k]) for k in own)


def test_the_block_size_may_lie_inside(tiny: Any, copied: Any) -> None:
    edit(copied.drafter, lambda raw: raw["dflash_config"].update(block_size=raw.pop("block_size")))
    assert same(drafter_of(copied), drafter_of(tiny))


@pytest.mark.parametrize("spelling", ["rope_parameters", "rope_theta"])
def test_the_rope_may_be_spelt_both_ways(copied: Any, spelling: str) -> None:
    def change(raw: dict[str, Any]) -> None:
        del raw["rope_theta"], raw["rope_parameters"]
        raw |= (
            {"rope_theta": 777.0}
            if spelling == "rope_theta"
            else {"rope_parameters": {"rope_type": "default", "rope_theta": 777.0}}
        )

    edit(copied.drafter, change)
    assert drafter_of(copied).config.body.rope["rope_theta"] == 777.0


@pytest.mark.parametrize("prefix", ["model.", "draft_model."])
def test_weights_may_carry_a_prefix_and_the_targets_own(
    tiny: Any, copied: Any, prefix: str
) -> None:
    weights = load_file(copied.drafter / SINGLE)
    weights |= {"embed_tokens.weight": torch.zeros(300, 32)}
    save_file({prefix + k: w for k, w in weights.items()}, copied.drafter / SINGLE)
    assert same(drafter_of(copied), drafter_of(tiny))


# -- broken files -----------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["target", "drafter"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "gone"])
def test_broken_weights_are_one_sentence(copied: Any, part: str, damage: str) -> None:
    path = getattr(copied, part) / SINGLE
    content = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(content[:-100])
        case "flipped":
            path.write_bytes(b"\xff" * 16 + content[16:])
        case "emptied":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
    with pytest.raises(CheckpointError, match=r"^[^\n]*$") as caught:
        engine(copied)
    assert str(getattr(copied, part)) in str(caught.value)


@pytest.mark.parametrize("part", ["target", "drafter"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_a_broken_config_is_one_sentence(copied: Any, part: str, content: bytes) -> None:
    (getattr(copied, part) / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json' (cannot be read|does not hold)"):
        engine(copied)


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        floodstage.load(str(tmp_path))


JUNK: tuple[Any, ...] = (None, "x", [], {}, -1, 0, 1.5, True, [1], [None], {"a": 1})


def damaged(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The config with every entry, outer and inner, replaced by junk or left out."""
    inside = [(k, i) for k, v in raw.items() if isinstance(v, dict) for i in v]
    for path in [*((k,) for k in raw), *inside]:
        for junk in JUNK:
            new = copy.deepcopy(raw)
            (new[path[0]] if path[1:] else new)[path[-1]] = junk
            yield new
        new = copy.deepcopy(raw)
        del (new[path[0]] if path[1:] else new)[path[-1]]
        yield new


@pytest.mark.parametrize(
    ("part", "read"),
    [("target", TransformerConfig.from_dict), ("drafter", BlockDiffusionConfig.from_dict)],
    ids=["target", "drafter"],
)
def test_a_config_of_any_content_is_read_or_refused(
    tiny: Any, part: str, read: Callable[[dict[str, Any]], object]
) -> None:
    refused = 0
    for raw in damaged(json.loads((getattr(tiny, part) / "config.json").read_text())):
        with contextlib.suppress(Error):
            read(raw)
            continue
        refused += 1
    assert refused > 50


# -- any other model --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transformers

    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    Tokenizer.load(tiny.target).save(folder)
    return folder


def test_another_family_runs_through_the_adapter_and_says_so(
    gpt2: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="floodstage"):
        plain = floodstage.load(str(gpt2), drafter="none", device="cpu")
    assert isinstance(plain.target, AdaptedLM)
    assert [r.getMessage() for r in caplog.records if r.name == "floodstage"] == [
        "The model type 'gpt2' is not in floodstage's runtime: "
        "using transformers (slower, no trees)."
    ]
    drafted = floodstage.load(str(gpt2), drafter="ngram", device="cpu")
    for options in ({}, {"temperature": 1.0}):
        want = plain.generate("What is 3 + 4?", max_new_tokens=20, **options)
        assert drafted.generate("What is 3 + 4?", max_new_tokens=20, **options).ids == want.ids


def test_another_family_has_no_layers_for_a_block_drafter(gpt2: Path, tiny: Any) -> None:
    with pytest.raises(PairingError, match="needs a target in floodstage's own runtime"):
        floodstage.load(str(gpt2), drafter=str(tiny.drafter), device="cpu")
