"""Tiny random models of transformers, ours loaded from the same folders, and the laws of a state.

The laws are functions of a model, so that planted bugs can be held against them too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from floodstage.models.graphs import Pass
from floodstage.models.load import load_transformer
from floodstage.models.transformer import Transformer

torch.set_num_threads(1)

VOCAB = 97
LAYERS = 3
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "llama3": {"factor": 8.0, **LLAMA3},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "yarn-tuned": {
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "attention_factor": 0.7,
        "beta_fast": 4.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
    "yarn-mscale": {
        "factor": 8.0,
        "original_max_position_embeddings": 8,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
    },
}


@dataclass(frozen=True)
class Case:
    """A configuration of transformers, and how its `config.json` is spelt."""

    family: str
    options: dict[str, Any]
    old: bool = False  # rope_theta and rope_scaling, as before transformers 5


CASES: dict[str, Case] = {
    "llama": Case("Llama", {}),
    "llama-tied": Case("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama-biases": Case("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 8}),
    "mistral": Case("Mistral", {"sliding_window": 5, "head_dim": 16}),
    "mistral-full": Case("Mistral", {"sliding_window": None, "tie_word_embeddings": True}),
    "qwen2": Case("Qwen2", {}),
    "qwen2-windows": Case(
        "Qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3": Case("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-biases": Case("Qwen3", {"head_dim": 8, "attention_bias": True}),
    "qwen3-windows": Case(
        "Qwen3",
        {
            "head_dim": 16,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 2,
        },
    ),
}
for rope, numbers in ROPES.items():
    settings = {"rope_type": rope.split("-")[0], "rope_theta": 5000.0, **numbers}
    CASES[f"rope-{rope}"] = Case("Llama", {"rope_parameters": settings})
    CASES[f"rope-{rope}-old"] = replace(CASES[f"rope-{rope}"], old=True)
CASES["rope-default-old"] = Case("Qwen3", {"head_dim": 16, "rope_theta": 500.0}, old=True)


@dataclass(frozen=True)
class Pair:
    """One checkpoint, run by transformers and by us."""

    folder: Path
    theirs: Any
    ours: Transformer


def make_folder(case: Case, folder: Path, **saving: Any) -> Path:
    """A checkpoint with random weights in which no tensor is special (no unit norm, no zero
    bias)."""
    import transformers

    config = getattr(transformers, f"{case.family}Config")(**COMMON | case.options)
    torch.manual_seed(7)
    model = getattr(transformers, f"{case.family}ForCausalLM")(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2:
                p.normal_(std=0.3 if "embed" in name else 2.0 * p.shape[1] ** -0.5)
            else:
                p.normal_(mean=float("norm" in name), std=0.3)
    model.save_pretrained(folder, **saving)
    if case.old:
        path = folder / "config.json"
        raw = json.loads(path.read_text())
        settings = raw.pop("rope_parameters")
        raw["rope_theta"] = settings.pop("rope_theta")
        kind = settings.pop("rope_type")
        raw["rope_scaling"] = None if kind == "default" else {"type": kind, **settings}
        path.write_text(json.dumps(raw))
    return folder


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    import transformers

    made: dict[str, Pair] = {}

    def give(name: str) -> Pair:
        if name not in made:
            folder = make_folder(CASES[name], tmp_path_factory.mktemp(name))
            theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            ours = load_transformer(folder, dtype=torch.float32, device=torch.device("cpu"))
            made[name] = Pair(folder, theirs.eval(), ours)
        return made[name]

    return give


@pytest.fixture(params=["llama", "mistral", "qwen2-windows", "qwen3"])
def model(request: pytest.FixtureRequest, pair_of: Callable[[str], Pair]) -> Transformer:
    """One of each family, two of them with windows smaller than the texts."""
    return pair_of(request.param).ours


class Tape(TorchDispatchMode):
    """What a CUDA graph is, on a CPU: kernels with the addresses they had, run again in order.
    Whatever came from the host when it was recorded, a length or a slice, is there for good."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.kernels.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, out in self.kernels:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass is recorded by a `Tape` where CUDA would capture it."""

    def record(self: Pass, cache: Any, pool: Any) -> None:
        tape: Any = Tape()
        with tape:
            self.output = self.compute(cache)
        self.graph = tape

    monkeypatch.setattr(Pass, "record", record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))


def text(length: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (length,), generator=torch.Generator().manual_seed(seed))


def near(a: Tensor, b: Tensor, atol: float = 5e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0.0)


