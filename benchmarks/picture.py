"""Draw docs/demo.svg: what `floodstage demo` really prints.

.venv/bin/python benchmarks/picture.py
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from floodstage.cli.demo import run_demo

OUT = Path(__file__).resolve().parent.parent / "docs/demo.svg"


def main() -> None:
    console = Console(
        record=True, width=112, force_terminal=True, highlight=False, file=io.StringIO()
    )
    run_demo("math-mini", prompts=8, threads=2, as_json=False, console=console)
    console.save_svg(str(OUT), title="floodstage demo")


if __name__ == "__main__":
    main()
