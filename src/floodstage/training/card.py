"""Model cards: how a model was made, from the run's own files."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_card(folder: Path, title: str, run: Mapping[str, Any]) -> None:
    """`MODEL_CARD.md` beside the model: the command, the settings, every evaluation."""
    history = json.loads((folder / "history.json").read_text())
    command = " ".join(["floodstage", *map(shlex.quote, sys.argv[1:])])
    if Path(run.get("start") or "").is_absolute():  # a shipped model; where it lies is nobody's
        run = {**run, "start": Path(run["start"]).name}
    columns = list(dict.fromkeys(k for row in history for k in row if k != "tokens_per_s"))
    lines = [
        f"# {folder.parent.name}",
        "",
        f"{title}.",
        "",
        "Made by",
        "",
        f"    {command}",
        "",
        "with",
        "",
        "```json",
        json.dumps(run, indent=1),
        "```",
        "",
        "Held-out figures while training:",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---:|" * len(columns),
    ]
    for row in history:
        cells = (f"{row[c]:.4g}" if c in row else "" for c in columns)
        lines.append("| " + " | ".join(cells) + " |")
    (folder / "MODEL_CARD.md").write_text("\n".join(lines) + "\n")