class Laws:
    """What every state must satisfy; each raises AssertionError where it does not."""

    TREE = (-1, -1, 0, 0, 2, 1, 4)  # nodes 0 and 1 under the root, 2 and 3 under 0, ...

    @staticmethod
    def fresh(model: Any, ids: Tensor, taps: tuple[int, ...] = ()) -> Tensor:
        """Logits (or taps) of a text read at once."""
        out = model.forward(model.begin(1, 64, taps=taps), [ids])
        return out.taps if taps else out.logits

    @classmethod
    def tokens_one_by_one(cls, model: Any) -> None:
        ids, state = text(20), model.begin(1, 64)
        rows = [model.forward(state, [ids[i : i + 1]]).logits for i in range(20)]
        near(torch.cat(rows), cls.fresh(model, ids))

    @classmethod
    def rollback_leaves_no_trace(cls, model: Any) -> None:
        state, kept, refused, then = model.begin(1, 64), text(9), text(6, 1), text(5, 2)
        model.forward(state, [kept])
        for length in (9, 12):
            model.forward(state, [refused])
            state.rollback(0, length)
            assert list(state.lengths) == [length]
        got = model.forward(state, [then]).logits
        ids = torch.cat([kept, refused[:3], then])
        near(got, cls.fresh(model, ids)[12:])

    @classmethod
    def batch_gives_each_its_own(cls, model: Any) -> None:
        texts = [text(13, 1), text(6, 2), text(9, 3)]
        state = model.begin(4, 64)
        for slot, ids in enumerate(texts):
            out = model.forward(state, [ids], first=slot, last_only=True)
            near(out.logits, cls.fresh(model, ids)[-1:])
        for counts in ((3, 1, 5), (1, 1, 1), (2, 2, 2)):
            news = [text(c, 10 + c + i) for i, c in enumerate(counts)]
            out = model.forward(state, news)
            last = out.logits.split(list(counts))
            for i, new in enumerate(news):
                texts[i] = torch.cat([texts[i], new])
                near(last[i], cls.fresh(model, texts[i])[-len(new) :])

    @classmethod
    def a_batch_may_join_at_once(cls, model: Any) -> None:
        texts = [text(7, 1), text(3, 2)]
        out = model.forward(model.begin(2, 64), texts, last_only=True)
        assert out.logits.shape[0] == 2
        near(out.logits, torch.stack([cls.fresh(model, ids)[-1] for ids in texts]))

    @classmethod
    def leaving_moves_the_last(cls, model: Any) -> None:
        texts = [text(8, 1), text(5, 2), text(11, 3)]
        state = model.begin(3, 64)
        for slot, ids in enumerate(texts):
            model.forward(state, [ids], first=slot)
        state.leave(0)
        assert list(state.lengths) == [11, 5]
        new = text(2, 9)
        out = model.forward(state, [new, new]).logits.split([2, 2])
        near(out[0], cls.fresh(model, torch.cat([texts[2], new]))[-2:])
        near(out[1], cls.fresh(model, torch.cat([texts[1], new]))[-2:])
        state.leave(1)
        assert list(state.lengths) == [13]

    @classmethod
    def branch(cls, node: int) -> list[int]:
        """The nodes from the root down to `node`."""
        return [*cls.branch(cls.TREE[node]), node] if node >= 0 else []

    @classmethod
    def tree_equals_its_chains(cls, model: Any) -> None:
        """In a batch of a tree, a chain and another tree."""
        prompts = [text(9, 1), text(12, 2), text(4, 3)]
        state = model.begin(3, 64)
        for slot, ids in enumerate(prompts):
            model.forward(state, [ids], first=slot)
        drafts = [text(8, 4), text(4, 5), text(5, 6)]
        shapes = (cls.TREE, None, (-1, -1, -1, 1))
        logits = model.forward(state, drafts, parents=shapes).logits.split([8, 4, 5])
        for node in range(-1, len(cls.TREE)):
            path = [0, *(n + 1 for n in cls.branch(node))]
            chain = torch.cat([prompts[0], drafts[0][path]])
            near(logits[0][node + 1], cls.fresh(model, chain)[-1])
        near(logits[1], cls.fresh(model, torch.cat([prompts[1], drafts[1]]))[-4:])
        near(logits[2][4], cls.fresh(model, torch.cat([prompts[2], drafts[2][[0, 2, 4]]]))[-1])

    @classmethod
    def keep_leaves_only_the_path(cls, model: Any) -> None:
        for path in ([], [1], [0, 2, 4, 6], [0, 3], [1, 5]):
            prompt, draft, then = text(9, 1), text(8, 2), text(6, 3)
            state = model.begin(1, 64)
            model.forward(state, [prompt])
            model.forward(state, [draft], parents=[cls.TREE])
            state.keep(0, 9, path)
            assert list(state.lengths) == [10 + len(path)]
            kept = torch.cat([prompt, draft[[0, *(n + 1 for n in path)]]])
            got = model.forward(state, [then]).logits
            near(got, cls.fresh(model, torch.cat([kept, then]))[-6:])

    @classmethod
    def taps_come_in_the_order_asked(cls, model: Any, taps: Sequence[int] = (1, 0)) -> None:
        ids = text(10)
        together = cls.fresh(model, ids, tuple(taps))
        near(together, torch.cat([cls.fresh(model, ids, (tap,)) for tap in taps], -1))

    ALL = (
        "tokens_one_by_one",
        "rollback_leaves_no_trace",
        "batch_gives_each_its_own",
        "a_batch_may_join_at_once",
        "leaving_moves_the_last",
        "tree_equals_its_chains",
        "keep_leaves_only_the_path",
        "taps_come_in_the_order_asked",
    )


@pytest.fixture(scope="session")
def laws() -> type[Laws]:
    return Laws


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`law` runs over the laws, `every_case` over the configurations."""
    if "law" in metafunc.fixturenames:
        metafunc.parametrize("law", Laws.ALL)
    if "every_case" in metafunc.fixturenames:
        metafunc.parametrize("every_case", CASES)
