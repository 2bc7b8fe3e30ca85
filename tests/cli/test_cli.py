"""Words typed by a person: what goes to which stream, which code comes back, how long it takes."""

from __future__ import annotations

import errno
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from rich.console import Console

from floodstage.cli import show
from floodstage.cli.main import app, main
from floodstage.core.types import StepRecord
from floodstage.engine.build import ASSETS
from floodstage.engine.engine import Chunk, Engine
from floodstage.engine.writing import Piece

MAIN = "from floodstage.cli.main import main; main()"
PROMPT = "What is 3 + 4?"


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def floodstage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command line with words, in this process."""

    def call(*words: object, stdin: str = "") -> Said:
        monkeypatch.setattr(sys, "argv", ["floodstage", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Said(ended.value.code or 0, out, err)  # type: ignore[arg-type]

    return call


@pytest.fixture
def generate(floodstage: Any, tiny: Any) -> Any:
    """`floodstage generate` on the tiny models."""

    def call(*words: object, target: Path = tiny.target, stdin: str = "") -> Said:
        given = ("--target", target, "--drafter", tiny.drafter, "--threads", 1, "--device", "cpu")
        said: Said = floodstage("generate", *given, *words, stdin=stdin)
        return said

    return call


def fresh(*words: object) -> list[str]:
    return [sys.executable, "-c", MAIN, *map(str, words)]


# -- help -------------------------------------------------------------------------------------


def test_help_comes_at_once() -> None:
    def seconds() -> float:
        start = perf_counter()
        subprocess.run(fresh("--help"), check=True, capture_output=True)
        return perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.5


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nfrom floodstage.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    for words in (["--help"], ["train", "target", "--help"]):
        subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)


def commands() -> list[tuple[str, ...]]:
    names: list[tuple[str, ...]] = [
        (c.callback.__name__,) for c in app.registered_commands if c.callback
    ]
    for group in app.registered_groups:
        assert group.name is not None
        assert group.typer_instance is not None
        inner = group.typer_instance.registered_commands
        names += [(group.name,), *((group.name, c.callback.__name__) for c in inner if c.callback)]
    return [(), *names]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(floodstage: Any, command: tuple[str, ...], flag: str) -> None:
    said = floodstage(*command, flag)
    assert said.code == 0
    assert said.out.startswith("Usage: floodstage")
    assert said.err == ""


def test_no_words_show_the_help_as_a_mistake(floodstage: Any) -> None:
    said = floodstage()
    assert said.code == 2
    assert "generate" in said.out + said.err


# -- generate ---------------------------------------------------------------------------------


def test_only_the_text_is_on_standard_output(
    generate: Any, engine_of: Callable[..., Engine]
) -> None:
    said = generate(PROMPT, "--max-new-tokens", 30, "--temperature", 0.8, "--seed", 3)
    want = engine_of("tiny").generate(PROMPT, max_new_tokens=30, temperature=0.8, seed=3)
    assert said.code == 0
    assert said.out == want.text + "\n"
    assert re.fullmatch(
        r"30 tokens in [\d.]+ s · [\d,]+ tokens/s · first after \d+ ms · tau [\d.]+ tokens per "
        r"target pass \(bonus included\) · drafter block-diffusion · verifier match \(lossless\)\n",
        said.err,
    )


def test_every_option_reaches_the_engine(generate: Any, engine_of: Callable[..., Engine]) -> None:
    options: dict[str, Any] = {
        "max_new_tokens": 20, "temperature": 0.9, "top_k": 40, "top_p": 0.9, "min_p": 0.01,
        "repetition_penalty": 1.2, "seed": 11,
    }  # fmt: skip
    words = [w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", v)]
    parts = ("--draft-len", 3, "--scheduler", "confidence", "--verifier", "reject", "--no-chat")
    said = generate(PROMPT, *words, *parts, "--dtype", "fp32")
    engine = engine_of("tiny", draft_len=3, scheduler="confidence", verifier="reject")
    whole = engine.generate(PROMPT, chat=False, **options).text
    assert said.out == whole + "\n"
    stops = ("--stop", whole[6:8], "--stop", "never written")
    assert generate(PROMPT, *words, *parts, *stops).out == whole[: whole.index(whole[6:8])] + "\n"


def test_the_last_line_is_one_document(generate: Any) -> None:
    said = generate(PROMPT, "--max-new-tokens", 12, "--json")
    document = json.loads(said.out.splitlines()[-1])
    assert said.out.startswith(document["text"])
    assert len(document["ids"]) == 12
    assert document["finish"] == "length"
    assert sum(r["accepted"] + 1 for r in document["records"]) >= 12
    assert {"ttft_s", "wall_s", "tokens_per_s", "tpot_s", "tau"} <= set(document)


def test_a_dash_reads_standard_input(generate: Any) -> None:
    typed = generate(PROMPT, "--max-new-tokens", 10)
    piped = generate("-", "--max-new-tokens", 10, stdin=PROMPT)
    assert piped.out == typed.out


def test_accepted_tokens_are_green_if_asked(generate: Any) -> None:
    plain = generate(PROMPT, "--max-new-tokens", 30).out
    green = generate(PROMPT, "--max-new-tokens", 30, "--color").out
    assert "\x1b[32m" in green
    assert re.sub(r"\x1b\[\d*m", "", green) == plain
    assert "\x1b" not in generate(PROMPT, "--max-new-tokens", 30, "--no-color").out


@pytest.mark.parametrize("terminal", [False, True])
def test_tabs_and_line_ends_stay_as_they_are(terminal: bool) -> None:
    text = "a\tb\r\n \x0c[bold]:smile: " + "x" * 200 + "\n"
    console = Console(file=io.StringIO(), force_terminal=terminal, width=40)
    record = StepRecord(0, 0, 0, 1, 0.0, 0.0)
    show.write(console, Chunk(0, (Piece(text, False),), record))
    assert console.file.getvalue() == text  # type: ignore[attr-defined]


# -- mistakes and failures --------------------------------------------------------------------


def sentence(said: Said) -> str:
    """The one line on standard error."""
    assert "Traceback" not in said.out + said.err
    (line,) = said.err.splitlines()
    assert line.startswith("floodstage: ")
    return line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--drafter", "ngramm"), "Did you mean 'ngram'"),
        (("--verifier", "metch"), "Did you mean 'match'"),
        (("--scheduler", "fixd"), "Did you mean 'fixed'"),
        (("--dtype", "fp64"), "Unknown dtype 'fp64'"),
        (("--device", "gpu"), "Unknown device 'gpu'"),
        (("--top-p", 3), r"top_p must be in \(0, 1\], got 3.0"),
        (("--stop", ""), "stop string is empty"),
        (("--target", "nowhere"), "Unknown model 'nowhere'"),
    ],
)
def test_a_mistake_is_one_sentence_and_code_2(
    generate: Any, words: tuple[object, ...], said: str
) -> None:
    got = generate(PROMPT, *words)
    assert got.code == 2
    assert re.search(said, sentence(got))


@pytest.mark.parametrize("prompt", ["", "-"])
def test_an_empty_prompt_is_a_mistake(generate: Any, prompt: str) -> None:
    said = generate(prompt)
    assert said.code == 2
    assert "prompt is empty" in sentence(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("generate", "x", "--temprature", 1), "Possible options:.*--temperature"),
        (("generate", "x", "--max-new-tokens", 0), "greater than or equal to 1|x>=1"),
        (("generate", "x", "--max-new-tokens", "many"), "many|valid integer"),
        (("generate",), "Missing argument"),
        (("generat", "x"), "No such command 'generat'"),
        (("train", "drafters"), "No such command 'drafters'"),
        (("bench",), "Missing option '--out'"),
    ],
)
def test_a_word_nobody_knows_is_code_2(
    floodstage: Any, words: tuple[object, ...], said: str
) -> None:
    got = floodstage(*words)
    assert got.code == 2
    assert got.err.startswith("Usage: floodstage")
    assert re.search(said, " ".join(got.err.split()))
    assert got.out == ""


def test_a_truncated_model_is_code_1(generate: Any, copied: Any) -> None:
    weights = copied.target / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    said = generate(PROMPT, target=copied.target)
    assert said.code == 1
    assert "truncated or corrupt" in sentence(said)


def test_a_missing_file_is_code_1(generate: Any, copied: Any) -> None:
    (copied.target / "tokenizer.json").unlink()
    said = generate(PROMPT, target=copied.target)
    assert said.code == 1
    assert "has no tokenizer.json" in sentence(said)


def test_what_does_not_fit_is_code_1(generate: Any) -> None:
    said = generate(PROMPT, "--max-new-tokens", 4000)
    assert said.code == 1
    assert "exceed the model's context of 320" in sentence(said)


def test_a_pair_that_does_not_fit_is_code_1(generate: Any, tiny: Any) -> None:
    said = generate(PROMPT, target=tiny.drafter)
    assert said.code == 1
    assert "is a drafter, not a target" in sentence(said)


def test_a_full_disk_is_code_1(floodstage: Any, tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = floodstage("bench", "--out", tmp_path / "file" / "run", "--target", tiny.target)
    assert said.code == 1
    assert "Not a directory" in sentence(said)


def test_a_bug_of_ours_is_not_hidden(
    generate: Any, monkeypatch: pytest.MonkeyPatch, tiny: Any
) -> None:
    monkeypatch.setattr("floodstage.engine.build.load", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(PROMPT)


# -- stopping ---------------------------------------------------------------------------------


def running(tiny: Any) -> subprocess.Popen[bytes]:
    """A generation of which the first characters have come."""
    words = fresh("generate", PROMPT, "--target", tiny.target, "--drafter", "none", "--threads", 1)
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # a shell's background ignores SIGINT, and its children inherit that
    assert process.stdout is not None
    assert process.stdout.read(1)
    return process


def test_an_interrupt_stops_cleanly(tiny: Any) -> None:
    with running(tiny) as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.decode().strip() == "Stopped."


def test_an_interrupt_before_anything_ran_stops_cleanly(
    generate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*given: Any, **settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("floodstage.engine.build.load", interrupt)
    said = generate(PROMPT)
    assert (said.code, said.out, said.err) == (130, "", "\nStopped.\n")


class Gone(io.StringIO):
    """A stream whose reader has left."""

    def flush(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_reader_that_leaves_ends_the_stream(
    generate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Gone())
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # typer replaces both
    said = generate(PROMPT)
    assert (said.code, said.err) == (1, "")


def test_a_reader_that_leaves_is_told_nothing() -> None:
    with subprocess.Popen(fresh("--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asked:
        assert asked.stdout is not None
        assert asked.stderr is not None
        asked.stdout.close()
        assert asked.stderr.read() == b""
    assert asked.returncode == 1


# -- the other commands -----------------------------------------------------------------------


def test_bench_prints_a_table_and_a_document(floodstage: Any, tiny: Any, tmp_path: Path) -> None:
    words = ("bench", "--out", tmp_path, "--target", tiny.target, "--prompts", 2, "--threads", 1)
    more = ("--arms", f"none,{tiny.drafter}", "--max-new-tokens", 6, "--device", "cpu")
    said = floodstage(*words, *more, "--json")
    assert said.code == 0
    (line,) = said.out.splitlines()
    rows = json.loads(line)
    assert [r["arm"] for r in rows] == ["none", str(tiny.drafter)]
    assert all(r["identical"] == 2 for r in rows)
    assert f"Records and summaries: {tmp_path}\n" in said.err
    shown = floodstage(*words, *more)
    assert shown.out.count("2/2") == 2
    assert "tau: mean tokens per target pass" in shown.out


def test_bench_of_a_batch_prints_both_rates(floodstage: Any, tiny: Any, tmp_path: Path) -> None:
    words = ("bench", "--out", tmp_path, "--target", tiny.target, "--prompts", 3, "--threads", 1)
    more = ("--arms", "none,ngram", "--max-new-tokens", 6, "--device", "cpu")
    said = floodstage(*words, *more, "--slots", 2, "--json")
    assert said.code == 0
    rows = json.loads(said.out.splitlines()[-1])
    assert [(r["arm"], r["slots"], r["identical"], r["prompts"]) for r in rows] == [
        ("none", 2, 3, 3),
        ("ngram", 2, 3, 3),
    ]


def test_a_drafter_is_trained_by_a_command(floodstage: Any, tiny: Any, tmp_path: Path) -> None:
    said = floodstage(
        *("train", "drafter", "--out", tmp_path, "--target", tiny.target, "--threads", 1),
        *("--corpus", tiny.corpus, "--steps", 2, "--tokens-per-step", 64, "--texts", 4),
        *("--new-tokens", 6, "--layers", 1, "--block-size", 4, "--anchors", 2),
        *("--loss", "dpace", "--evaluate-every", 2, "--device", "cpu"),
    )
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == str(tmp_path / "model")
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["shape"]["loss"], run["shape"]["block_size"], run["fit"]["steps"]) == (
        "dpace",
        4,
        2,
    )
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert "floodstage train drafter --out" in card
    said = floodstage(
        *("generate", PROMPT, "--target", tiny.target, "--drafter", tmp_path / "model"),
        *("--threads", 1, "--max-new-tokens", 5),
    )
    assert said.code == 0


def test_models_lists_what_is_shipped(floodstage: Any) -> None:
    said = floodstage("models")
    assert said.code == 0
    names = sorted(p.name for p in ASSETS.iterdir()) if ASSETS.is_dir() else []
    assert [line.split()[0] for line in said.out.splitlines()] == names


@pytest.mark.skipif(not (ASSETS / "math-mini").is_dir(), reason="math-mini is not shipped here")
def test_the_demo_shows_that_nothing_is_lost(floodstage: Any) -> None:
    said = floodstage("demo", "--prompts", 1, "--threads", 1, "--json")
    assert said.code == 0
    rows = json.loads(said.out.splitlines()[-1])
    assert [r["arm"] for r in rows] == ["none", "ngram", "auto"]
    assert "All outputs are identical" in said.err
