"""A model folder is read whole or refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from floodstage.core.errors import CheckpointError, ConfigError
from floodstage.models.files import INDEX, SINGLE, read_weights, write_weights
from floodstage.models.load import load_transformer

CPU = torch.device("cpu")


def load(folder: Path) -> Any:
    return load_transformer(folder, dtype=torch.float32, device=CPU)


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith(".")
    return said


@pytest.fixture
def single(pair_of: Callable[[str], Any], tmp_path: Path) -> Path:
    return Path(shutil.copytree(pair_of("qwen3").folder, tmp_path / "single"))


@pytest.fixture
def sharded(pair_of: Callable[[str], Any], tmp_path: Path) -> Path:
    pair_of("llama").theirs.save_pretrained(tmp_path / "sharded", max_shard_size="30KB")
    return tmp_path / "sharded"


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / SINGLE)
    change(weights)
    save_file(weights, folder / SINGLE)


def edit_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    raw = json.loads((folder / INDEX).read_text())
    change(raw["weight_map"])
    (folder / INDEX).write_text(json.dumps(raw))


def test_shards_are_read_as_one(sharded: Path, pair_of: Callable[[str], Any]) -> None:
    assert len(list(sharded.glob("*.safetensors"))) > 3
    whole = pair_of("llama").ours.state_dict()
    ours = load(sharded).state_dict()
    assert set(ours) == set(whole)
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "no config.json" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "cannot be read" in refused(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert "JSON object" in refused(tmp_path)


def test_no_weights(single: Path) -> None:
    (single / SINGLE).unlink()
    assert "has no weights" in refused(single)


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_a_truncated_file(single: Path, kept: int) -> None:
    path = single / SINGLE
    path.write_bytes(path.read_bytes()[:kept])
    assert "truncated or corrupt" in refused(single)


def test_a_corrupt_header(single: Path) -> None:
    path = single / SINGLE
    raw = bytearray(path.read_bytes())
    raw[8:20] = b"\xff" * 12
    path.write_bytes(raw)
    assert "truncated or corrupt" in refused(single)


def test_a_truncated_shard(sharded: Path) -> None:
    path = sorted(sharded.glob("*.safetensors"))[2]
    path.write_bytes(path.read_bytes()[:-7])
    said = refused(sharded)
    assert "truncated or corrupt" in said
    assert path.name in said


def test_a_missing_shard(sharded: Path) -> None:
    path = sorted(sharded.glob("*.safetensors"))[1]
    path.unlink()
    said = refused(sharded)
    assert "is missing" in said
    assert path.name in said


def test_an_index_that_names_a_tensor_that_is_not_there(sharded: Path) -> None:
    edit_index(sharded, lambda names: names.update(ghost=next(iter(names.values()))))
    assert "lack 1 tensors of their index, 'ghost' first" in refused(sharded)


@pytest.mark.parametrize("raw", ["", "{}", '{"weight_map": []}', '{"weight_map": 3}', "[1]"])
def test_a_broken_index(sharded: Path, raw: str) -> None:
    (sharded / INDEX).write_text(raw)
    assert "not one of shards" in refused(sharded)


def test_a_missing_tensor(single: Path) -> None:
    edit(single, lambda weights: weights.pop("model.norm.weight"))
    assert "lacks 1 tensors, 'model.norm.weight' first" in refused(single)


def test_an_unknown_tensor(single: Path) -> None:
    edit(single, lambda weights: weights.update(ghost=torch.zeros(2)))
    assert "does not know, 'ghost' first" in refused(single)


def test_another_shape(single: Path) -> None:
    edit(single, lambda weights: weights.update({"model.norm.weight": torch.zeros(47)}))
    said = refused(single)
    assert "(47,)" in said
    assert "(48,)" in said


def test_whole_numbers_for_weights(single: Path) -> None:
    edit(
        single,
        lambda weights: weights.update({"model.norm.weight": torch.ones(48, dtype=torch.int8)}),
    )
    assert "quantized" in refused(single)


def test_a_head_that_is_not_tied_must_be_there(single: Path) -> None:
    raw = json.loads((single / "config.json").read_text())
    (single / "config.json").write_text(json.dumps(raw | {"tie_word_embeddings": False}))
    assert "'lm_head.weight' first" in refused(single)


def test_what_old_checkpoints_add_is_left_out(single: Path) -> None:
    """Tables of frequencies, and a head that is tied anyway."""

    def add(weights: dict[str, Tensor]) -> None:
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
        weights["lm_head.weight"] = torch.zeros(97, 48)

    edit(single, add)
    model = load(single)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.abs().sum() > 0


def test_the_config_decides_what_is_run(single: Path) -> None:
    raw = json.loads((single / "config.json").read_text())
    (single / "config.json").write_text(json.dumps(raw | {"model_type": "gpt2"}))
    with pytest.raises(ConfigError, match="gpt2"):
        load(single)


def test_weights_come_in_the_dtype_asked_for(single: Path) -> None:
    model = load_transformer(single, dtype=torch.bfloat16, device=CPU)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not model.training
    write_weights(single / "half", dict(model.named_parameters()), torch.bfloat16)
    assert {t.dtype for t in read_weights(single / "half").values()} == {torch.bfloat16}
    assert not list((single / "half").glob("*.part"))
