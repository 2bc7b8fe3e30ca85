"""Arms by name, and a bench of real arms: every lossless one writes the baseline's ids."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from floodstage.bench.arms import OurArm, TransformersArm
from floodstage.bench.compare import BenchConfig, bench, bench_batches, make_arms
from floodstage.bench.records import read_records
from floodstage.core.errors import ConfigError, RunError
from floodstage.core.types import Request, Sampling


def config(tiny: Any, *arms: str, **changes: Any) -> BenchConfig:
    given = {"target": str(tiny.target), "arms": arms, "prompts": 2, "max_new_tokens": 16}
    return BenchConfig(**given | {"device": "cpu", "threads": 1} | changes)


# -- names ------------------------------------------------------------------------------------


def test_an_arm_is_a_drafter_a_length_and_a_scheduler(tiny: Any) -> None:
    names = ("none", "ngram:4", "ngram+confidence", f"{tiny.drafter}:3+confidence", "auto",
             "jacobi(fill=ngram):6", "lookahead(longest=2)")  # fmt: skip
    arms, engine = make_arms(config(tiny, *names))
    assert [arm.name for arm in arms] == list(names)
    shapes = []
    for arm in arms:
        assert isinstance(arm, OurArm)
        assert arm.engine.target is engine.target  # shared
        parts = arm.engine
        shapes.append((parts.drafter.name, parts.scheduler.name, parts.scheduler.choose()))
    assert shapes == [
        ("none", "fixed", 0),
        ("ngram", "fixed", 4),
        ("ngram", "confidence", 10),
        ("block-diffusion", "confidence", 3),
        ("ngram", "fixed", 10),
        ("jacobi", "fixed", 6),
        ("lookahead", "fixed", 8),
    ]


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (("ngram:many",), "'ngram:many' has no number after its colon"),
        (("jacobi:8", "jacobbi:8"), "Unknown drafter 'jacobbi'. Did you mean 'jacobi'"),
        (("none", "ngrm"), "Unknown drafter 'ngrm'. Did you mean 'ngram'"),
        (("ngram+confidance",), "'confidance'. Did you mean 'confidence'"),
        (("transformers-look:3",), "Unknown peer .*Did you mean 'transformers-lookup'"),
        (("transformers-assistant",), "needs --assistant"),
        (("none", "none"), "each arm once"),
        ((), "each arm once, and at least one"),
    ],
)
def test_an_arm_that_is_none_is_refused(tiny: Any, arms: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_arms(config(tiny, *arms))


# -- peers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peers(tiny: Any) -> dict[str, Any]:
    names = ("none", "transformers", "transformers-lookup:4", "transformers-assistant:3")
    arms, _ = make_arms(config(tiny, *names, assistant=str(tiny.target)))
    return {arm.name.split(":")[0]: arm for arm in arms}


PEERS = ("transformers", "transformers-lookup", "transformers-assistant")


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_writes_our_ids(peers: dict[str, Any], peer: str) -> None:
    arm = peers[peer]
    assert isinstance(arm, TransformersArm)
    for text in ("What is 3 + 4?", "12 × 12 ="):
        prompt = arm.engine.tokenizer.prompt(text)
        request = Request(prompt=prompt, max_new_tokens=24, stop_ids=frozenset({0}))
        ours, theirs = peers["none"].answer(request), arm.answer(request)
        assert (theirs.ids, theirs.text, theirs.finish) == (ours.ids, ours.text, ours.finish)
        assert theirs.ttft_s is not None
        assert 0 < theirs.ttft_s <= theirs.wall_s


def test_a_peer_ends_at_the_same_stop_id(peers: dict[str, Any]) -> None:
    prompt = peers["none"].engine.tokenizer.prompt("What is 3 + 4?")
    free = peers["none"].answer(Request(prompt=prompt, max_new_tokens=24)).ids
    request = Request(prompt=prompt, max_new_tokens=24, stop_ids=frozenset({free[0], free[-1]}))
    ours, theirs = peers["none"].answer(request), peers["transformers"].answer(request)
    assert (theirs.ids, theirs.finish) == (ours.ids, ours.finish) == (free[:1], "stop")


def test_a_peer_draws_the_same_for_the_same_seed(peers: dict[str, Any]) -> None:
    warm = Request(prompt=(5, 6, 7), max_new_tokens=12, sampling=Sampling(temperature=1.0), seed=2)
    first, again = (peers["transformers"].answer(warm).ids for _ in range(2))
    assert first == again
    assert first != peers["transformers"].answer(replace(warm, seed=3)).ids


# -- runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_bench_finds_every_arm_identical(tiny: Any, tmp_path: Path, temperature: float) -> None:
    names = ("none", "ngram", str(tiny.drafter))
    asked = config(tiny, *names, temperature=temperature, prompts=3)
    lines = bench(asked, tmp_path, progress=False)
    assert [line.arm for line in lines] == list(names)
    assert all(line.identical == line.prompts == 3 for line in lines)
    assert lines[0].tau == 1.0
    assert all(line.right == 0.0 for line in lines)  # it has learnt nothing yet
    rows = list(read_records(tmp_path / "records.jsonl"))
    assert len(rows) == 3 * 3 * 2
    for r in rows:
        gained = sum(accepted + 1 for accepted in r["cycles"]["accepted"])
        assert len(r["ids"]) <= gained + 1  # the first token comes from the prompt's pass
    assert {p.name for p in tmp_path.iterdir()} == {
        *("env.json", "records.jsonl", "summary.csv", "summary.json", "summary.md")
    }


def test_prompts_are_drawn_with_seeds_of_their_own(tiny: Any, tmp_path: Path) -> None:
    path = tmp_path / "same.jsonl"
    path.write_text('{"prompt": "What is 3 + 4?"}\n' * 2)
    bench(config(tiny, "none", workload=str(path), temperature=1.0), tmp_path / "run",
          progress=False)  # fmt: skip
    rows = list(read_records(tmp_path / "run" / "records.jsonl"))
    ids = {(r["prompt"], r["pass"]): r["ids"] for r in rows}
    assert ids[0, 0] == ids[0, 1]
    assert ids[0, 0] != ids[1, 0]


def test_a_run_of_another_target_is_refused(tiny: Any, copied: Any, tmp_path: Path) -> None:
    bench(config(tiny, "none"), tmp_path / "run", progress=False)
    with pytest.raises(RunError, match="another settings"):
        bench(config(copied, "none"), tmp_path / "run", progress=False)


def test_a_batch_writes_what_each_writes_alone(tiny: Any, tmp_path: Path) -> None:
    names = ("none", "ngram", str(tiny.drafter))
    asked = config(tiny, *names, prompts=5, temperature=0.8, max_new_tokens=6)
    lines = bench_batches(asked, tmp_path, slots=3)
    assert [(x.arm, x.slots, x.identical, x.prompts) for x in lines] == [
        (name, 3, 5, 5) for name in names
    ]
    assert all(x.ratio.low <= x.ratio.value <= x.ratio.high for x in lines)
    assert len(json.loads((tmp_path / "summary.json").read_text())) == 3


def test_peers_are_not_batched(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave the peers out"):
        bench_batches(config(tiny, "none", "transformers"), tmp_path, slots=2)
    with pytest.raises(ConfigError, match="slots must be >= 2"):
        bench_batches(config(tiny, "none"), tmp_path, slots=1)
