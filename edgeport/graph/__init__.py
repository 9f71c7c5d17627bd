"""Exact rewrites of a captured graph, one a file, each found by its file's name.

A pass is a module with FORMATS (the formats that it serves), ORDER (passes run from low to high) and run(gm), which
rewrites the graph in place and returns how many nodes it changed. Outputs stay equal within float error.
"""

import importlib
import pkgutil
from types import ModuleType

import torch.fx

FORMATS = ("onnx", "tflite")


def passes() -> list[ModuleType]:
    """All passes, in the order in which they run."""
    names = (m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    found = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return sorted(found, key=lambda p: (p.ORDER, p.__name__))


def run_passes(gm: torch.fx.GraphModule, formats: tuple[str, ...]) -> dict[str, int]:
    """Runs the passes that serve exactly these formats. {name of the pass: nodes that it changed}."""
    changes = {}
    for module in passes():
        if formats == module.FORMATS:
            changes[module.__name__.rpartition(".")[2]] = int(module.run(gm))
            gm.graph.lint()
            gm.recompile()
    return changes
