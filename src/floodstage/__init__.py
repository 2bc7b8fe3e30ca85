"""floodstage: generate in parallel what is usually generated one step at a time.

    import floodstage
    engine = floodstage.load("math-mini")
    print(engine.generate("What is 17 × 24?").text)

Names load when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from floodstage.core.errors import Error
    from floodstage.engine.build import load
    from floodstage.engine.canvas import CanvasEngine, load_canvas
    from floodstage.engine.engine import Chunk, Engine, Generation
    from floodstage.engine.flood import Flood, FloodGeneration, load_flood

__all__ = [
    "CanvasEngine",
    "Chunk",
    "Engine",
    "Error",
    "Flood",
    "FloodGeneration",
    "Generation",
    "load",
    "load_canvas",
    "load_flood",
]
__version__ = "0.1.0"

_HOMES = {
    "CanvasEngine": "floodstage.engine.canvas",
    "Chunk": "floodstage.engine.engine",
    "Engine": "floodstage.engine.engine",
    "Error": "floodstage.core.errors",
    "Flood": "floodstage.engine.flood",
    "FloodGeneration": "floodstage.engine.flood",
    "Generation": "floodstage.engine.engine",
    "load": "floodstage.engine.build",
    "load_canvas": "floodstage.engine.canvas",
    "load_flood": "floodstage.engine.flood",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
